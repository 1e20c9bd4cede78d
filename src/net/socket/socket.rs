//! A socket whose close ends its connection, however it is dropped. Owns one descriptor; must
//! never block in a close, nor leave a peer connected because a forked child holds a copy.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::thread;
use std::time::Duration;

use socket2::{Protocol, SockRef, Socket as Raw, Type};

use super::options::SocketOptions;
use crate::net::address::{Address, Endpoint, Transport, canonical};
use crate::net::base::fork;
use crate::net::sys;

/// A socket that is connected or connecting.
#[derive(Debug)]
pub(crate) struct Socket(Option<OwnedFd>);

/// Whether SO_LINGER makes a close of the socket a reset: a time of zero, socket(7).
pub(crate) fn close_resets(socket: &impl AsFd) -> bool {
    matches!(SockRef::from(socket).linger(), Ok(Some(Duration::ZERO)))
}

/// Whether input of a stream was not read, which makes a close of TCP a reset (RFC 2525, 2.17).
fn has_unread_stream(socket: &SockRef<'_>) -> bool {
    socket.r#type().is_ok_and(|kind| kind == Type::STREAM) && sys::unread(socket.as_fd()) > 0
}

impl Socket {
    pub(crate) fn new(fd: impl Into<OwnedFd>) -> Self {
        Self(Some(fd.into()))
    }

    /// Closes this copy of the descriptor only, as that of an ordinary socket: another process, or
    /// the owner of a duplicate, goes on using the connection.
    pub(crate) fn close_copy(mut self) {
        self.0 = None;
    }

    /// Opens a socket for a family, close-on-exec and blocking: socket(2).
    pub(crate) fn open(transport: Transport, domain: socket2::Domain) -> io::Result<Self> {
        let (kind, protocol) = match transport {
            Transport::Tcp => (Type::STREAM, Some(Protocol::TCP)),
            Transport::Udp => (Type::DGRAM, Some(Protocol::UDP)),
            Transport::Unix => (Type::STREAM, None),
            Transport::UnixDatagram => (Type::DGRAM, None),
        };
        Ok(Self::new(Raw::new(domain, kind, protocol)?))
    }

    /// Opens a socket for connecting to a forwarder's target: non-blocking, with the server's
    /// options.
    pub(crate) fn outward(target: &Endpoint, options: &SocketOptions) -> io::Result<Self> {
        let socket = Self::open(target.transport, target.address.domain())?;
        socket.options().set_nonblocking(true)?;
        options.apply(&socket, target.transport)?;
        Ok(socket)
    }

    /// socketpair(2) of Unix streams, close-on-exec: a non-blocking end and a blocking one. Each
    /// has room for about `size` bytes on their way to the other.
    pub(crate) fn pair(size: usize) -> io::Result<(Self, Self)> {
        let (ours, theirs) = Raw::pair(socket2::Domain::UNIX, Type::STREAM, None)?;
        ours.set_nonblocking(true)?;
        for end in [&ours, &theirs] {
            // What is sent counts against the sender's buffer; the kernel doubles the size. If it
            // refuses, the system's default holds.
            let _ = end.set_send_buffer_size(size / 2);
        }
        Ok((Self::new(ours), Self::new(theirs)))
    }

    pub(crate) fn options(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    /// Whether a connect to `target` has connected the socket to itself. Where no socket listens on
    /// a port of the ephemeral range, the system may choose that very port as the local one.
    pub(crate) fn is_connected_to_itself(&self, target: &Address) -> bool {
        let Some(target) = target.as_ip() else { return false };
        let local = self.options().local_addr().ok().and_then(|local| local.as_socket());
        local.map(canonical).is_some_and(|local| {
            // A connect to the unspecified address reaches the loopback.
            let is_there = local.ip() == target.ip()
                || target.ip().is_unspecified() && local.ip().is_loopback();
            local.port() == target.port() && is_there
        })
    }

    /// shutdown(2).
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.options().shutdown(how)
    }

    /// Drops the socket so that it sends RST instead of FIN and discards unsent data.
    pub(crate) fn abort(self) {
        let _ = self.options().set_linger(Some(Duration::ZERO));
        if fork::has_forked() {
            // A child's copy would keep the connection open; disconnect ends it despite any copies.
            let _ = sys::disconnect(self.as_fd());
        }
        self.close();
    }

    /// close(2), which waits for the peer as long as SO_LINGER says. A drop never waits.
    pub(crate) fn close(mut self) {
        self.close_number();
    }

    /// Calls `close`, on a thread of its own if it waits. The option stays, for duplicates.
    pub(crate) fn close_apart(self, close: fn(Self)) {
        if self.linger().is_none_or(|time| time.is_zero()) {
            return close(self);
        }
        let spawn =
            || thread::Builder::new().name("rsock-close".to_owned()).spawn(move || close(self));
        // Without a thread (EAGAIN) the closure, and with it the socket, is dropped.
        let _ = sys::with_signals_blocked(spawn);
    }

    fn close_number(&mut self) {
        if let Some(fd) = self.0.take() {
            if fork::has_forked() {
                let socket = SockRef::from(&fd);
                // As close(2) does where there is no other copy. A FIN ahead of the reset
                // would be an orderly end.
                let resets = close_resets(&fd) || has_unread_stream(&socket);
                if !resets || sys::disconnect(fd.as_fd()).is_err() {
                    // ENOTCONN if there is no connection to end.
                    let _ = socket.shutdown(Shutdown::Both);
                }
            }
        }
    }

    /// SO_LINGER, socket(7): how long close(2) waits for the peer; zero makes it a reset. None if
    /// it is off, or the socket has no such option.
    pub(crate) fn linger(&self) -> Option<Duration> {
        self.options().linger().ok().flatten()
    }

    /// dup3(2): makes the number of `other` refer to this socket. Closes this socket's own number
    /// without a shutdown, because the connection continues.
    pub(crate) fn replace(mut self, other: &Self) -> io::Result<()> {
        let own = self.0.take().expect("only into_number and drop empty it, and both consume");
        sys::replace(own.as_fd(), other.as_fd())
    }

    /// Makes a close return without waiting for unsent data, even if the owner has set SO_LINGER.
    /// The kernel still delivers that data.
    pub(crate) fn never_wait(&self) {
        if self.linger().is_some_and(|time| !time.is_zero()) {
            let _ = self.options().set_linger(None);
        }
    }

    /// Ends the connection with RST, even while other code holds its number or a duplicate of it.
    pub(crate) fn reset(&self) {
        let _ = self.options().set_linger(Some(Duration::ZERO));
        // Wakes waiting threads. The FIN that this alone could cause is not sent before the reset.
        let _ = self.shutdown(Shutdown::Read);
        if sys::disconnect(self.as_fd()).is_err() {
            let _ = self.shutdown(Shutdown::Both);
        }
    }

    /// Releases the descriptor number without sending anything.
    pub(crate) fn into_number(mut self) -> RawFd {
        self.0.take().map_or(-1, IntoRawFd::into_raw_fd)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect("only into_number and drop empty it, and both consume").as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.0.is_some() {
            // A socket inherits SO_LINGER from its listener, and any owner of a duplicate can set
            // it.
            self.never_wait();
            self.close_number();
        }
    }
}
