//! What waits in a socket's queues: ioctl(2), tcp(7), the error queue of ip(7).
//! Must never hold state, decide anything, or know what a server is.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::net::sys::message::{control_messages, recvmsg};
use crate::net::sys::name::Name;
use crate::net::sys::socket::getsockopt;

/// ioctl(SIOCOUTQNSD): bytes written that the kernel has not sent even once; 0 where it has no such
/// queue. What was sent is in the peer's hands, or will be: a close does not take it back.
pub(crate) fn unsent(fd: BorrowedFd<'_>) -> usize {
    /// linux/sockios.h; not in the `libc` crate.
    const SIOCOUTQNSD: libc::Ioctl = 0x894B;
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQNSD writes one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCOUTQNSD, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// ioctl(SIOCOUTQ), tcp(7): bytes sent that the peer has not acknowledged, its FIN's place included;
/// 0 where the socket has no such queue.
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (TIOCOUTQ by its other name) writes one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Bytes of the receive buffer that are taken by what nobody has read, the kernel's own included:
/// getsockopt(SO_MEMINFO).
pub(crate) fn queued(fd: BorrowedFd<'_>) -> usize {
    let mut info = [0; 9 * size_of::<u32>()];
    // SK_MEMINFO_RMEM_ALLOC comes first.
    match getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut info) {
        Ok(length) if length >= 4 => {
            u32::from_ne_bytes([info[0], info[1], info[2], info[3]]) as usize
        }
        // Not known: as much as there could be.
        _ => usize::MAX,
    }
}

/// The next entry of a UDP socket's error queue, ip(7): whom the datagram was sent to that came to nothing,
/// and why; None where the queue is empty. recvmsg(2) with MSG_ERRQUEUE.
pub(crate) fn take_refusal(fd: BorrowedFd<'_>) -> Option<(SocketAddr, i32)> {
    let mut control = [0; 512];
    let mut to = Name::room();
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    loop {
        // Of the datagram itself nothing is wanted.
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

/// ioctl(FIONREAD): bytes received that nobody has read.
pub(crate) fn unread(fd: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}
