//! The time at which a call gives up. Owns its time-out; must never read the clock before the call
//! has to wait.

use std::time::{Duration, Instant};

/// The time at which a call gives up: its time-out, counted from the first wait.
#[derive(Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) timeout: Option<Duration>,
    pub(crate) at: Option<Instant>,
    /// Whether the time-out is an option of the socket (SO_RCVTIMEO, SO_SNDTIMEO), which ends a
    /// call with EAGAIN.
    pub(crate) is_option: bool,
}

impl Deadline {
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, at: None, is_option: false }
    }

    /// The deadline of one step of several, of which `after` are still to come: an equal share of
    /// the time that is left.
    pub(crate) fn share(&mut self, after: usize) -> Self {
        if after == 0 {
            return *self;
        }
        let now = Instant::now();
        let at = self.at().map(|at| now + at.saturating_duration_since(now) / (after as u32 + 1));
        Self { at, ..*self }
    }

    /// The deadline. The first call of this method reads the clock.
    pub(crate) fn at(&mut self) -> Option<Instant> {
        if self.at.is_none() {
            self.at = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        }
        self.at
    }
}
