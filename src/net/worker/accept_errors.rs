//! The classes of accept's errors. Must never act on one.

use std::time::Duration;

/// Accepts a wake-up, so that a stop is seen even in a flood; and failures in a row before a rest.
pub(crate) const TURN: usize = 64;
/// How long accepting rests after it ran out of descriptors or memory, if no connection ends.
pub(crate) const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What an error of accept4 means, errno by errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The queue is empty.
    Empty,
    /// The one connection was lost; the next may be fine.
    Connection,
    /// The process or the system is out of something; it has to be waited for.
    Exhausted,
    /// The listener is none, and never will be again.
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
