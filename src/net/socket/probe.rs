//! What the kernel tells of a socket to those who do not own it: to a record what TCP knows of it, and
//! to whoever asks how many wait for a listener. Must never use a number that its owner has closed, nor keep it open.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;

use socket2::{Domain, Protocol, Socket, Type};

use super::tcp_info::{Algorithm, TcpInfo};
use crate::net::base::Mutex;
use crate::net::sys;

/// The number of a socket that others may ask, until its owner withdraws it, which must be before it is
/// closed.
#[derive(Debug)]
pub(crate) struct Probe(Mutex<RawFd>);

impl Probe {
    /// Of a socket.
    pub(crate) fn of(fd: impl AsRawFd) -> Self {
        Self(Mutex::new(fd.as_raw_fd()))
    }

    /// Of none.
    pub(crate) fn none() -> Self {
        Self(Mutex::new(-1))
    }

    /// What the kernel knows of it now; None where it is none of TCP's, or was withdrawn. `algorithm`
    /// as in `TcpInfo::of`.
    pub(crate) fn ask(&self, algorithm: Option<Algorithm>) -> Option<TcpInfo> {
        // Held until the kernel has answered: who closes the socket waits for it in `withdraw`.
        let number = self.0.lock();
        if *number < 0 {
            return None;
        }
        TcpInfo::of(*number, algorithm).ok()
    }

    /// Calls `call` with the number, which stays open meanwhile; None where it was withdrawn. `call` must not
    /// block.
    pub(crate) fn with_number<T>(&self, call: impl FnOnce(RawFd) -> T) -> Option<T> {
        let number = self.0.lock();
        (*number >= 0).then(|| call(*number))
    }

    /// From here on nobody asks it any more.
    pub(crate) fn withdraw(&self) {
        *self.0.lock() = -1;
    }

    /// Of a listener: connections that have finished their handshake and wait to be accepted. 0 where
    /// it listens no more.
    pub(crate) fn waiting(&self) -> usize {
        let number = self.0.lock();
        if *number < 0 {
            return 0;
        }
        match sys::tcp_info(*number) {
            Ok((info, _)) if info.state == LISTEN => info.unacked as usize,
            Ok(_) => 0,
            Err(_) => unix_waiting(*number).unwrap_or(0),
        }
    }
}

/// The state of a listener (include/net/tcp_states.h), in which `unacked` is the length of its queue.
const LISTEN: u8 = 10;

/// How many wait for a listener on a Unix path: sock_diag(7), which anybody may ask. An error where it is
/// no such thing, or where the kernel was built without.
fn unix_waiting(number: RawFd) -> io::Result<usize> {
    // linux/sock_diag.h, linux/unix_diag.h; not in the `libc` crate.
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const UDIAG_SHOW_RQLEN: u32 = 0x10;
    const UNIX_DIAG_RQLEN: u16 = 4;
    /// Of the header, and of what comes before the attributes of an answer.
    const HEADER: usize = 16;
    const MESSAGE: usize = 16;

    let inode = std::fs::metadata(format!("/proc/self/fd/{number}"))?.ino() as u32;
    let any = u32::MAX;
    let mut request = Vec::with_capacity(40);
    request.extend(40_u32.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence and sender, of which nothing is made.
    request.extend([0; 8]);
    request.extend([libc::AF_UNIX as u8, 0, 0, 0]);
    for word in [any, inode, UDIAG_SHOW_RQLEN, any, any] {
        request.extend(word.to_ne_bytes());
    }
    let kernel = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::DGRAM.nonblocking(),
        Some(Protocol::from(libc::NETLINK_SOCK_DIAG)),
    )?;
    kernel.send(&request)?;
    // The answer is there when `send` returns.
    let mut answer = [0; 256];
    let length = (&kernel).read(&mut answer)?;
    let answer = &answer[..length];
    let short = |at: usize| answer.get(at..at + 2).map(|two| u16::from_ne_bytes([two[0], two[1]]));
    if short(4) != Some(SOCK_DIAG_BY_FAMILY) {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    if answer.get(HEADER + 2) != Some(&LISTEN) {
        return Ok(0);
    }
    let mut at = HEADER + MESSAGE;
    while let (Some(size), Some(kind)) = (short(at), short(at + 2)) {
        if kind == UNIX_DIAG_RQLEN {
            let waiting = answer.get(at + 4..at + 8).and_then(|four| four.try_into().ok());
            return Ok(waiting.map_or(0, |four| u32::from_ne_bytes(four) as usize));
        }
        // Attributes begin at multiples of four.
        at += usize::from(size).max(4).next_multiple_of(4);
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn who_waits_for_a_path_is_counted() {
        let path = std::env::temp_dir().join(format!("rsock-probe-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let probe = Probe::of(listener.as_fd());
        assert_eq!(probe.waiting(), 0);
        let _clients = [UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap()];
        std::fs::remove_file(&path).unwrap();
        assert_eq!(probe.waiting(), 2);
        listener.accept().unwrap();
        assert_eq!(probe.waiting(), 1);
        probe.withdraw();
        assert_eq!(probe.waiting(), 0);
    }

    #[test]
    fn nobody_waits_for_what_is_no_listener() {
        let (one, mut other) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut other, b"unread").unwrap();
        assert_eq!(Probe::of(one.as_fd()).waiting(), 0);
        assert_eq!(Probe::none().waiting(), 0);
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(Probe::of(datagrams.as_fd()).waiting(), 0);
    }
}
