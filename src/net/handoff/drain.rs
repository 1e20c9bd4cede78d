//! The wait for a pool's handlers at a stop. Owns the batches in which blocked handlers are woken,
//! and the reset of what is left at the deadline; must never close a connection before the
//! deadline.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::pool::ThreadPool;
use crate::net::base::{EventFd, poll_or_sleep};
use crate::net::control::FIRST_BYTE_GRACE;
use crate::net::stream::Stream;

/// How long `stop` waits, after resetting their connections, for handlers to return.
pub(super) const FORCED_GRACE: Duration = Duration::from_millis(30);
/// The number of handlers woken at once. The next batch follows when half of them have returned...
const WAKE_BATCH: usize = 8;
/// ...or after this time, because some handlers return late or never.
const NEXT_BATCH: Duration = Duration::from_millis(1);

/// Wakes blocked handlers in batches of eight. Waking all at once makes them contend for the GIL
/// (one 5 ms switch interval each) and takes longer overall.
struct WakeBatches {
    // Weak, so that a connection closes as soon as its handler returns.
    left: Vec<Weak<Stream>>,
    /// The next batch is due when no more than this number of jobs is left...
    next_at_count: usize,
    /// ...or at this time.
    next_at: Instant,
}

impl WakeBatches {
    fn new(streams: Vec<Arc<Stream>>) -> Self {
        let left = streams.iter().map(Arc::downgrade).collect();
        Self { left, next_at_count: usize::MAX, next_at: Instant::now() }
    }

    /// Wakes the next batch if it is due. Returns when the one after it is due.
    fn wake(&mut self, received_only: bool, now: Instant, jobs: usize) -> Option<Instant> {
        if !self.left.is_empty() && (self.next_at <= now || jobs <= self.next_at_count) {
            let mut woken = 0;
            while woken < WAKE_BATCH {
                let Some(stream) = self.left.pop() else { break };
                woken +=
                    usize::from(stream.upgrade().is_some_and(|it| it.end_reads(received_only)));
            }
            self.next_at_count = jobs.saturating_sub(WAKE_BATCH / 2);
            self.next_at = now + NEXT_BATCH;
        }
        (!self.left.is_empty()).then_some(self.next_at)
    }
}

impl ThreadPool {
    /// Waits for the handlers until the deadline. The accept thread ends with this call.
    pub(crate) fn drain(&self, notifier: &EventFd) {
        let shutdown = &self.context.shutdown;
        let poll = |until| poll_or_sleep(&mut [notifier.polled()], Some(until));
        let grace = Instant::now() + FIRST_BYTE_GRACE;
        let mut graceful = true;
        // Threads wait for the connections whose stages are about to be ready.
        let mut dismissed = false;
        let streams = if shutdown.is_hard() { Vec::new() } else { self.handed_out.streams() };
        let mut batches = WakeBatches::new(streams);
        loop {
            notifier.clear();
            let (now, deadline) = (Instant::now(), shutdown.deadline());
            if !dismissed && (!self.handed_out.has_openings() || grace <= now || deadline <= now) {
                dismissed = true;
                self.dismiss();
            }
            if self.is_finished() || deadline <= now {
                break;
            }
            if graceful && grace <= now {
                graceful = false;
                for stream in self.handed_out.streams() {
                    // No handler has it, and its proxy has had the time of a first byte.
                    if stream.record().is_some_and(|record| record.awaits_proxy()) {
                        stream.close_if_idle();
                    }
                }
                batches = WakeBatches::new(self.handed_out.streams());
            }
            let more = batches.wake(graceful, now, self.handed_out.len());
            self.handed_out.end_old(self.context.limits.lifetime);
            let until = if graceful { deadline.min(grace) } else { deadline };
            let until = self.handed_out.end_due().map_or(until, |due| until.min(due));
            let _ = poll(more.map_or(until, |more| until.min(more)));
        }
        // A handler that returns from here on closes its connection at once.
        self.linger.end(&self.context);
        self.handed_out.streams().iter().for_each(|stream| stream.force());
        self.drop_queue();
        let late = Instant::now() + FORCED_GRACE;
        while !self.is_finished() && Instant::now() < late {
            let _ = poll(late);
            notifier.clear();
        }
        shutdown.count_abandoned(self.unfinished() as u64);
    }
}
