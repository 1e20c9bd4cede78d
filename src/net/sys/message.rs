//! recv(2), send(2), recvmsg(2), sendmsg(2) with their control messages, cmsg(3). Must never hold
//! state, decide anything, or know what a server is.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::net::sys::check_len;
use crate::net::sys::name::Name;

/// recv(2). Passes the caller's flags on unchanged.
///
/// Uses the system call number, as `send` does. The C library's function is a cancellation point:
/// in a process with threads it performs locked operations that cost 1 % of an echo. No thread is
/// ever cancelled here.
pub(crate) fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    let no_address = std::ptr::null_mut::<libc::sockaddr>();
    let (data, no_length) = (buffer.as_mut_ptr(), std::ptr::null_mut::<libc::socklen_t>());
    // SAFETY: recvfrom(2) with the slice, which is valid for writes of its length. Null for both
    // address and length means that no address is requested.
    check_len(unsafe {
        let (fd, length) = (fd.as_raw_fd(), buffer.len());
        libc::syscall(libc::SYS_recvfrom, fd, data, length, flags, no_address, no_length)
    } as isize)
}

/// send(2), never raising SIGPIPE.
pub(crate) fn send(fd: BorrowedFd<'_>, data: &[u8], flags: i32) -> io::Result<usize> {
    let no_address = std::ptr::null::<libc::sockaddr>();
    // SAFETY: sendto(2) with the slice, which is valid for reads of its length, and no address.
    check_len(unsafe {
        let (fd, flags) = (fd.as_raw_fd(), flags | libc::MSG_NOSIGNAL);
        libc::syscall(libc::SYS_sendto, fd, data.as_ptr(), data.len(), flags, no_address, 0usize)
    } as isize)
}

/// recvmsg(2) into several buffers. Returns the bytes received, the bytes of control messages, and
/// the flags that the kernel sets. `from` receives the sender's address, if there is one.
pub(crate) fn recvmsg(
    fd: BorrowedFd<'_>,
    buffers: &mut [io::IoSliceMut<'_>],
    control: &mut [u8],
    from: &mut Name,
    flags: i32,
) -> io::Result<(usize, usize, i32)> {
    // SAFETY: msghdr is plain old data for which all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    // An IoSliceMut is an iovec by its documented layout.
    header.msg_iov = buffers.as_mut_ptr().cast();
    header.msg_iovlen = buffers.len() as _;
    if !control.is_empty() {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = control.len() as _;
    }
    header.msg_name = (&raw mut from.raw).cast();
    header.msg_namelen = Name::ROOM;
    // SAFETY: the header points to slices and an address that are valid for writes of their
    // lengths.
    let bytes = check_len(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) })?;
    from.length = header.msg_namelen.min(Name::ROOM);
    let control = if control.is_empty() { 0 } else { header.msg_controllen as usize };
    Ok((bytes, control, header.msg_flags))
}

/// sendmsg(2) from several buffers, never raising SIGPIPE. `to` of None sends to the connected
/// peer.
pub(crate) fn sendmsg(
    fd: BorrowedFd<'_>,
    buffers: &[io::IoSlice<'_>],
    control: &[u8],
    to: Option<&Name>,
    flags: i32,
) -> io::Result<usize> {
    // SAFETY: msghdr is plain old data for which all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    // An IoSlice is an iovec by its documented layout; sendmsg only reads what it points to.
    header.msg_iov = buffers.as_ptr().cast_mut().cast();
    header.msg_iovlen = buffers.len() as _;
    if !control.is_empty() {
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len() as _;
    }
    if let Some(to) = to {
        header.msg_name = (&raw const to.raw).cast_mut().cast();
        header.msg_namelen = to.length;
    }
    // SAFETY: the header points to slices and an address that are valid for reads of their lengths.
    check_len(unsafe {
        libc::sendmsg(fd.as_raw_fd(), &raw const header, flags | libc::MSG_NOSIGNAL)
    })
}

/// The destination of a datagram, from its control messages: the address in its header, then the
/// address of this machine that received it. The two differ for broadcast and multicast.
pub(crate) fn destination(control: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let mut found = None;
    for (level, kind, data) in control_messages(control) {
        match (level, kind) {
            // struct in_pktinfo: interface, own address, address in the header.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let own: [u8; 4] = data.get(4..8)?.try_into().ok()?;
                let to: [u8; 4] = data.get(8..12)?.try_into().ok()?;
                // More precise than what an IPv6 socket reports for the same IPv4 datagram.
                return Some((Ipv4Addr::from(to).into(), Ipv4Addr::from(own).into()));
            }
            // struct in6_pktinfo: address in the header, interface.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let to: [u8; 16] = data.get(..16)?.try_into().ok()?;
                let to = IpAddr::from(Ipv6Addr::from(to)).to_canonical();
                found = Some((to, to));
            }
            _ => {}
        }
    }
    found
}

/// Whether control messages contain descriptors, unix(7).
pub(crate) fn has_descriptors(control: &[u8]) -> bool {
    let rights = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    control_messages(control).any(|(level, kind, _)| (level, kind) == rights)
}

/// The control message that sets the source address of a datagram to `own`, on the interface that
/// the route selects. `v6` is whether the socket is an IPv6 socket, which may send to IPv4
/// addresses too.
pub(crate) fn leave_from(own: IpAddr, v6: bool) -> Vec<u8> {
    if v6 {
        let own = match own {
            IpAddr::V4(own) => own.to_ipv6_mapped(),
            IpAddr::V6(own) => own,
        };
        let mut data = [0; size_of::<libc::in6_pktinfo>()];
        data[..16].copy_from_slice(&own.octets());
        control_message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data)
    } else {
        let IpAddr::V4(own) = own else { return Vec::new() };
        let mut data = [0; size_of::<libc::in_pktinfo>()];
        data[4..8].copy_from_slice(&own.octets());
        control_message(libc::IPPROTO_IP, libc::IP_PKTINFO, &data)
    }
}

/// sendto(2) of one datagram.
pub(crate) fn send_to(fd: BorrowedFd<'_>, data: &[u8], to: Name, flags: i32) -> io::Result<usize> {
    // SAFETY: slice and address are valid for reads of their lengths.
    check_len(unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            data.as_ptr().cast(),
            data.len(),
            flags | libc::MSG_NOSIGNAL,
            (&raw const to.raw).cast(),
            to.length,
        )
    })
}

/// Where the data of a control message begins, and the alignment of the next message. The macros of
/// cmsg(3) take lengths of 32 bits, so that they are asked for small ones only.
fn layout() -> (usize, usize) {
    // SAFETY: CMSG_LEN and CMSG_SPACE only calculate.
    let (start, next) = unsafe { (libc::CMSG_LEN(0) as usize, libc::CMSG_SPACE(1) as usize) };
    (start, next - start)
}

/// One control message as bytes, cmsg(3): header, data, padding.
#[must_use]
pub fn control_message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let (start, align) = layout();
    let length = start + data.len();
    let mut bytes = vec![0; length.next_multiple_of(align)];
    // SAFETY: cmsghdr is plain old data; all zeroes is a valid value.
    let mut header: libc::cmsghdr = unsafe { mem::zeroed() };
    header.cmsg_len = length as _;
    header.cmsg_level = level;
    header.cmsg_type = kind;
    // SAFETY: there is room for a header at the start; the vector may be less aligned than one.
    unsafe { std::ptr::write_unaligned(bytes.as_mut_ptr().cast(), header) };
    bytes[length - data.len()..length].copy_from_slice(data);
    bytes
}

/// The control messages that recvmsg(2) returned, cmsg(3): level, type, data. A message that the
/// kernel truncated is returned truncated.
pub fn control_messages(mut bytes: &[u8]) -> impl Iterator<Item = (i32, i32, &[u8])> {
    let (start, align) = layout();
    std::iter::from_fn(move || {
        if bytes.len() < start {
            return None;
        }
        // SAFETY: there are at least as many bytes as a header has; they may be less aligned.
        let header: libc::cmsghdr = unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) };
        let length = (header.cmsg_len as usize).min(bytes.len());
        let data = bytes.get(start..length)?;
        bytes = &bytes[length.next_multiple_of(align).min(bytes.len())..];
        Some((header.cmsg_level, header.cmsg_type, data))
    })
}
