//! What waits to be sent on one leg of a connection. Must never be kept when it is empty: an idle
//! leg has no outbox.

use std::collections::VecDeque;

use crate::net::socket::Pipe;

/// What is waiting to be sent on a leg: never empty.
pub(super) enum Outbox {
    /// Bytes that were copied.
    Ring(VecDeque<u8>),
    /// Bytes in a pipe of the kernel's, on their way from the other leg or from the same one.
    Pipe(Pipe),
    /// Of a leg with stages: bytes that the chain has yet to take, and how many it holds.
    Staged { ring: VecDeque<u8>, held: usize },
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ring(ring) => ring.len(),
            Self::Pipe(pipe) => pipe.held(),
            Self::Staged { ring, held } => ring.len() + held,
        }
    }

    /// The bytes that were copied.
    pub(super) fn ring_mut(&mut self) -> Option<&mut VecDeque<u8>> {
        match self {
            Self::Ring(ring) | Self::Staged { ring, .. } => Some(ring),
            Self::Pipe(_) => None,
        }
    }
}
