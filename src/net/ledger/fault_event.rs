//! What a fault has done to a connection, as its record keeps it. Must never keep more events than
//! its limit: the first ones are kept, the others counted.

use std::sync::Arc;
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
pub(super) struct FaultEvents(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    events: Vec<FaultEvent>,
    seen: u64,
}

impl FaultEvents {
    pub(super) fn note(&self, event: FaultEvent) {
        let mut kept = self.0.lock();
        kept.seen += 1;
        if kept.events.len() < MOST {
            kept.events.push(event);
        }
    }

    /// The events that are kept, the oldest first, and how many there were.
    pub(super) fn get(&self) -> (Vec<FaultEvent>, u64) {
        let kept = self.0.lock();
        (kept.events.clone(), kept.seen)
    }
}
