//! The classes of errors of a UDP socket. Must never act on one.

/// What an error of a receive or a send means, errno by errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is nothing to be received, or no room to send.
    Blocked,
    /// A signal came between; nothing has happened.
    Interrupted,
    /// Something that was sent before did not arrive. The socket is as good as before.
    Earlier,
    /// This one datagram cannot be sent.
    ThisOne,
    /// The system is out of something; it has to be waited for.
    Exhausted,
    /// The socket is none, and never will be again.
    Fatal,
}

pub(super) fn classify(errno: i32) -> Failure {
    match errno {
        libc::EAGAIN => Failure::Blocked,
        libc::EINTR => Failure::Interrupted,
        // What ICMP says of a datagram sent before, ip(7).
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
        // Too large, forbidden by a filter, an address that none can be sent to.
        libc::EMSGSIZE
        | libc::EPERM
        | libc::EACCES
        | libc::EINVAL
        | libc::EADDRNOTAVAIL
        | libc::EAFNOSUPPORT
        | libc::EDESTADDRREQ
        | libc::EPIPE => Failure::ThisOne,
        libc::EBADF | libc::ENOTSOCK => Failure::Fatal,
        // ENOBUFS, ENOMEM, and whatever else a kernel may invent.
        _ => Failure::Exhausted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_of_one_datagram_ends_a_port() {
        for errno in 1..=133 {
            let fatal = matches!(errno, libc::EBADF | libc::ENOTSOCK);
            assert_eq!(classify(errno) == Failure::Fatal, fatal, "errno {errno}");
        }
        assert_eq!(classify(libc::ECONNREFUSED), Failure::Earlier);
        assert_eq!(classify(libc::EMSGSIZE), Failure::ThisOne);
        assert_eq!(classify(libc::ENOBUFS), Failure::Exhausted);
    }
}
