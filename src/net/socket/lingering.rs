//! Whether a plain close of a socket could destroy what was sent on it. Must never close one.

use std::os::fd::AsFd;

use super::socket::Socket;
use crate::net::sys;

/// What a connection has sent in all when there can be something unsent: the first flight goes at
/// once, RFC 6928.
pub(crate) const FIRST_FLIGHT: u64 = 14_600;

/// Why a connection lingers, and so until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// The peer was sending: until it has finished.
    Finished,
    /// Not all is sent yet: until it has arrived.
    Acknowledged,
}

/// Whether a plain close of this socket might take back what was sent, and until when it has to linger
/// therefore. Asks the kernel for no more than it must.
pub(crate) fn needed(socket: &Socket, sent: u64) -> Option<Until> {
    if sys::unread(socket.as_fd()) > 0 {
        Some(Until::Finished)
    } else if sent > FIRST_FLIGHT && sys::unsent(socket.as_fd()) > 0 {
        Some(Until::Acknowledged)
    } else {
        None
    }
}
