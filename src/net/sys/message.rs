//! recv(2), send(2), recvmsg(2), sendmsg(2) with their control messages, cmsg(3). Must never hold
//! state, decide anything, or know what a server is.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::{RecvFlags, SendFlags};

use crate::net::sys::check_len;
use crate::net::sys::name::Name;

/// recv(2). Passes the caller's flags on unchanged. With MSG_TRUNC, the number of bytes that there
/// were, which may be larger than the buffer.
///
/// Made without the C library, as `send` is. Its function is a cancellation point: in a process
/// with threads it performs locked operations that cost 1 % of an echo. No thread is ever cancelled
/// here.
#[inline]
pub(crate) fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    let (_, length) = rustix::net::recv(fd, buffer, RecvFlags::from_bits_retain(flags as u32))?;
    Ok(length)
}

/// send(2), never raising SIGPIPE.
#[inline]
pub(crate) fn send(fd: BorrowedFd<'_>, data: &[u8], flags: i32) -> io::Result<usize> {
    Ok(rustix::net::send(fd, data, send_flags(flags))?)
}

fn send_flags(flags: i32) -> SendFlags {
    SendFlags::from_bits_retain(flags as u32) | SendFlags::NOSIGNAL
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
pub(crate) fn send_to(
    fd: BorrowedFd<'_>,
    data: &[u8],
    to: SocketAddr,
    flags: i32,
) -> io::Result<usize> {
    Ok(rustix::net::sendto(fd, data, send_flags(flags), &to)?)
}

/// The header of a control message, cmsg(3): its length with the header, as the size of the kernel
/// (the C library of musl declares another type), then level and type. Data follows, and the next
/// header at a multiple of `ALIGN`.
const HEADER: usize = ALIGN + 2 * size_of::<i32>();
const ALIGN: usize = size_of::<usize>();

/// One control message as bytes, cmsg(3): header, data, padding.
#[must_use]
pub fn control_message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let length = HEADER + data.len();
    let mut bytes = Vec::with_capacity(length.next_multiple_of(ALIGN));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(length.next_multiple_of(ALIGN), 0);
    bytes
}

/// The control messages that recvmsg(2) returned, cmsg(3): level, type, data. A message that the
/// kernel truncated is returned truncated.
pub fn control_messages(mut bytes: &[u8]) -> impl Iterator<Item = (i32, i32, &[u8])> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk()?;
        let (level, rest) = rest.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let length = usize::from_ne_bytes(*length).min(bytes.len());
        let data = bytes.get(HEADER..length)?;
        bytes = &bytes[length.next_multiple_of(ALIGN).min(bytes.len())..];
        Some((i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind), data))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_messages_have_the_layout_of_the_c_library() {
        for size in 0..40 {
            let data = vec![7; size];
            let bytes = control_message(1, 2, &data);
            // SAFETY: CMSG_SPACE and CMSG_LEN only calculate.
            let (space, length) =
                unsafe { (libc::CMSG_SPACE(size as u32), libc::CMSG_LEN(size as u32)) };
            assert_eq!(bytes.len(), space as usize);
            assert_eq!(HEADER + size, length as usize);
            let two = [bytes, control_message(3, 4, b"end")].concat();
            let found: Vec<_> = control_messages(&two).collect();
            assert_eq!(found, [(1, 2, &data[..]), (3, 4, b"end")]);
        }
    }

    #[test]
    fn a_wrong_length_in_a_control_message_ends_the_list() {
        let message = control_message(1, 2, b"data");
        for length in [0, 1, HEADER - 1, usize::MAX, usize::MAX - 7] {
            let mut wrong = message.clone();
            wrong[..ALIGN].copy_from_slice(&length.to_ne_bytes());
            assert!(control_messages(&wrong).count() <= 1);
        }
        for cut in 0..message.len() {
            assert!(control_messages(&message[..cut]).count() <= 1);
        }
    }
}
