//! What a fault has done to a connection, as its record keeps it. Must never keep more events than
//! its limit: the first ones are kept, the others counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::net::base::Mutex;

/// How many events a record keeps.
const MOST: usize = 256;

/// The way of traffic that a fault concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Way {
    /// The name in Python's API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// One thing that a fault has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultEvent {
    /// The fault in its text form.
    pub fault: Arc<str>,
    /// What it did: "delayed", "reset", …
    pub action: &'static str,
    /// The way of the traffic that it concerned.
    pub way: Way,
    /// Time since the connection was opened.
    pub after: Duration,
    /// Bytes that had gone this way through the fault before; of datagrams, their number.
    pub offset: u64,
    /// The number of bytes that it concerned; 0 where it concerned none.
    pub size: u64,
}

/// The events of one record.
#[derive(Debug, Default)]
pub(super) struct FaultEvents {
    kept: Mutex<Vec<FaultEvent>>,
    /// How many there were. Beside the lock, so that a display needs none: in a forked child it may
    /// be held by a thread that does not exist there.
    seen: AtomicU64,
}

impl FaultEvents {
    pub(super) fn note(&self, event: FaultEvent) {
        let mut kept = self.kept.lock();
        self.seen.fetch_add(1, Relaxed);
        if kept.len() < MOST {
            kept.push(event);
        }
    }

    /// How many events there were.
    pub(super) fn count(&self) -> u64 {
        self.seen.load(Relaxed)
    }

    /// The events that are kept, the oldest first, and how many there were.
    pub(super) fn get(&self) -> (Vec<FaultEvent>, u64) {
        let kept = self.kept.lock();
        (kept.clone(), self.seen.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_events_are_kept_and_the_others_counted() {
        let events = FaultEvents::default();
        let fault: Arc<str> = "corrupt:0.5".into();
        for offset in 0..300 {
            let fault = Arc::clone(&fault);
            let (action, way, after) = ("corrupted", Way::Up, Duration::ZERO);
            events.note(FaultEvent { fault, action, way, after, offset, size: 1 });
        }
        let (kept, seen) = events.get();
        assert_eq!((kept.len(), seen, events.count()), (MOST, 300, 300));
        assert!(kept.iter().map(|event| event.offset).eq(0..MOST as u64));
    }
}
