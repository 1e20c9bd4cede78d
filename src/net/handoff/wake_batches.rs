//! Ends the reads of blocked handlers a few at a time. Must never wait.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::net::stream::stream::Stream;

/// Handlers that are to see the end, a few at a time. All at once they would wake each other out of the
/// wait for the interpreter, every 5 ms each, and be home much later.
pub(crate) struct WakeBatches {
    left: Vec<Weak<Stream>>,
    /// The next are called when no more than so many handlers are still there...
    few: usize,
    /// ...or then, for some come home late or never.
    late: Instant,
}

/// So many at a time; the next when half of them are home.
pub(crate) const WAKE_BATCH: usize = 8;
pub(crate) const NEXT_BATCH: Duration = Duration::from_millis(1);

impl WakeBatches {
    pub(super) fn new(streams: Vec<Arc<Stream>>) -> Self {
        // Weak: whoever comes home unasked is not held up.
        let left = streams.iter().map(Arc::downgrade).collect();
        Self { left, few: usize::MAX, late: Instant::now() }
    }

    /// Wakes the next where it is time, and says when it will be for those behind them.
    pub(super) fn make(&mut self, heard_only: bool, now: Instant, there: usize) -> Option<Instant> {
        if !self.left.is_empty() && (self.late <= now || there <= self.few) {
            let mut called = 0;
            while called < WAKE_BATCH {
                let Some(stream) = self.left.pop() else { break };
                called += usize::from(stream.upgrade().is_some_and(|it| it.end_reads(heard_only)));
            }
            self.few = there.saturating_sub(WAKE_BATCH / 2);
            self.late = now + NEXT_BATCH;
        }
        (!self.left.is_empty()).then_some(self.late)
    }
}
