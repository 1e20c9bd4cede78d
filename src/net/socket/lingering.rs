//! The check whether a plain close of a socket could discard sent data. Must never close a socket.

use std::os::fd::AsFd;

use super::socket::Socket;
use crate::net::sys;

/// Bytes that a connection sends at once, before any acknowledgement (RFC 6928). Data can be unsent
/// only if more than this was sent in total.
pub(crate) const FIRST_FLIGHT: u64 = 14_600;

/// The event that ends the lingering of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// The peer was still sending: linger until it has finished.
    Finished,
    /// Some data is unsent: linger until it is acknowledged.
    Acknowledged,
}

/// Whether a plain close of this socket could discard sent data, and if so, until when it must
/// linger. Makes no more system calls than needed.
pub(crate) fn needed(socket: &Socket, sent: u64) -> Option<Until> {
    if sys::unread(socket.as_fd()) > 0 {
        Some(Until::Finished)
    } else if sent > FIRST_FLIGHT && sys::unsent(socket.as_fd()) > 0 {
        Some(Until::Acknowledged)
    } else {
        None
    }
}
