//! The timers of one worker: exact, removable. Must never be used while data is moved: an idle
//! connection has no timer, and a busy one sets none.

use std::collections::BTreeSet;
use std::time::Instant;

/// The purpose of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A timer of the engine: half-close, lingering close.
    Engine,
    /// A timer of a leg's stages, by the number of the leg.
    Stages(u8),
    /// A timer of a session, by the session's key.
    Session(u32),
}

/// The active timers, in the order in which they expire.
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

    /// Removes the first timer that has expired.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<(u64, Key)> {
        let &(at, token, key) = self.0.first()?;
        if at > now {
            return None;
        }
        self.0.pop_first();
        Some((token, key))
    }
}
