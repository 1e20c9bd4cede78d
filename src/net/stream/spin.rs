//! Trying again for a moment before giving the thread up. Must never go on when it does not pay.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{hint, thread};

/// After so many waits in a row that came to nothing, spinning is off...
const SPIN_FAILURES: u32 = 4;
/// ...but for one wait in so many, to see whether the peer has become quick again.
const SPIN_RETRY: u32 = 64;
/// A spinning call keeps its CPU for so long, which is a little more than a peer that runs on another
/// one takes to answer; then it lets others have it between its tries.
const SPIN_ALONE: Duration = Duration::from_micros(40);

/// Whether it pays to retry for a moment in place of giving the thread up.
///
/// Giving it up costs a Python thread up to a switch interval (5 ms) to come back beside a busy one;
/// a peer on the same machine answers in a fraction of that.
#[derive(Debug)]
pub(crate) struct Spin {
    limit: Duration,
    failures: AtomicU32,
    waits: AtomicU32,
}

impl Spin {
    /// Spins for at most `limit` a wait; zero never does.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, failures: AtomicU32::new(0), waits: AtomicU32::new(0) }
    }

    /// Tries until `attempt` has something, or it does not pay any more.
    pub(super) fn run<T>(
        &self,
        deadline: Option<Instant>,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let waits = self.waits.fetch_add(1, Relaxed);
        if self.limit.is_zero()
            || (self.failures.load(Relaxed) >= SPIN_FAILURES && waits % SPIN_RETRY != 0)
        {
            return None;
        }
        let start = Instant::now();
        let yield_from = start + SPIN_ALONE;
        let until = start + self.limit;
        let until = deadline.map_or(until, |deadline| until.min(deadline));
        loop {
            if let Some(result) = attempt() {
                self.failures.store(0, Relaxed);
                return Some(result);
            }
            let now = Instant::now();
            if now >= yield_from {
                // Not answered at once: whoever is to answer may be waiting for this very CPU.
                thread::yield_now();
            } else {
                hint::spin_loop();
            }
            if now >= until {
                self.failures.fetch_add(1, Relaxed);
                return None;
            }
        }
    }
}
