//! The short busy wait before a call blocks. Owns the estimate of whether it pays; must never go on
//! spinning when it does not.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{hint, thread};

/// After this many failed spins in a row, spinning is off...
const SPIN_FAILURES: u32 = 4;
/// ...apart from one wait in this many, to notice when the peer has become fast again.
const SPIN_RETRY: u32 = 64;
/// For this long a spinning call keeps its CPU. It is slightly more than a peer on another CPU
/// takes to answer. After that the call yields between its tries.
const SPIN_ALONE: Duration = Duration::from_micros(40);
/// A peer that answered only after such a yield may need this very CPU. The next calls yield at
/// once, as long as the answer follows, apart from one in this many, to notice a peer on another
/// CPU.
const ALONE_RETRY: u32 = 256;

/// Retries for a short time before the thread blocks, as long as that pays.
///
/// After blocking, a Python thread may need a switch interval (5 ms) to get the GIL back from a
/// busy one. A peer on the same machine answers in a fraction of that.
#[derive(Debug)]
pub(crate) struct Spin {
    limit: Duration,
    failures: AtomicU32,
    waits: AtomicU32,
    /// Whether the peer seems to need this CPU.
    gives_way: AtomicBool,
}

impl Spin {
    /// Spins for at most `limit` per wait. Zero disables spinning.
    pub(super) fn new(limit: Duration) -> Self {
        let (failures, waits) = (AtomicU32::new(0), AtomicU32::new(0));
        Self { limit, failures, waits, gives_way: AtomicBool::new(false) }
    }

    /// Whether waits never spin.
    pub(super) fn is_off(&self) -> bool {
        self.limit.is_zero()
    }

    /// Tries until `attempt` returns a result, or until spinning no longer pays. None in that case.
    pub(super) fn run<T>(
        &self,
        deadline: Option<Instant>,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let waits = self.waits.fetch_add(1, Relaxed);
        if self.is_off()
            || (self.failures.load(Relaxed) >= SPIN_FAILURES && waits % SPIN_RETRY != 0)
        {
            return None;
        }
        if self.gives_way.load(Relaxed) && waits % ALONE_RETRY != 0 {
            thread::yield_now();
            if let Some(result) = attempt() {
                self.failures.store(0, Relaxed);
                return Some(result);
            }
            // The peer did not use the CPU that it was given: it has one of its own.
            self.gives_way.store(false, Relaxed);
        }
        let start = Instant::now();
        let yield_from = start + SPIN_ALONE;
        let mut yielded = false;
        let until = start + self.limit;
        let until = deadline.map_or(until, |deadline| until.min(deadline));
        loop {
            if let Some(result) = attempt() {
                self.failures.store(0, Relaxed);
                self.gives_way.store(yielded, Relaxed);
                return Some(result);
            }
            let now = Instant::now();
            if now >= yield_from {
                // The peer has not answered at once. It may be waiting for this very CPU.
                yielded = true;
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
