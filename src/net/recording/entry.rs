//! What a recorder is told: where to record, then each event of a connection. Must never know the
//! queue, nor the file.

use std::path::PathBuf;
use std::time::Duration;

use super::recording::Direction;
use super::redaction::Redaction;
use crate::net::address::Address;

/// What an entry of the queue costs besides its bytes.
const ENTRY: usize = 64;

/// Where to record, and what not.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file. One that exists is replaced if it is a recording.
    pub path: PathBuf,
    /// What is redacted.
    pub redaction: Redaction,
}

/// What the thread is given, each at a time since the start.
pub(super) enum Entry {
    Open { number: u64, at: Duration, client: Address, local: Address },
    Bytes { number: u64, at: Duration, direction: Direction, bytes: Vec<u8> },
    End { number: u64, at: Duration, direction: Direction },
    Reset { number: u64, at: Duration, direction: Direction },
    Closed { number: u64 },
}

impl Entry {
    /// Bytes that it counts for in the queue.
    pub(super) fn cost(&self) -> usize {
        ENTRY + if let Self::Bytes { bytes, .. } = self { bytes.len() } else { 0 }
    }
}

/// The place of a direction in a pair.
pub(super) fn place(direction: Direction) -> usize {
    match direction {
        Direction::Up => 0,
        Direction::Down => 1,
    }
}
