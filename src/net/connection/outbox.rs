//! What waits to be sent on one leg of a connection. Must never be kept when it is empty: an idle leg
//! has no outbox.

use std::collections::VecDeque;

use crate::net::socket::splice_pipe::Pipe;

/// What is waiting to be sent on a leg: never empty.
pub(super) enum Outbox {
    /// Bytes that were copied.
    Ring(VecDeque<u8>),
    /// Bytes in a pipe of the kernel's, on their way from the other leg or from the same one.
    Pipe(Pipe),
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ring(ring) => ring.len(),
            Self::Pipe(pipe) => pipe.held(),
        }
    }
}
