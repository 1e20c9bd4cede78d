//! The contents of a socket's queues: ioctl(2), tcp(7), the error queue of ip(7). Must never hold
//! state, decide anything, or know what a server is.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Instant;

use crate::net::sys::message::{control_messages, recv, recvmsg};
use crate::net::sys::name::Name;
use crate::net::sys::poll::{PollFd, poll};
use crate::net::sys::socket::{getsockopt, tcp_info};
use crate::net::sys::{check, is_refused};

/// ioctl(SIOCOUTQNSD): bytes written that the kernel has never sent; 0 if the socket has no such
/// queue. Bytes sent at least once are delivered even if the socket is closed. Where ioctl(2) is
/// refused, TCP_INFO has the same number.
pub(crate) fn unsent(fd: BorrowedFd<'_>) -> usize {
    ask(fd, SIOCOUTQNSD)
        .unwrap_or_else(|| tcp_info(fd).map_or(0, |(info, _)| info.notsent_bytes as usize))
}

/// Whether the peer has acknowledged everything that was sent, including a FIN: ioctl(SIOCOUTQ),
/// tcp(7). True if the socket has no such queue. Where ioctl(2) is refused, TCP_INFO knows.
pub(crate) fn is_acknowledged(fd: BorrowedFd<'_>) -> bool {
    match ask(fd, SIOCOUTQ) {
        Some(bytes) => bytes == 0,
        // The first is in segments, and includes a FIN.
        None => tcp_info(fd).map_or(true, |(info, _)| info.unacked == 0 && info.notsent_bytes == 0),
    }
}

/// A request of ioctl(2) that writes one int: the length of a queue.
struct Queue(libc::Ioctl);

/// linux/sockios.h; not in the `libc` crate.
const SIOCOUTQNSD: Queue = Queue(0x894B);
/// TIOCOUTQ by its other name.
const SIOCOUTQ: Queue = Queue(libc::TIOCOUTQ);

/// ioctl(2) for the length of a queue; 0 if the socket has no such queue. None if the call is
/// refused.
fn ask(fd: BorrowedFd<'_>, queue: Queue) -> Option<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the constants above are requests that write one int.
    let done = check(unsafe { libc::ioctl(fd.as_raw_fd(), queue.0, &raw mut bytes) });
    unless_refused(done.map(|_| usize::try_from(bytes).unwrap_or(0)))
}

fn unless_refused(length: io::Result<usize>) -> Option<usize> {
    match length {
        Ok(length) => Some(length),
        Err(error) if is_refused(&error) => None,
        Err(_) => Some(0),
    }
}

/// getsockopt(SO_MEMINFO): bytes of the receive buffer used by unread data, including the kernel's
/// overhead. Where the kernel does not report it, the size of the buffer, SO_RCVBUF.
pub(crate) fn queued(fd: BorrowedFd<'_>) -> usize {
    let mut info = [0; 9 * size_of::<u32>()];
    // SK_MEMINFO_RMEM_ALLOC comes first.
    match getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut info) {
        Ok(length) if length >= 4 => {
            u32::from_ne_bytes([info[0], info[1], info[2], info[3]]) as usize
        }
        _ => socket2::SockRef::from(&fd).recv_buffer_size().unwrap_or(usize::MAX),
    }
}

/// recvmsg(2) with MSG_ERRQUEUE: the next entry of a UDP socket's error queue, ip(7). Returns the
/// destination of the datagram that failed, and the errno; None if the queue is empty.
pub(crate) fn take_refusal(fd: BorrowedFd<'_>) -> Option<(SocketAddr, i32)> {
    let mut control = [0; 512];
    let mut to = Name::room();
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    loop {
        // The datagram itself is not needed.
        let (_, length, _) = recvmsg(fd, &mut [], &mut control, &mut to, flags).ok()?;
        let refusal = control_messages(&control[..length]).find(|&(level, kind, _)| {
            matches!(
                (level, kind),
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
            )
        });
        // struct sock_extended_err begins with the errno.
        let errno = refusal.and_then(|(.., data)| data.get(..4)?.try_into().ok());
        if let (Some(errno), Some(address)) = (errno.map(i32::from_ne_bytes), to.address()) {
            return Some((address, errno));
        }
    }
}

/// ioctl(FIONREAD): bytes received that have not been read. Where ioctl(2) is refused, a look at
/// the data tells: `usize::MAX` then means `LOOK` bytes or more.
pub(crate) fn unread(fd: BorrowedFd<'_>) -> usize {
    let length = rustix::io::ioctl_fionread(fd).map_err(io::Error::from);
    unless_refused(length.map(|length| length as usize)).unwrap_or_else(|| {
        let mut input = [PollFd::readable(fd)];
        let found = poll(&mut input, Some(Instant::now()));
        // A look at a socket with an error would take the error away.
        if found.is_err() || !input[0].ready() || input[0].failed() {
            return 0;
        }
        let mut data = [0; LOOK];
        match recv(fd, &mut data, libc::MSG_PEEK | libc::MSG_DONTWAIT) {
            Ok(LOOK) => usize::MAX,
            Ok(count) => count,
            Err(_) => 0,
        }
    })
}

/// The most bytes that are looked at to find out how many there are.
const LOOK: usize = 64 * 1024;
