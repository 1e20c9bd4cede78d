//! The faults of a server, from the caller's side: added, removed, listed. Owns what a state of the
//! server allows; must never change a connection itself.

use std::sync::Arc;

use super::inner::Inner;
use super::lifecycle::State;
use super::server::Server;
use crate::net::base::Waiter;
use crate::net::error::Result;
use crate::net::stage::faults::{Fault, FaultHost, FaultSet, Installed, SetOwner};

impl Server {
    /// The faults.
    #[must_use]
    pub fn faults(&self) -> &FaultSet {
        &self.inner.context.faults
    }

    /// Refuses to change the faults of a server that has ended.
    pub fn check_faults(&self, asked: &'static str) -> Result<()> {
        self.check_origin()?;
        match self.state() {
            State::Stopped => Err(self.wrong(asked, State::Stopped.hint())),
            _ => Ok(()),
        }
    }
}

impl FaultHost for Server {
    fn add_fault(&self, fault: Fault, waiter: &mut dyn Waiter) -> Result<Arc<Installed>> {
        self.check_faults("add a fault")?;
        fault.check(self.config.transport)?;
        let accepted = self.ledger().totals().accepted;
        self.faults().add_and_wait(fault, accepted, &*self.inner, waiter)
    }

    /// No effect on a server that has ended.
    fn remove_faults(&self, ids: &[u64], waiter: &mut dyn Waiter) -> Result<()> {
        self.check_origin()?;
        self.faults().remove_and_wait(ids, &*self.inner, waiter)
    }

    fn is_here(&self) -> bool {
        self.check_origin().is_ok()
    }
}

impl SetOwner for Inner {
    fn changed(&self) -> Result<()> {
        self.context.update_listener()
    }

    fn announced(&self, waiter: &mut dyn Waiter) -> Result<()> {
        self.sockets.stop_all_blocking(waiter)
    }

    fn lose(&self) {
        self.context.lose();
    }
}
