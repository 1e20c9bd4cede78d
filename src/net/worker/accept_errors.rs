//! The classes of errors of accept4(2). Owns how long the accept loop pauses after each; must never
//! act on one.

use std::io;
use std::time::{Duration, Instant};

/// The most connections accepted at each wake-up, so that a stop is noticed even in a flood. Also
/// the number of failures in a row after which the loop pauses.
pub(crate) const TURN: usize = 64;
/// How long the loop pauses after running out of descriptors or memory, if no connection ends.
pub(crate) const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// When a pause that starts now ends.
pub(crate) fn backoff() -> Instant {
    Instant::now() + ACCEPT_BACKOFF
}

/// The error of a listener that was shut down by another of its owners.
pub(crate) fn shut_down() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

/// Counts consecutive errors that each concern one connection.
#[derive(Default)]
pub(crate) struct Failures(usize);

impl Failures {
    /// Counts one error. True once there are `TURN` in a row: the cause may then affect every
    /// connection.
    pub(crate) fn one_more(&mut self) -> bool {
        self.0 += 1;
        self.0 >= TURN
    }
}

/// The meaning of an errno from accept4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The queue is empty.
    Empty,
    /// One connection was lost; the next may succeed.
    Connection,
    /// The process or the system is out of descriptors or memory.
    Exhausted,
    /// The descriptor is not a listening socket any more.
    Fatal,
}

pub(crate) fn classify(errno: i32) -> Failure {
    match errno {
        libc::EAGAIN => Failure::Empty,
        libc::ECONNABORTED
        | libc::EINTR
        | libc::EPROTO
        | libc::ENETDOWN
        | libc::ENOPROTOOPT
        | libc::EHOSTDOWN
        | libc::ENONET
        | libc::EHOSTUNREACH
        | libc::EOPNOTSUPP
        | libc::ENETUNREACH
        | libc::EPERM
        | libc::ETIMEDOUT
        | libc::ECONNRESET => Failure::Connection,
        // EINVAL: it was shut down, perhaps by another process that shares it.
        libc::EBADF | libc::ENOTSOCK | libc::EINVAL => Failure::Fatal,
        // EMFILE, ENFILE, ENOBUFS, ENOMEM, and errors that a later kernel may add: back off.
        _ => Failure::Exhausted,
    }
}
