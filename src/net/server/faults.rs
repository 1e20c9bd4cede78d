//! The faults of a server, from the caller's side: added, removed, listed. Owns the wait until every
//! thread knows of a change; must never change a connection itself.

use std::sync::Arc;
use std::time::Duration;

use super::lifecycle::State;
use super::server::Server;
use crate::net::base::{EventFd, Waiter, pause, wait_for_own};
use crate::net::error::{Error, Result};
use crate::net::stage::faults::{Ack, Fault, FaultSet, Installed};

/// How often a call without an event flag looks whether the threads have confirmed a change.
const NO_FLAG: Duration = Duration::from_millis(10);

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

    /// Adds a fault. Blocks until every connection has it, and the listener, if the server serves.
    /// After an error, also an interruption of the wait, the server does not have it.
    pub fn add_fault(&self, fault: Fault, waiter: &mut dyn Waiter) -> Result<Arc<Installed>> {
        self.check_faults("add a fault")?;
        fault.check(self.config.transport)?;
        let added = self.faults().add(fault, self.ledger().totals().accepted);
        let told = self.inner.context.update_listener().and_then(|()| self.announce(waiter));
        if told.is_err() && self.check_origin().is_ok() {
            self.faults().remove(added.id);
            let _ = self.inner.context.update_listener();
            // Each thread hears of both changes in their order.
            self.faults().announce(&Ack::new(None));
        }
        told.map(|()| added)
    }

    /// Removes faults by their numbers. Blocks until no connection has them. The server has them no
    /// more after an interruption of the wait either. No effect on a server that has ended.
    pub fn remove_faults(&self, ids: &[u64], waiter: &mut dyn Waiter) -> Result<()> {
        self.check_origin()?;
        for &id in ids {
            self.faults().remove(id);
        }
        let changed = self.inner.context.update_listener();
        self.announce(waiter).and(changed)
    }

    /// Tells every thread of a change, and waits until each has confirmed it or has ended.
    fn announce(&self, waiter: &mut dyn Waiter) -> Result<()> {
        // Without a descriptor for a flag the change is made all the same.
        let flag = EventFd::new().ok().map(Arc::new);
        let ack = Ack::new(flag.clone());
        let pending = ack.pending();
        if !self.faults().announce(&ack) {
            self.inner.context.lose();
        }
        drop(ack);
        while !pending.is_over() {
            let waited = match flag.as_ref().filter(|flag| !flag.is_lost()) {
                Some(flag) => wait_for_own(waiter, &mut [flag.polled()], None),
                None => pause(waiter, NO_FLAG, None),
            };
            // A signal handler may have forked.
            self.check_origin()?;
            match (waited, &flag) {
                // The program has closed it.
                (Err(Error::Os { errno: libc::EBADF, .. }), Some(flag)) => flag.lose(),
                (waited, _) => drop(waited?),
            }
        }
        Ok(())
    }
}
