//! Counters of messages, bytes, datagrams. Must never take a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::refusal::Refusal;

/// Counts of datagrams that belong to no connection. Without a lock, because any sender can cause
/// many.
#[derive(Default)]
pub(crate) struct DatagramCounters {
    pub(super) suspects: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) truncated: AtomicU64,
}

impl DatagramCounters {
    pub(super) fn clear(&self) {
        for counter in [&self.suspects, &self.dropped, &self.truncated] {
            counter.store(0, Relaxed);
        }
    }
}

/// Counts of what was refused, by reason. Without a lock, because any peer can cause many.
#[derive(Default)]
pub(crate) struct Refusals([AtomicU64; Refusal::NAMES.len()]);

impl Refusals {
    pub(super) fn count(&self, reason: Refusal) {
        self.0[reason as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn clear(&self) {
        self.0.iter().for_each(|count| count.store(0, Relaxed));
    }

    pub(super) fn get(&self) -> [u64; Refusal::NAMES.len()] {
        self.0.each_ref().map(|count| count.load(Relaxed))
    }
}

/// A counter with one writer: a plain load and store, no locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds to a counter with several writers.
    fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Traffic in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Receives or sends that carried data.
    pub messages: u64,
    /// Bytes of payload.
    pub bytes: u64,
}

impl Flow {
    pub(crate) fn add(&mut self, other: Flow) {
        self.messages += other.messages;
        self.bytes += other.bytes;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    messages: Counter,
    pub(super) bytes: Counter,
}

impl Counters {
    pub(super) fn count(&self, bytes: usize) {
        self.messages.add(1);
        self.bytes.add(bytes as u64);
    }

    pub(super) fn count_shared(&self, bytes: usize) {
        self.messages.add_shared(1);
        self.bytes.add_shared(bytes as u64);
    }

    pub(super) fn get(&self) -> Flow {
        Flow { messages: self.messages.get(), bytes: self.bytes.get() }
    }
}
