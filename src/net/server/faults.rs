//! The faults of a server, from the caller's side: added, removed, listed. Owns what a state of the
//! server allows; must never change a connection itself.

use std::sync::Arc;

use super::inner::Inner;
use super::lifecycle::State;
use super::server::Server;
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};
use crate::net::stage::faults::{Connections, Fault, FaultHost, FaultSet, Installed, SetOwner};

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

    /// How many open connections a fault would concern that it cannot reach: the callers have their
    /// sockets.
    fn out_of_reach(&self, fault: &Fault) -> usize {
        let concerned = |id: u64| match &fault.scope.connections {
            Connections::All => true,
            Connections::First(_) => false,
            Connections::Numbered(numbers) => numbers.contains(&id),
        };
        if fault.kind.accepting().is_some() || !self.hands_out_streams() {
            return 0;
        }
        let lists = [&self.inner.pool.handed_out, &self.inner.on_demand.handed_out];
        let streams = lists.iter().flat_map(|list| list.all_streams());
        let raw = streams.filter(|stream| !stream.is_inner() && !stream.is_closed());
        raw.filter(|stream| {
            let open = stream.record().filter(|record| record.closed_by().is_none());
            open.is_some_and(|record| concerned(record.id()))
        })
        .count()
    }

    /// Has new connections that are handed out stay with workers, where a fault needs that.
    fn prepare_for(&self, fault: &Fault) -> Result<()> {
        let needed = fault.kind.accepting().is_none() && self.hands_out_streams();
        if needed && self.state() == State::Serving {
            self.inner.outer.prepare().map_err(|error| Error::os("fault", "", &error))?;
        }
        Ok(())
    }
}

impl FaultHost for Server {
    fn add_fault(&self, fault: Fault, waiter: &mut dyn Waiter) -> Result<Arc<Installed>> {
        self.check_faults("add a fault")?;
        fault.check(self.config.transport)?;
        self.prepare_for(&fault)?;
        let accepted = self.ledger().totals().accepted;
        self.faults().add_and_wait(fault, accepted, &*self.inner, waiter)
    }

    /// No effect on a server that has ended.
    fn remove_faults(&self, ids: &[u64], waiter: &mut dyn Waiter) -> Result<()> {
        self.check_origin()?;
        self.faults().remove_and_wait(ids, &*self.inner, waiter)
    }

    fn unreached(&self, fault: &Fault) -> Result<Option<(usize, &str)>> {
        self.check_faults("add a fault")?;
        let count = self.out_of_reach(fault);
        Ok((count > 0).then_some((count, self.config.name.as_str())))
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
