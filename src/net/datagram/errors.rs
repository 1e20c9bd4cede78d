//! The classes of errors of a UDP socket. Owns the class of each errno; must never act on one.

/// The meaning of an errno from a receive or a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nothing to receive, or no room to send.
    Blocked,
    /// A signal interrupted the call before it did anything.
    Interrupted,
    /// A datagram sent earlier did not arrive. The socket can still be used.
    Earlier,
    /// This datagram cannot be sent.
    ThisOne,
    /// The system is out of a resource: retry after a pause.
    Exhausted,
    /// The descriptor is not a usable socket, and never will be.
    Fatal,
}

pub(super) fn classify(errno: i32) -> Failure {
    match errno {
        libc::EAGAIN => Failure::Blocked,
        libc::EINTR => Failure::Interrupted,
        // Reported through ICMP for a datagram sent earlier, ip(7).
        libc::ECONNREFUSED
        | libc::ECONNRESET
        | libc::ECONNABORTED
        | libc::EHOSTUNREACH
        | libc::EHOSTDOWN
        | libc::ENETUNREACH
        | libc::ENETDOWN
        | libc::ENONET
        | libc::ENOPROTOOPT
        | libc::EPROTO
        | libc::EOPNOTSUPP
        | libc::ETIMEDOUT => Failure::Earlier,
        // Too large, rejected by a filter, or an address that cannot be sent to.
        libc::EMSGSIZE
        | libc::EPERM
        | libc::EACCES
        | libc::EINVAL
        | libc::EADDRNOTAVAIL
        | libc::EAFNOSUPPORT
        | libc::EDESTADDRREQ
        | libc::EPIPE => Failure::ThisOne,
        libc::EBADF | libc::ENOTSOCK => Failure::Fatal,
        // ENOBUFS, ENOMEM, and errors that a later kernel may add.
        _ => Failure::Exhausted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_of_one_datagram_closes_a_socket() {
        for errno in 1..=133 {
            let fatal = matches!(errno, libc::EBADF | libc::ENOTSOCK);
            assert_eq!(classify(errno) == Failure::Fatal, fatal, "errno {errno}");
        }
        assert_eq!(classify(libc::ECONNREFUSED), Failure::Earlier);
        assert_eq!(classify(libc::EMSGSIZE), Failure::ThisOne);
        assert_eq!(classify(libc::ENOBUFS), Failure::Exhausted);
    }
}
