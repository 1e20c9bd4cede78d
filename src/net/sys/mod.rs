//! The system calls that `socket2` and `mio` do not offer safely, and all `unsafe` of the engine.
//! Each function is a thin, checked wrapper named after its call; it must never hold state, decide
//! anything, or know what a server is.

use std::alloc::{Layout, alloc_zeroed};
use std::ffi::{CStr, CString};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use crate::net::address::endpoint::Address;
use crate::net::address::unix_name::UnixName;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// accept4(2): one connection off the queue, close-on-exec, with the address the kernel names.
///
/// The address comes from the call itself: `getpeername` fails on a connection that was reset
/// while it waited.
pub(crate) fn accept(
    listener: BorrowedFd<'_>,
    nonblocking: bool,
) -> io::Result<(OwnedFd, Option<Address>)> {
    let mut flags = libc::SOCK_CLOEXEC;
    if nonblocking {
        flags |= libc::SOCK_NONBLOCK;
    }
    // SAFETY: sockaddr_storage is plain old data for which all zeroes is a valid value.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the storage outlives the call and `length` tells its true size.
    let fd = check(unsafe {
        libc::accept4(listener.as_raw_fd(), (&raw mut storage).cast(), &raw mut length, flags)
    })?;
    // SAFETY: the kernel just handed out this number; nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let peer = if i32::from(storage.ss_family) == libc::AF_UNIX {
        Some(Address::Unix(unix_name(&storage, length as usize)))
    } else {
        // SAFETY: the storage is larger than a sockaddr_in6, and as much aligned; all its bytes are set.
        let raw = unsafe { *(&raw const storage).cast() };
        Name { raw, length }.address().map(Address::Ip)
    };
    Ok((fd, peer))
}

/// The name in a sockaddr_un of `length` bytes.
fn unix_name(storage: &libc::sockaddr_storage, length: usize) -> UnixName {
    // SAFETY: the storage is larger than a sockaddr_un, and as much aligned; all its bytes are set.
    let address: &libc::sockaddr_un = unsafe { &*(&raw const *storage).cast() };
    let length = length.saturating_sub(mem::offset_of!(libc::sockaddr_un, sun_path));
    let path = &address.sun_path[..length.min(address.sun_path.len())];
    let bytes: Vec<u8> = path.iter().map(|&byte| byte as u8).collect();
    // A path has a NUL behind it; an abstract name begins with one, and may have more of them.
    let end = match bytes.first() {
        None | Some(0) => bytes.len(),
        Some(_) => bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()),
    };
    UnixName::of_kernel(&bytes[..end])
}

/// recv(2). The caller's flags are taken as they are.
///
/// Like `send` by its number: the library's function is one in which a thread may be cancelled, and in a
/// process with threads it prepares for that by locked operations, which cost a hundredth of an echo.
/// Nobody cancels threads here.
pub(crate) fn recv(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    let nobody = std::ptr::null_mut::<libc::sockaddr>();
    let (data, no_length) = (buffer.as_mut_ptr(), std::ptr::null_mut::<libc::socklen_t>());
    // SAFETY: recvfrom(2) with the slice, which is valid for writes of its length; null for both address
    // and length means that no address is wanted.
    check_len(unsafe {
        let (fd, length) = (fd.as_raw_fd(), buffer.len());
        libc::syscall(libc::SYS_recvfrom, fd, data, length, flags, nobody, no_length)
    } as isize)
}

/// send(2), never raising SIGPIPE.
pub(crate) fn send(fd: BorrowedFd<'_>, data: &[u8], flags: i32) -> io::Result<usize> {
    let nobody = std::ptr::null::<libc::sockaddr>();
    // SAFETY: sendto(2) with the slice, which is valid for reads of its length, and no address.
    check_len(unsafe {
        let (fd, flags) = (fd.as_raw_fd(), flags | libc::MSG_NOSIGNAL);
        libc::syscall(libc::SYS_sendto, fd, data.as_ptr(), data.len(), flags, nobody, 0usize)
    } as isize)
}

/// recvmsg(2) into several buffers: bytes received, bytes of control messages, and the flags that the
/// kernel sets. `from` takes the sender's address, where there is one.
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
    // SAFETY: the header points at slices, and at an address, that are valid for writes of their lengths.
    let bytes = check_len(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) })?;
    from.length = header.msg_namelen.min(Name::ROOM);
    let control = if control.is_empty() { 0 } else { header.msg_controllen as usize };
    Ok((bytes, control, header.msg_flags))
}

/// sendmsg(2) from several buffers, never raising SIGPIPE; `to` of None is the socket's own peer.
pub(crate) fn sendmsg(
    fd: BorrowedFd<'_>,
    buffers: &[io::IoSlice<'_>],
    control: &[u8],
    to: Option<&Name>,
    flags: i32,
) -> io::Result<usize> {
    // SAFETY: msghdr is plain old data for which all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    // An IoSlice is an iovec by its documented layout; sendmsg only reads what it points at.
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
    // SAFETY: the header points at slices, and at an address, that are valid for reads of their lengths.
    check_len(unsafe {
        libc::sendmsg(fd.as_raw_fd(), &raw const header, flags | libc::MSG_NOSIGNAL)
    })
}

/// An IPv4 or IPv6 address as the kernel reads and writes it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Name {
    // The larger of the two; both begin with the family.
    raw: libc::sockaddr_in6,
    length: libc::socklen_t,
}

impl Name {
    /// As much as there is room for.
    const ROOM: libc::socklen_t = size_of::<libc::sockaddr_in6>() as libc::socklen_t;

    /// Room for an address.
    pub(crate) fn room() -> Self {
        // SAFETY: sockaddr_in6 is plain old data for which all zeroes is a valid value.
        Self { raw: unsafe { mem::zeroed() }, length: Self::ROOM }
    }

    pub(crate) fn new(address: SocketAddr) -> Self {
        let address = socket2::SockAddr::from(address);
        let mut name = Self::room();
        name.length = address.len().min(Self::ROOM);
        // SAFETY: the source is valid for its length, the target for at least as much.
        unsafe {
            std::ptr::copy_nonoverlapping(
                address.as_ptr().cast::<u8>(),
                (&raw mut name.raw).cast::<u8>(),
                name.length as usize,
            );
        }
        name
    }

    /// The address; None where the kernel has left it out.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match (i32::from(self.raw.sin6_family), self.length) {
            (libc::AF_INET, 1..) => {
                // SAFETY: the family says that the storage, which is larger, holds a sockaddr_in.
                let addr: libc::sockaddr_in = unsafe { *(&raw const self.raw).cast() };
                let ip = Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(addr.sin_port)).into())
            }
            (libc::AF_INET6, 1..) => {
                let addr = &self.raw;
                let ip = Ipv6Addr::from(addr.sin6_addr.s6_addr);
                let port = u16::from_be(addr.sin6_port);
                Some(SocketAddrV6::new(ip, port, addr.sin6_flowinfo, addr.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

/// How many messages one recvmmsg(2) or sendmmsg(2) takes here. More saves nothing that can be measured.
pub(crate) const BATCH: usize = 64;
/// Room for the control messages of one datagram: its destination (IP_PKTINFO and IPV6_PKTINFO).
const CONTROL: usize = 128;

/// Memory that the kernel is given the address of: it has one for as long as it lives, whoever moves its
/// owner.
struct Pinned<T>(std::ptr::NonNull<[T]>);

impl<T> Pinned<T> {
    fn new(items: Vec<T>) -> Self {
        Self(Box::leak(items.into_boxed_slice()).into())
    }

    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.0.len());
        // SAFETY: within the slice.
        unsafe { self.0.as_ptr().cast::<T>().add(index) }
    }
}

impl<T> Drop for Pinned<T> {
    fn drop(&mut self) {
        // SAFETY: it came from a box and is freed once.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Memory of which only pages that were ever written to are taken; ENOMEM where not even that is to be had,
/// which for so much is no reason to end the process.
fn zeroed_bytes(count: usize) -> io::Result<Vec<u8>> {
    let no_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
    let layout = Layout::array::<u8>(count).map_err(|_| no_memory())?;
    assert!(layout.size() > 0, "of nothing there is no memory");
    // SAFETY: not of size zero.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        return Err(no_memory());
    }
    // SAFETY: `count` bytes, all zero, from the allocator that a Vec gives them back to, and as one would ask.
    Ok(unsafe { Vec::from_raw_parts(start, count, count) })
}

/// Room for a batch of datagrams, each with its sender and, where that is asked for, its control
/// messages. Only pages that were ever written to take memory.
pub(crate) struct Inbound {
    headers: Pinned<libc::mmsghdr>,
    _vectors: Pinned<libc::iovec>,
    names: Pinned<Name>,
    controls: Pinned<[u64; CONTROL / 8]>,
    data: Pinned<u8>,
    /// Bytes of one datagram, and from one to the next.
    size: usize,
    stride: usize,
    control: usize,
    /// Headers that the last call has written to.
    used: usize,
}

// SAFETY: it owns all that its pointers lead to, and shares none of it.
unsafe impl Send for Inbound {}

/// One datagram of a batch.
pub(crate) struct Received<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) from: &'a Name,
    pub(crate) control: &'a [u8],
    /// It was longer than there was room for.
    pub(crate) cut: bool,
}

impl Inbound {
    /// Room for datagrams of up to `size` bytes, and for their destinations.
    pub(crate) fn new(size: usize, with_destination: bool) -> io::Result<Self> {
        // Not a power of two: the datagrams of a batch would all fall into the same few lines of the cache.
        let stride = size.next_multiple_of(64) + 64;
        // SAFETY: plain old data for which all zeroes is a valid value.
        let zeroed = || unsafe { mem::zeroed::<libc::mmsghdr>() };
        let inbound = Self {
            headers: Pinned::new(std::iter::repeat_with(zeroed).take(BATCH).collect()),
            _vectors: Pinned::new(vec![
                libc::iovec {
                    iov_base: std::ptr::null_mut(),
                    iov_len: size
                };
                BATCH
            ]),
            names: Pinned::new(vec![Name::room(); BATCH]),
            controls: Pinned::new(vec![[0; CONTROL / 8]; if with_destination { BATCH } else { 0 }]),
            data: Pinned::new(zeroed_bytes(stride * BATCH)?),
            size,
            stride,
            control: if with_destination { CONTROL } else { 0 },
            used: BATCH,
        };
        for index in 0..BATCH {
            let vector = inbound._vectors.at(index);
            // SAFETY: within memory that is owned, to which there are no references.
            unsafe {
                (*vector).iov_base = inbound.data.at(index * stride).cast();
                let header = &raw mut (*inbound.headers.at(index)).msg_hdr;
                (*header).msg_name = inbound.names.at(index).cast();
                (*header).msg_iov = vector;
                (*header).msg_iovlen = 1;
                if with_destination {
                    (*header).msg_control = inbound.controls.at(index).cast();
                }
            }
        }
        Ok(inbound)
    }

    /// recvmmsg(2) of up to `most` datagrams; how many came. They take the place of those before.
    pub(crate) fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        most: usize,
        flags: i32,
    ) -> io::Result<usize> {
        for index in 0..mem::take(&mut self.used) {
            // SAFETY: within memory that is owned, to which there are no references while `self` is
            // borrowed mutably.
            unsafe {
                let header = &raw mut (*self.headers.at(index)).msg_hdr;
                (*header).msg_namelen = Name::ROOM;
                (*header).msg_controllen = self.control as _;
                (*header).msg_flags = 0;
            }
        }
        // SAFETY: the headers lead to memory that is valid for writes of the lengths they give.
        let received = check(unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.at(0),
                most.min(BATCH) as _,
                flags as _,
                std::ptr::null_mut(),
            )
        });
        // An error may have left one written to as well.
        self.used = received.as_ref().map_or(1, |&count| (count as usize + 1).min(BATCH));
        Ok(received? as usize)
    }

    /// One of those that the last call has received.
    pub(crate) fn get(&self, index: usize) -> Received<'_> {
        // SAFETY: within memory that is owned; it is written to by `receive` alone, which borrows `self`
        // mutably. The kernel has written no more than there was room for.
        unsafe {
            let header = &*self.headers.at(index);
            let length = (header.msg_len as usize).min(self.size);
            let control = header.msg_hdr.msg_controllen.min(self.control);
            let name = self.names.at(index);
            (*name).length = header.msg_hdr.msg_namelen.min(Name::ROOM);
            Received {
                data: std::slice::from_raw_parts(self.data.at(index * self.stride), length),
                from: &*name,
                control: match control {
                    0 => &[],
                    _ => std::slice::from_raw_parts(self.controls.at(index).cast(), control),
                },
                cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            }
        }
    }
}

/// One datagram on its way out.
pub(crate) struct Outgoing<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) to: &'a Name,
    pub(crate) control: &'a [u8],
}

/// sendmmsg(2) of up to `BATCH` of `count` datagrams, which `message` tells one by one. Returns how many
/// were sent; the error is that of the first one.
pub(crate) fn send_many<'a>(
    fd: BorrowedFd<'_>,
    count: usize,
    flags: i32,
    mut message: impl FnMut(usize) -> Outgoing<'a>,
) -> io::Result<usize> {
    let count = count.min(BATCH);
    let mut vectors = [const { mem::MaybeUninit::<libc::iovec>::uninit() }; BATCH];
    let mut headers = [const { mem::MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
    for index in 0..count {
        let Outgoing { data, to, control } = message(index);
        let vector = vectors[index]
            .write(libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() });
        // SAFETY: plain old data for which all zeroes is a valid value.
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        // sendmmsg only reads what these point at.
        header.msg_hdr.msg_name = (&raw const to.raw).cast_mut().cast();
        header.msg_hdr.msg_namelen = to.length;
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        if !control.is_empty() {
            header.msg_hdr.msg_control = control.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_controllen = control.len() as _;
        }
        headers[index].write(header);
    }
    // SAFETY: `count` headers were written; what they lead to lives as long as 'a, and the vectors as
    // long as this function.
    let sent = check(unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr().cast(),
            count as _,
            (flags | libc::MSG_NOSIGNAL) as _,
        )
    })?;
    Ok(sent as usize)
}

/// Where a datagram was sent to, from its control messages: the address in its header, and the one of this
/// machine that it came in by. The two differ for broadcast and multicast.
pub(crate) fn destination(control: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let mut found = None;
    for (level, kind, data) in control_messages(control) {
        match (level, kind) {
            // struct in_pktinfo: interface, own address, address in the header.
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let own: [u8; 4] = data.get(4..8)?.try_into().ok()?;
                let to: [u8; 4] = data.get(8..12)?.try_into().ok()?;
                // Says more than what an IPv6 socket says of the same IPv4 datagram.
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

/// Whether control messages bring descriptors, unix(7).
pub(crate) fn has_descriptors(control: &[u8]) -> bool {
    let rights = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
    control_messages(control).any(|(level, kind, _)| (level, kind) == rights)
}

/// The control message that has a datagram leave from the address `own`, by whatever interface the route
/// takes; `v6` is the family of the socket, which may send to IPv4 all the same.
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

/// One control message as bytes, cmsg(3): header, data, padding.
#[must_use]
pub fn control_message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    // SAFETY: CMSG_SPACE and CMSG_LEN only calculate.
    let (space, length) = unsafe {
        (libc::CMSG_SPACE(data.len() as u32) as usize, libc::CMSG_LEN(data.len() as u32) as usize)
    };
    let mut bytes = vec![0; space];
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

/// The control messages in what recvmsg(2) left, cmsg(3): level, type, data. One that the kernel had to
/// cut is given as far as it goes.
pub fn control_messages(mut bytes: &[u8]) -> impl Iterator<Item = (i32, i32, &[u8])> {
    // SAFETY: CMSG_LEN and CMSG_SPACE only calculate.
    let (start, align) = unsafe { (libc::CMSG_LEN(0) as usize, libc::CMSG_SPACE(1) as usize) };
    let align = align - start;
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

/// pread(2) of a number of the caller's.
pub(crate) fn pread(number: RawFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset =
        libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the slice is valid for writes of its length; a number that is not open is EBADF.
    check_len(unsafe { libc::pread(number, buffer.as_mut_ptr().cast(), buffer.len(), offset) })
}

/// One descriptor of a `poll` call.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct PollFd(libc::pollfd);

impl PollFd {
    /// Waits for input (or the end of it, or an error).
    #[must_use]
    pub fn readable(fd: BorrowedFd<'_>) -> Self {
        Self::new(fd, libc::POLLIN)
    }

    /// Waits for input, urgent data or the peer's end (or an error).
    #[must_use]
    pub fn input(fd: BorrowedFd<'_>) -> Self {
        Self::new(fd, libc::POLLIN | libc::POLLPRI | libc::POLLRDHUP)
    }

    /// Waits for room to write (or an error).
    #[must_use]
    pub fn writable(fd: BorrowedFd<'_>) -> Self {
        Self::new(fd, libc::POLLOUT)
    }

    fn new(fd: BorrowedFd<'_>, events: libc::c_short) -> Self {
        Self(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 })
    }

    /// A place in the list that is not looked at this time.
    #[must_use]
    pub fn unused() -> Self {
        Self(libc::pollfd { fd: -1, events: 0, revents: 0 })
    }

    /// Whether the last `poll` for `input` found the end of it, and no error.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.0.revents & (libc::POLLRDHUP | libc::POLLERR) == libc::POLLRDHUP
    }

    /// Whether the last `poll` found an error, of which reading need not tell.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.0.revents & libc::POLLERR != 0
    }

    /// Whether the last `poll` had anything to say about it.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.0.revents != 0
    }
}

/// ppoll(2) until `deadline`; `Ok(0)` means that it has passed. EINTR is returned, not retried.
pub fn poll(fds: &mut [PollFd], deadline: Option<Instant>) -> io::Result<usize> {
    let left = deadline.map(|at| timespec(at.saturating_duration_since(Instant::now())));
    let pointer = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: PollFd is a transparent pollfd; the slice is valid for its length, and the timespec,
    // where there is one, outlives the call.
    let ready = check(unsafe {
        libc::ppoll(fds.as_mut_ptr().cast(), fds.len() as libc::nfds_t, pointer, std::ptr::null())
    })?;
    Ok(ready as usize)
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// eventfd(2), non-blocking and close-on-exec.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers are involved.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the kernel just handed out this number; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// pipe2(2), non-blocking and close-on-exec: the end to read from, the end to write to.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1; 2];
    // SAFETY: the array has room for the two numbers.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: the kernel just handed out these numbers; nobody else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// fcntl(F_SETPIPE_SZ): what a pipe can hold, rounded up by the kernel.
pub(crate) fn set_pipe_size(pipe: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: no pointers are involved.
    check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) })?;
    Ok(())
}

/// splice(2), never waiting: moves up to `most` bytes between a pipe and another descriptor.
///
/// SIGPIPE, for which there is no flag here, is blocked on all threads that call this.
pub(crate) fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    // SAFETY: no offsets are given; the numbers are open for the length of the call.
    check_len(unsafe {
        libc::splice(
            from.as_raw_fd(),
            std::ptr::null_mut(),
            to.as_raw_fd(),
            std::ptr::null_mut(),
            most,
            libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK,
        )
    })
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
pub fn address_of(number: RawFd) -> Option<Address> {
    // SAFETY: F_GETFD only asks.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) }).ok()?;
    // SAFETY: the number is open, and is used for one call; should another thread close it meanwhile,
    // that call fails or tells of another socket.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    Address::from_raw(&socket2::SockRef::from(&fd).local_addr().ok()?)
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
pub(crate) fn setsockopt(
    fd: BorrowedFd<'_>,
    level: i32,
    name: i32,
    value: &[u8],
) -> io::Result<()> {
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
    fd: BorrowedFd<'_>,
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

/// flock(2) for us alone, without waiting: EWOULDBLOCK where somebody has it. Held until the last copy
/// of the descriptor is closed.
pub(crate) fn try_lock(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers are involved.
    check(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })?;
    Ok(())
}

/// prctl(PR_SET_NAME): what the calling thread is called by debuggers and in /proc, at most 15 bytes.
pub(crate) fn name_thread(name: &str) {
    if let Ok(name) = CString::new(name) {
        // SAFETY: a valid C string; the kernel takes its first 15 bytes.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
}

/// prctl(PR_SET_TIMERSLACK): how late this thread's naps may end. By default 50 µs, which is as long
/// as the only nap there is.
pub(crate) fn set_timer_slack(slack: Duration) {
    let nanos = libc::c_ulong::try_from(slack.as_nanos()).unwrap_or(libc::c_ulong::MAX);
    // SAFETY: sets a number of the calling thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, nanos) };
}

/// getrlimit(RLIMIT_NOFILE): soft and hard limit of open descriptors.
pub(crate) fn fd_limits() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct is valid for writes.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// setrlimit(RLIMIT_NOFILE): a new soft limit under the same hard one.
pub(crate) fn set_fd_soft_limit(soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the struct outlives the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(())
}

/// Runs `f` with every asynchronous signal and SIGPIPE blocked, so that a thread it spawns is born
/// with them blocked: signals of the process belong to Python's threads.
pub(crate) fn with_signals_blocked<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: sigset_t is plain old data; sigfillset sets every bit of it before use.
    let mut mask: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: as above, for the mask that was in force.
    let mut before: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: both sets are valid; the synchronous signals stay deliverable, or a fault would
    // kill the process without a word.
    unsafe {
        libc::sigfillset(&raw mut mask);
        for signal in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGABRT,
            libc::SIGSYS,
        ] {
            libc::sigdelset(&raw mut mask, signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, &raw mut before);
    }
    let result = f();
    // SAFETY: restores the set that was read above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    result
}

/// pthread_atfork(3).
pub(crate) fn at_fork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) {
    unsafe extern "C" {
        // Not in the `libc` crate for this target.
        fn pthread_atfork(
            prepare: Option<extern "C" fn()>,
            parent: Option<extern "C" fn()>,
            child: Option<extern "C" fn()>,
        ) -> libc::c_int;
    }
    // SAFETY: three functions that live as long as the process. ENOMEM is the only failure; the
    // library then works as long as nobody forks.
    unsafe { pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}

/// Interface number of a scope name (`eth0` in `fe80::1%eth0`), if_nametoindex(3).
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a valid C string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// Name of an interface, if_indextoname(3).
pub(crate) fn interface_name(index: u32) -> Option<String> {
    let mut name = [0 as libc::c_char; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size the call asks for.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: on success the buffer holds a C string.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    name.to_str().ok().map(str::to_owned)
}

/// What getaddrinfo(3) said instead of an answer: its EAI code and text.
pub(crate) struct ResolverError {
    pub(crate) code: i32,
    pub(crate) text: String,
}

/// getaddrinfo(3) for stream sockets; of a service alone also for others, streams first: some names, as
/// tftp's, are there for UDP only. Blocks for as long as the system's resolver likes.
pub(crate) fn getaddrinfo(
    host: Option<&str>,
    service: Option<&str>,
    passive: bool,
) -> Result<Vec<SocketAddr>, ResolverError> {
    let nul =
        |_| ResolverError { code: libc::EAI_NONAME, text: "a name with a NUL byte".to_owned() };
    let host = host.map(CString::new).transpose().map_err(nul)?;
    let service = service.map(CString::new).transpose().map_err(nul)?;
    // SAFETY: addrinfo is plain old data; all zeroes is the documented start.
    let mut hints: libc::addrinfo = unsafe { mem::zeroed() };
    hints.ai_socktype = if host.is_some() { libc::SOCK_STREAM } else { 0 };
    hints.ai_flags = if passive { libc::AI_PASSIVE } else { 0 };
    let mut list: *mut libc::addrinfo = std::ptr::null_mut();
    // SAFETY: C strings and hints outlive the call; `list` is only read on success.
    let code = unsafe {
        libc::getaddrinfo(
            host.as_ref().map_or(std::ptr::null(), |name| name.as_ptr()),
            service.as_ref().map_or(std::ptr::null(), |name| name.as_ptr()),
            &raw const hints,
            &raw mut list,
        )
    };
    if code != 0 {
        let text = if code == libc::EAI_SYSTEM {
            io::Error::last_os_error().to_string()
        } else {
            // SAFETY: gai_strerror returns a static C string for every code.
            unsafe { CStr::from_ptr(libc::gai_strerror(code)) }.to_string_lossy().into_owned()
        };
        return Err(ResolverError { code, text });
    }
    let mut found = Vec::new();
    let mut node = list;
    while !node.is_null() {
        // SAFETY: the list is well formed until freeaddrinfo below.
        let info = unsafe { &*node };
        let mut name = Name::room();
        name.length = info.ai_addrlen.min(Name::ROOM);
        // SAFETY: `ai_addr` is valid for `ai_addrlen` bytes, and the name has room for as many.
        unsafe {
            std::ptr::copy_nonoverlapping(
                info.ai_addr.cast::<u8>(),
                (&raw mut name.raw).cast::<u8>(),
                name.length as usize,
            )
        };
        if let Some(addr) = name.address() {
            if !found.contains(&addr) {
                found.push(addr);
            }
        }
        node = info.ai_next;
    }
    // SAFETY: the list came from getaddrinfo and is freed once.
    unsafe { libc::freeaddrinfo(list) };
    Ok(found)
}
