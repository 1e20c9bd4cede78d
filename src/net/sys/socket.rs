//! Calls on one socket: accept4(2), connect(2), getsockopt(2), setsockopt(2), getsockname(2), dup3(2), close(2).
//! Must never hold state, decide anything, or know what a server is.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use socket2::{SockAddr, SockAddrStorage};

use crate::net::sys::check;

/// accept4(2): one connection off the queue, close-on-exec, with its peer's address as the kernel gives it.
///
/// The address comes from the call itself: `getpeername` fails on a connection that was reset
/// while it waited.
pub(crate) fn accept(
    listener: BorrowedFd<'_>,
    nonblocking: bool,
) -> io::Result<(OwnedFd, SockAddr)> {
    let mut flags = libc::SOCK_CLOEXEC;
    if nonblocking {
        flags |= libc::SOCK_NONBLOCK;
    }
    let accept4 = |storage: *mut SockAddrStorage, length: *mut libc::socklen_t| {
        // SAFETY: both pointers are valid for the call, and `length` holds the storage's size.
        check(unsafe { libc::accept4(listener.as_raw_fd(), storage.cast(), length, flags) })
    };
    // SAFETY: accept4 writes an address and its length, of which zero is a valid one.
    let (fd, peer) = unsafe { SockAddr::try_init(accept4) }?;
    // SAFETY: the kernel has just returned this number; it has no other owner.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, peer))
}

/// dup3(2): makes `number` mean what `source` means; what it meant before is closed.
pub(crate) fn replace(source: BorrowedFd<'_>, number: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both numbers are open for the length of the call; `number` keeps its owner.
    check(unsafe { libc::dup3(source.as_raw_fd(), number.as_raw_fd(), libc::O_CLOEXEC) })?;
    Ok(())
}

/// Takes ownership of a number that somebody else opened (a caller's `fd=`).
///
/// Fails with EBADF where the number is not open.
pub(crate) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: the number is open, and by the contract of `fd=` the caller gives it away.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// getsockname(2) of a number that is the caller's: only to look at it. None where it is no socket of a
/// family that we know.
#[must_use]
pub(crate) fn address_of(number: RawFd) -> Option<SockAddr> {
    // SAFETY: F_GETFD only asks.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) }).ok()?;
    // SAFETY: the number is open, and is used for one call; should another thread close it meanwhile,
    // that call fails or tells of another socket.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    socket2::SockRef::from(&fd).local_addr().ok()
}

/// close(2) of a bare number, for the child of a fork, where its owner is never dropped.
/// Async-signal-safe.
pub(crate) fn close_number(number: RawFd) {
    // SAFETY: close takes any number; the table it comes from lists only our own.
    unsafe { libc::close(number) };
}

/// Ends an established TCP connection with RST at once, even while a forked child still holds
/// a copy of the descriptor (connect(2) to AF_UNSPEC).
pub(crate) fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: sockaddr is plain old data for which all zeroes is a valid value (AF_UNSPEC is 0).
    let unspecified: libc::sockaddr = unsafe { mem::zeroed() };
    // SAFETY: the address outlives the call and its size is true.
    check(unsafe {
        libc::connect(
            fd.as_raw_fd(),
            &raw const unspecified,
            size_of::<libc::sockaddr>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// getsockopt(2) of raw bytes; returns how many the kernel wrote.
pub(crate) fn getsockopt(
    fd: impl AsRawFd,
    level: i32,
    name: i32,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the slice is valid for writes of `length` bytes.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    })?;
    Ok(length as usize)
}

/// setsockopt(2) of raw bytes.
pub(crate) fn setsockopt(fd: impl AsRawFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: the slice is valid for reads of its length.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// setsockopt(2) with no value but a length (what `socket.setsockopt(level, name, None, n)` does).
pub(crate) fn setsockopt_length(
    fd: impl AsRawFd,
    level: i32,
    name: i32,
    length: u32,
) -> io::Result<()> {
    // SAFETY: a null value with a length is what some options take; the kernel checks it.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::null(), length) })?;
    Ok(())
}

/// The start of the kernel's `struct tcp_info` (linux/tcp.h), as far as Linux 6.2 fills it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the kernel's own names; linux/tcp.h documents them")]
pub struct RawTcpInfo {
    pub state: u8,
    pub ca_state: u8,
    pub retransmits: u8,
    pub probes: u8,
    pub backoff: u8,
    pub options: u8,
    pub window_scales: u8,
    pub flags: u8,
    pub rto: u32,
    pub ato: u32,
    pub snd_mss: u32,
    pub rcv_mss: u32,
    pub unacked: u32,
    pub sacked: u32,
    pub lost: u32,
    pub retrans: u32,
    pub fackets: u32,
    pub last_data_sent: u32,
    pub last_ack_sent: u32,
    pub last_data_recv: u32,
    pub last_ack_recv: u32,
    pub pmtu: u32,
    pub rcv_ssthresh: u32,
    pub rtt: u32,
    pub rttvar: u32,
    pub snd_ssthresh: u32,
    pub snd_cwnd: u32,
    pub advmss: u32,
    pub reordering: u32,
    pub rcv_rtt: u32,
    pub rcv_space: u32,
    pub total_retrans: u32,
    pub pacing_rate: u64,
    pub max_pacing_rate: u64,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub segs_out: u32,
    pub segs_in: u32,
    pub notsent_bytes: u32,
    pub min_rtt: u32,
    pub data_segs_in: u32,
    pub data_segs_out: u32,
    pub delivery_rate: u64,
    pub busy_time: u64,
    pub rwnd_limited: u64,
    pub sndbuf_limited: u64,
    pub delivered: u32,
    pub delivered_ce: u32,
    pub bytes_sent: u64,
    pub bytes_retrans: u64,
    pub dsack_dups: u32,
    pub reord_seen: u32,
    pub rcv_ooopack: u32,
    pub snd_wnd: u32,
    pub rcv_wnd: u32,
    pub rehash: u32,
}

/// getsockopt(TCP_INFO), tcp(7), and how many bytes of it this kernel fills.
pub(crate) fn tcp_info(fd: impl AsRawFd) -> io::Result<(RawTcpInfo, usize)> {
    // SAFETY: integers only; all zeroes is a valid value, and what an older kernel leaves unset.
    let mut info: RawTcpInfo = unsafe { mem::zeroed() };
    let mut length = size_of::<RawTcpInfo>() as libc::socklen_t;
    // SAFETY: the struct is valid for writes of its size; the kernel writes no more than that.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    })?;
    Ok((info, length as usize))
}
