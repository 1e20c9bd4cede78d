//! The contents of a socket's queues: ioctl(2), tcp(7), the error queue of ip(7). Must never hold
//! state, decide anything, or know what a server is.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::net::sys::message::{control_messages, recvmsg};
use crate::net::sys::name::Name;
use crate::net::sys::socket::getsockopt;

/// ioctl(SIOCOUTQNSD): bytes written that the kernel has never sent; 0 if the socket has no such
/// queue. Bytes sent at least once are delivered even if the socket is closed.
pub(crate) fn unsent(fd: BorrowedFd<'_>) -> usize {
    /// linux/sockios.h; not in the `libc` crate.
    const SIOCOUTQNSD: libc::Ioctl = 0x894B;
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQNSD writes one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCOUTQNSD, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// ioctl(SIOCOUTQ), tcp(7): bytes sent that the peer has not acknowledged, including one for a FIN;
/// 0 if the socket has no such queue.
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ (TIOCOUTQ by its other name) writes one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// getsockopt(SO_MEMINFO): bytes of the receive buffer used by unread data, including the kernel's
/// overhead.
pub(crate) fn queued(fd: BorrowedFd<'_>) -> usize {
    let mut info = [0; 9 * size_of::<u32>()];
    // SK_MEMINFO_RMEM_ALLOC comes first.
    match getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut info) {
        Ok(length) if length >= 4 => {
            u32::from_ne_bytes([info[0], info[1], info[2], info[3]]) as usize
        }
        // Unknown: assume the maximum.
        _ => usize::MAX,
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

/// ioctl(FIONREAD): bytes received that have not been read.
pub(crate) fn unread(fd: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}
