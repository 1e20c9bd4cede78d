//! The classes of accept's errors, with how long accepting pauses after them. Must never act on one.

use std::time::{Duration, Instant};

/// Connections taken at each wake-up, so that a stop is noticed even in a flood; and failures in a row before
/// accepting pauses.
pub(crate) const TURN: usize = 64;
/// How long accepting pauses after it ran out of descriptors or memory, if no connection ends.
pub(crate) const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// When accepting that pauses now goes on.
pub(crate) fn backoff() -> Instant {
    Instant::now() + ACCEPT_BACKOFF
}

/// Counts errors in a row that each concern one connection.
#[derive(Default)]
pub(crate) struct Failures(usize);

impl Failures {
    /// Counts one; true where there were so many that the error may concern every connection.
    pub(crate) fn one_more(&mut self) -> bool {
        self.0 += 1;
        self.0 >= TURN
    }
}

/// What an error of accept4 means, errno by errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The queue is empty.
    Empty,
    /// The one connection was lost; the next may be fine.
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
        libc::EBADF | libc::ENOTSOCK => Failure::Fatal,
        // EMFILE, ENFILE, ENOBUFS, ENOMEM, and whatever else a kernel may invent: back off.
        _ => Failure::Exhausted,
    }
}
