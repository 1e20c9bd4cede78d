//! Queries to the kernel about a socket, for code that does not own the socket. Owns the descriptor
//! number until it is withdrawn; must never use the number after the socket is closed, nor keep the
//! socket open.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;

use socket2::{Domain, Protocol, Socket, Type};

use super::tcp_info::{Algorithm, TcpInfo};
use crate::net::base::Mutex;
use crate::net::sys;

/// The descriptor number of a socket, for queries. The owner withdraws it before it closes the
/// socket.
#[derive(Debug)]
pub(crate) struct Probe(Mutex<RawFd>);

impl Probe {
    /// A probe of a socket.
    pub(crate) fn of(fd: impl AsRawFd) -> Self {
        Self(Mutex::new(fd.as_raw_fd()))
    }

    /// A probe of no socket, whose queries return nothing.
    pub(crate) fn none() -> Self {
        Self(Mutex::new(-1))
    }

    /// The kernel's state of the connection; None if it is not TCP, or after `withdraw`.
    /// `algorithm` as in `TcpInfo::of`.
    pub(crate) fn ask(&self, algorithm: Option<Algorithm>) -> Option<TcpInfo> {
        // Held until the kernel has answered, so that `withdraw`, and with it the close, waits for
        // the query.
        let number = self.0.lock();
        if *number < 0 {
            return None;
        }
        TcpInfo::of(*number, algorithm).ok()
    }

    /// Calls `call` with the number, which stays open meanwhile; None where it was withdrawn.
    /// `call` must not block.
    pub(crate) fn with_number<T>(&self, call: impl FnOnce(RawFd) -> T) -> Option<T> {
        let number = self.0.lock();
        (*number >= 0).then(|| call(*number))
    }

    /// Asks a duplicate of the socket from here on. No effect on a probe of no socket, or after
    /// `withdraw`.
    pub(crate) fn follow(&self, duplicate: impl AsRawFd) {
        let mut number = self.0.lock();
        if *number >= 0 {
            *number = duplicate.as_raw_fd();
        }
    }

    /// Ends all queries. Blocks until a query that is running has ended.
    pub(crate) fn withdraw(&self) {
        *self.0.lock() = -1;
    }

    /// The number of connections that have finished their handshake and wait for this listener to
    /// accept them; 0 if it no longer listens. None if the kernel does not report it.
    pub(crate) fn waiting(&self) -> Option<usize> {
        let number = self.0.lock();
        if *number < 0 {
            return Some(0);
        }
        match sys::tcp_info(*number) {
            Ok((info, _)) if info.state == LISTEN => Some(info.unacked as usize),
            Ok(_) => Some(0),
            Err(_) => unix_waiting(*number).ok(),
        }
    }
}

/// The state of a listener (include/net/tcp_states.h), for which `unacked` is the length of its
/// queue.
const LISTEN: u8 = 10;

/// The queue length of a Unix listener. An error if it is not a Unix socket, or if the kernel lacks
/// this feature.
fn unix_waiting(number: RawFd) -> io::Result<usize> {
    // linux/unix_diag.h; not in the `libc` crate.
    const UDIAG_SHOW_RQLEN: u32 = 0x10;
    const UNIX_DIAG_RQLEN: u16 = 4;
    let answer = ask_unix(number, UDIAG_SHOW_RQLEN)?;
    if answer.state != LISTEN {
        return Ok(0);
    }
    Ok(answer.word(UNIX_DIAG_RQLEN, 0).map_or(0, |waiting| waiting as usize))
}

/// The inode of the file that a Unix socket is bound to, in the file system's own numbers, of which
/// the kernel returns 32 bits. An error if it is not bound to a path, or if the kernel lacks this
/// feature.
pub(super) fn bound_inode(number: RawFd) -> io::Result<u32> {
    // linux/unix_diag.h: struct unix_diag_vfs begins with the inode.
    const UDIAG_SHOW_VFS: u32 = 0x02;
    const UNIX_DIAG_VFS: u16 = 1;
    let answer = ask_unix(number, UDIAG_SHOW_VFS)?;
    answer.word(UNIX_DIAG_VFS, 0).ok_or_else(|| io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

/// The kernel's answer about one Unix socket.
struct UnixAnswer {
    /// The state of the socket, as in `LISTEN`.
    state: u8,
    attributes: Vec<u8>,
}

impl UnixAnswer {
    /// A 32-bit word of an attribute, at a distance of `offset` bytes from its beginning.
    fn word(&self, kind: u16, offset: usize) -> Option<u32> {
        let short = |at: usize| {
            self.attributes.get(at..at + 2).map(|two| u16::from_ne_bytes([two[0], two[1]]))
        };
        let mut at = 0;
        while let (Some(size), Some(found)) = (short(at), short(at + 2)) {
            if found == kind {
                let word = self.attributes.get(at + 4 + offset..at + 8 + offset)?;
                return word.try_into().ok().map(u32::from_ne_bytes);
            }
            // Attributes begin at multiples of four.
            at += usize::from(size).max(4).next_multiple_of(4);
        }
        None
    }
}

/// Asks the kernel about a Unix socket: sock_diag(7), which needs no privilege.
fn ask_unix(number: RawFd, show: u32) -> io::Result<UnixAnswer> {
    // linux/sock_diag.h; not in the `libc` crate.
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    /// Sizes of the netlink header, and of the fixed part of an answer before its attributes.
    const HEADER: usize = 16;
    const MESSAGE: usize = 16;

    let inode = std::fs::metadata(format!("/proc/self/fd/{number}"))?.ino() as u32;
    let any = u32::MAX;
    let mut request = Vec::with_capacity(40);
    request.extend(40_u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence number and sender, which are not used.
    request.extend([0; 8]);
    request.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    for word in [any, inode, show, any, any] {
        request.extend(word.to_ne_bytes());
    }
    let kernel = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::DGRAM.nonblocking(),
        Some(Protocol::from(libc::NETLINK_SOCK_DIAG)),
    )?;
    kernel.send(&request)?;
    // The answer is available when `send` returns.
    let mut answer = [0; 256];
    let length = (&kernel).read(&mut answer)?;
    let answer = &answer[..length];
    let kind = answer.get(4..6).map(|two| u16::from_ne_bytes([two[0], two[1]]));
    match (kind, answer.get(HEADER + 2), answer.get(HEADER + MESSAGE..)) {
        (Some(SOCK_DIAG_BY_FAMILY), Some(&state), Some(attributes)) => {
            Ok(UnixAnswer { state, attributes: attributes.to_vec() })
        }
        _ => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn connections_waiting_on_a_path_are_counted() {
        let path = std::env::temp_dir().join(format!("rsock-probe-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let probe = Probe::of(listener.as_fd());
        assert_eq!(probe.waiting(), Some(0));
        let _clients = [UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap()];
        std::fs::remove_file(&path).unwrap();
        assert_eq!(probe.waiting(), Some(2));
        listener.accept().unwrap();
        assert_eq!(probe.waiting(), Some(1));
        probe.withdraw();
        assert_eq!(probe.waiting(), Some(0));
    }

    #[test]
    fn other_sockets_have_no_waiting_connections() {
        let (one, mut other) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut other, b"unread").unwrap();
        assert_eq!(Probe::of(one.as_fd()).waiting(), Some(0));
        assert_eq!(Probe::none().waiting(), Some(0));
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(Probe::of(datagrams.as_fd()).waiting(), None);
    }
}
