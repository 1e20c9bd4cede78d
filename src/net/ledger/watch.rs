//! A condition on a ledger whose descriptor becomes readable when it is met: for callers that wait
//! by a loop of their own. Must never block.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use super::ledger::{Ledger, Wait};
use super::record::Record;
use crate::net::base::{EventFd, Origin};
use crate::net::error::Result;

/// A condition that is watched until the drop.
pub struct Watch {
    ledger: Arc<Ledger>,
    wait: Wait,
    /// None where the process has no descriptor left: the caller looks again by itself.
    flag: Option<Arc<EventFd>>,
    origin: Origin,
}

impl Ledger {
    /// Watches for exactly `open` open connections and at least `closed` closed ones.
    pub fn watch(self: &Arc<Self>, open: Option<u64>, closed: Option<u64>) -> Watch {
        let wait = Wait::of(open, closed);
        let flag = self.state.lock().wait_with_flag(wait);
        Watch { ledger: Arc::clone(self), wait, flag, origin: Origin::here() }
    }
}

impl Watch {
    /// The descriptor; None where the process has none left.
    #[must_use]
    pub fn fileno(&self) -> Option<RawFd> {
        let flag = self.flag.as_ref().filter(|flag| !flag.is_lost());
        flag.map(|flag| flag.as_fd().as_raw_fd())
    }

    /// All records, if the condition is met now; None otherwise. `Error::Forked` in a child.
    pub fn check(&self) -> Result<Option<Vec<Arc<Record>>>> {
        self.origin.check()?;
        if let Some(flag) = &self.flag {
            flag.clear();
        }
        Ok(self.ledger.state.lock().found(self.wait))
    }

    /// The error of a wait that has taken too long.
    #[must_use]
    pub fn late(&self) -> crate::net::error::Error {
        self.ledger.late(self.wait)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // In a forked child the lock may be held for ever.
        if let Some(flag) = self.flag.take() {
            if self.origin.is_here() {
                self.ledger.state.lock().give_back(flag);
            } else {
                std::mem::forget(flag);
            }
        }
    }
}
