//! The label of a fault: its names, with counts of what it has done. Must never know what it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The names of a fault, with its counters.
#[derive(Debug)]
pub struct Label {
    /// The name of its kind.
    pub name: &'static str,
    /// Its text form, for records and displays.
    pub text: Arc<str>,
    connections: AtomicU64,
    events: AtomicU64,
}

impl Label {
    pub(super) fn new(name: &'static str, text: &str) -> Self {
        let (connections, events) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { name, text: text.into(), connections, events }
    }

    /// How many connections the fault has concerned.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Relaxed)
    }

    /// How often it has done something.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }

    pub(super) fn restart(&self) {
        self.connections.store(0, Relaxed);
        self.events.store(0, Relaxed);
    }

    pub(crate) fn count_connection(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_event(&self) {
        self.events.fetch_add(1, Relaxed);
    }
}
