//! The timers of one worker, exact and removable. Must never be asked on the way of the data: an
//! idle connection has none, and a busy one sets none.

use std::collections::BTreeSet;
use std::time::Instant;

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The engine's own: half-close, lingering close.
    Engine,
    /// The stages' of a leg, by its number.
    Stages(u8),
    /// A session's, by its key.
    Session(u32),
}

/// Set timers in the order in which they run out.
#[derive(Default)]
pub(crate) struct Timers(BTreeSet<(Instant, u64, Key)>);

impl Timers {
    pub(crate) fn insert(&mut self, at: Instant, token: u64, key: Key) {
        self.0.insert((at, token, key));
    }

    pub(crate) fn remove(&mut self, at: Instant, token: u64, key: Key) {
        self.0.remove(&(at, token, key));
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|&(at, ..)| at)
    }

    /// Takes the first one that has run out.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(u64, Key)> {
        let &(at, token, key) = self.0.first()?;
        if at > now {
            return None;
        }
        self.0.pop_first();
        Some((token, key))
    }
}
