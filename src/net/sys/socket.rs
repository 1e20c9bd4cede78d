//! Calls on one socket: accept4(2), connect(2), getsockopt(2), setsockopt(2), getsockname(2),
//! dup3(2), close(2). Must never hold state, decide anything, or know what a server is.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use socket2::{SockAddr, SockAddrStorage};

use crate::net::sys::{check, is_refused};

/// accept4(2): takes one connection off the queue, close-on-exec. Returns it with its peer's
/// address in the kernel's form.
///
/// The address comes from the call itself, because `getpeername` fails on a connection that was
/// reset while it waited. By the C library: `rustix` panics where a peer is bound to a path that
/// fills its address (108 bytes).
///
/// Where accept4(2) is not available, accept(2) takes the connection, and fcntl(2) sets the flags:
/// another thread that forks and executes a program in between passes the descriptor on.
pub(crate) fn accept(
    listener: BorrowedFd<'_>,
    nonblocking: bool,
) -> io::Result<(OwnedFd, SockAddr)> {
    match accept4(listener, nonblocking) {
        Err(error) if is_refused(&error) => {
            let (socket, peer) = socket2::SockRef::from(&listener).accept_raw()?;
            socket.set_cloexec(true)?;
            socket.set_nonblocking(nonblocking)?;
            Ok((socket.into(), peer))
        }
        result => result,
    }
}

fn accept4(listener: BorrowedFd<'_>, nonblocking: bool) -> io::Result<(OwnedFd, SockAddr)> {
    let mut flags = libc::SOCK_CLOEXEC;
    if nonblocking {
        flags |= libc::SOCK_NONBLOCK;
    }
    let accept4 = |storage: *mut SockAddrStorage, length: *mut libc::socklen_t| {
        // SAFETY: both pointers are valid for the call, and `length` holds the storage's size.
        check(unsafe { libc::accept4(listener.as_raw_fd(), storage.cast(), length, flags) })
    };
    // SAFETY: accept4 writes an address with its length, for which zero is valid.
    let (fd, peer) = unsafe { SockAddr::try_init(accept4) }?;
    // SAFETY: the kernel has just returned this number; it has no other owner.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, peer))
}

/// dup3(2): makes `number` refer to what `source` refers to; closes what it referred to before.
/// Where dup3(2) is not available, dup2(2), and fcntl(2) for close-on-exec.
pub(crate) fn replace(source: BorrowedFd<'_>, number: BorrowedFd<'_>) -> io::Result<()> {
    let (source, target) = (source.as_raw_fd(), number.as_raw_fd());
    // SAFETY: both numbers are open for the length of the call; `number` keeps its owner.
    match check(unsafe { libc::dup3(source, target, libc::O_CLOEXEC) }) {
        Err(error) if is_refused(&error) => {
            // SAFETY: as above.
            check(unsafe { libc::dup2(source, target) })?;
            socket2::SockRef::from(&number).set_cloexec(true)
        }
        result => result.map(drop),
    }
}

/// Takes ownership of a descriptor number that other code opened (a caller's `fd=`). EBADF if the
/// number is not open.
pub(crate) fn adopt(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only reads a flag.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: the number is open, and by the contract of `fd=` the caller gives it away.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// getsockname(2) of a descriptor number that the caller keeps. None unless it is a socket of a
/// known family.
#[must_use]
pub(crate) fn address_of(number: RawFd) -> Option<SockAddr> {
    // SAFETY: F_GETFD only reads a flag.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) }).ok()?;
    // SAFETY: the number is open and is used for one call. If another thread closes it meanwhile,
    // that call fails or returns the address of another socket.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    socket2::SockRef::from(&fd).local_addr().ok()
}

/// fcntl(2), F_DUPFD_CLOEXEC: another descriptor of the same socket. The caller makes sure that the
/// number is not closed meanwhile.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no pointers are involved; a wrong number is reported as EBADF.
    let fd = check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel has just returned this number; it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// close(2) of a bare number, for a forked child, where the number's owner is never dropped.
/// Async-signal-safe.
pub(crate) fn close_number(number: RawFd) {
    // SAFETY: close accepts any number; the fork table lists only numbers that the engine opened.
    unsafe { libc::close(number) };
}

/// connect(2) to AF_UNSPEC: ends an established TCP connection with RST at once, even while a
/// forked child holds a copy of the descriptor.
pub(crate) fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::net::connect_unspec(fd)?)
}

/// getsockopt(2) of raw bytes. Returns the number of bytes that the kernel wrote.
///
/// For SO_GET_FILTER with an empty value, returns the number of instructions.
pub(crate) fn getsockopt(
    fd: impl AsRawFd,
    level: i32,
    name: i32,
    value: &mut [u8],
) -> io::Result<usize> {
    // The lengths of SO_GET_FILTER count instructions, socket(7).
    let is_filter = (level, name) == (libc::SOL_SOCKET, libc::SO_GET_FILTER);
    let unit = if is_filter { size_of::<libc::sock_filter>() } else { 1 };
    let room = value.len() / unit;
    let mut length = option_length(room)?;
    // SAFETY: the slice is valid for writes of `length` units.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut length)
    })?;
    let length = length as usize;
    match (is_filter, room) {
        (true, 0) if value.is_empty() => Ok(length),
        // The kernel has counted the instructions and written none.
        (true, 0) if length > 0 => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        // The length of some options is that of the whole value, of which a part was written.
        _ => Ok((length * unit).min(value.len())),
    }
}

/// The length of an option as the kernel takes it, a signed int. A larger one would be cut.
fn option_length(length: usize) -> io::Result<libc::socklen_t> {
    match i32::try_from(length) {
        Ok(_) => Ok(length as libc::socklen_t),
        Err(_) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// setsockopt(2) of raw bytes.
pub(crate) fn setsockopt(fd: impl AsRawFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = option_length(value.len())?;
    // SAFETY: the slice is valid for reads of its length.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), length) })?;
    Ok(())
}

/// setsockopt(2) with a length and no value, as `socket.setsockopt(level, name, None, n)` does.
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

/// The start of the kernel's `struct tcp_info` (linux/tcp.h), up to the last field that Linux 6.2
/// fills.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
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

/// getsockopt(TCP_INFO), tcp(7). Returns the struct, and the number of bytes that this kernel
/// fills.
pub(crate) fn tcp_info(fd: impl AsRawFd) -> io::Result<(RawTcpInfo, usize)> {
    // Zero in the fields that an older kernel does not know.
    let mut info = RawTcpInfo::default();
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
