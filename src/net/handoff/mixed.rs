//! A sink for servers where workers serve some connections while threads of the caller serve
//! others. Owns the choice for each; must never serve one.

use std::time::Instant;

use super::pool::PoolSink;
use crate::net::base::EventFd;
use crate::net::service::HandedOutBy;
use crate::net::worker::{Accepted, Sink, WorkerPool};

/// The sink of a server that serves some connections by a service and others by handlers.
pub(crate) struct MixedSink {
    threads: PoolSink,
    workers: WorkerPool,
    is_handed_out: HandedOutBy,
}

impl MixedSink {
    pub(crate) fn new(threads: PoolSink, workers: WorkerPool, by: &HandedOutBy) -> Self {
        Self { threads, workers, is_handed_out: HandedOutBy::clone(by) }
    }
}

impl Sink for MixedSink {
    /// As the threads need it. A worker's descriptors are set to non-blocking in `take`.
    fn nonblocking(&self) -> bool {
        self.threads.nonblocking()
    }

    fn take(&mut self, accepted: Accepted) {
        if (self.is_handed_out)(accepted.record.id()) {
            return self.threads.take(accepted);
        }
        // Fails for a descriptor only that is not open.
        let _ = accepted.socket.options().set_nonblocking(true);
        self.workers.take(accepted);
    }

    fn due(&self) -> Option<Instant> {
        self.threads.due()
    }

    fn check(&mut self) {
        self.threads.check();
    }

    fn begin_drain(&mut self) {
        self.threads.begin_drain();
    }

    fn close(mut self, notifier: &EventFd) {
        self.workers.drain();
        self.threads.close(notifier);
    }
}
