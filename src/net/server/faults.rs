//! The faults of a server, from the caller's side: added, removed, listed. Owns the wait until every
//! thread knows of a change; must never change a connection itself.

use std::sync::Arc;

use super::server::Server;
use crate::net::base::{EventFd, Waiter};
use crate::net::error::{Error, Result};
use crate::net::stage::faults::{Ack, Fault, FaultSet, Installed};

impl Server {
    /// The faults.
    #[must_use]
    pub fn faults(&self) -> &FaultSet {
        &self.inner.context.faults
    }

    /// Adds a fault. Blocks until every connection has it, and the listener, if the server serves.
    pub fn add_fault(&self, fault: Fault, waiter: &mut dyn Waiter) -> Result<Arc<Installed>> {
        self.check_origin()?;
        fault.check(self.config.transport)?;
        let added = self.faults().add(fault, self.ledger().totals().accepted);
        self.announce_faults(waiter).map(|()| added)
    }

    /// Removes a fault by its number. Blocks until no connection has it. Returns whether it was
    /// there.
    pub fn remove_fault(&self, id: u64, waiter: &mut dyn Waiter) -> Result<bool> {
        self.check_origin()?;
        let removed = self.faults().remove(id);
        self.announce_faults(waiter).map(|()| removed)
    }

    fn announce_faults(&self, waiter: &mut dyn Waiter) -> Result<()> {
        let flag = Arc::new(EventFd::new().map_err(|error| Error::os("fault", "", &error))?);
        let ack = Ack::new(Arc::clone(&flag));
        self.faults().announce(&ack);
        drop(ack);
        waiter.wait(&mut [flag.polled()], None)?;
        self.check_origin()
    }
}
