//! The resets of one server, by which it begins again without a stop. Owns the numbers of its
//! connections; must never end a connection.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

/// What a server counts from its last reset on.
#[derive(Default)]
pub(crate) struct Resets {
    count: AtomicU64,
    last_id: AtomicU64,
}

impl Resets {
    /// The number of a new connection, from 1.
    pub(crate) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Relaxed) + 1
    }

    /// The next connection has the number 1 again.
    pub(crate) fn restart_ids(&self) {
        self.last_id.store(0, Relaxed);
    }

    /// Asks every thread to end the connections that it has now. The threads are told by a change
    /// of the faults.
    pub(crate) fn begin(&self) {
        self.count.fetch_add(1, SeqCst);
    }
}

/// How many resets one thread has seen.
#[derive(Default)]
pub(crate) struct SeenResets(AtomicU64);

impl SeenResets {
    /// Those so far, for a thread that begins.
    pub(crate) fn new(resets: &Resets) -> Self {
        Self(AtomicU64::new(resets.count.load(SeqCst)))
    }

    /// Whether there was one since the last call.
    pub(crate) fn sees_another(&self, resets: &Resets) -> bool {
        let count = resets.count.load(SeqCst);
        self.0.swap(count, SeqCst) != count
    }
}
