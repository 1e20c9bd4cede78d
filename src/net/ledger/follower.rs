//! An iterator over the records of a ledger, in the order in which connections close. Must never
//! keep a record alive that the ledger has dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::ledger::{Ledger, LedgerState, Wait};
use super::record::Record;
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};

/// Returns each connection of a server after it closes, in the order of closing. Stores only its
/// position: a follower that falls further behind than the ledger's history misses records.
pub struct Follower {
    ledger: Arc<Ledger>,
    /// The number of the next connection to return, counted by closings since the start. Written
    /// only under the lock of the state.
    next: AtomicU64,
    missed: AtomicU64,
}

impl Ledger {
    /// A follower of all connections that close from now on. `Error::Value` if the ledger keeps no
    /// history.
    pub fn follow(self: &Arc<Self>) -> Result<Follower> {
        if self.history == 0 {
            let text = "follow: this ledger forgets each connection as it closes (history=0)";
            return Err(Error::Value(text.to_owned()));
        }
        let next = AtomicU64::new(self.state.lock().closed_ever());
        Ok(Follower { ledger: Arc::clone(self), next, missed: AtomicU64::new(0) })
    }
}

impl Follower {
    /// Blocks until the next connection has closed; None once the server has ended and all records
    /// were returned. `TimedOut` after the deadline.
    pub fn next(
        &self,
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Option<Arc<Record>>> {
        let closed_ever = Some(self.next.load(Relaxed) + 1);
        let wait = Wait { open: None, closed: None, closed_ever };
        let found = self.ledger.wait_for(wait, deadline, waiter, |state| self.take(state))?;
        let late = || Error::TimedOut {
            step: "follow",
            target: "until the next connection closes".to_owned(),
        };
        found.ok_or_else(late)
    }

    /// The next record, if it exists; `Some(None)` at the end.
    fn take(&self, state: &mut LedgerState) -> Option<Option<Arc<Record>>> {
        let next = self.next.load(Relaxed);
        let oldest = state.closed_ever() - state.closed.len() as u64;
        if next < oldest {
            self.missed.fetch_add(oldest - next, Relaxed);
        }
        let next = next.max(oldest);
        let record = state.closed.get((next - oldest) as usize).cloned();
        self.next.store(next + u64::from(record.is_some()), Relaxed);
        match record {
            Some(record) => Some(Some(record)),
            None => state.over.then_some(None),
        }
    }

    /// Number of records missed, because the ledger dropped them before they were requested.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Relaxed)
    }
}
