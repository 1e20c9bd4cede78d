//! The system calls that the standard library does not offer, for the programs of this crate.
//!
//! Owns every `unsafe` block of this crate. Must never add work to a call: no buffering, no
//! retrying, no allocation; figures taken through these are the kernel's.

pub mod windows;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

pub use libc::epoll_event as Event;

/// Reported once per arrival; a peer's end has a separate flag.
pub const READABLE_EDGE: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLET) as u32;
/// The same, and once each time that there is room to send again.
pub const BOTH_EDGE: u32 = READABLE_EDGE | libc::EPOLLOUT as u32;
/// Reported as long as it holds.
pub const READABLE_LEVEL: u32 = libc::EPOLLIN as u32;
/// Any of these in an event: the peer has ended its side, or the connection is gone.
pub const ENDED: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;

pub const NO_EVENT: Event = Event { events: 0, u64: 0 };

/// An epoll instance.
pub struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor returned has no other owner.
        unsafe {
            let fd = checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// Reports events of `fd` from now on, with `token`. Closing the last descriptor of a socket
    /// removes it.
    pub fn add(&self, fd: RawFd, events: u32, token: u64) -> io::Result<()> {
        let mut event = Event { events, u64: token };
        // SAFETY: the event lives through the call, which copies it.
        let result =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        checked(result).map(drop)
    }

    /// Waits for events; blocks without limit.
    #[inline]
    pub fn wait<'a>(&self, events: &'a mut [Event]) -> io::Result<&'a [Event]> {
        let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
        // SAFETY: the kernel writes at most `room` events into a slice at least that long.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), room, -1) };
        Ok(&events[..checked_size(count as isize)?])
    }
}

/// accept4(2), without the peer's address. The socket is blocking.
#[inline]
pub fn accept(listener: RawFd) -> io::Result<RawFd> {
    use std::ptr::null_mut;
    // SAFETY: null for both address and length means that no address is wanted.
    checked(unsafe { libc::accept4(listener, null_mut(), null_mut(), libc::SOCK_CLOEXEC) })
}

/// close(2).
pub fn close(fd: RawFd) {
    // SAFETY: callers pass a descriptor they got from `accept` and forget it here. The result is
    // ignored: Linux frees the number in any case.
    unsafe { libc::close(fd) };
}

/// recv(2), which never waits.
#[inline]
pub fn recv(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes into a slice of that length.
    let count =
        unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    checked_size(count)
}

/// send(2); on a blocking socket it waits until all of `data` is taken.
#[inline]
pub fn send(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads at most `len` bytes of a slice of that length.
    checked_size(unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), libc::MSG_NOSIGNAL) })
}

/// recvfrom(2), which waits.
#[inline]
pub fn recv_from(fd: RawFd, buffer: &mut [u8]) -> io::Result<(usize, libc::sockaddr_in)> {
    let (mut from, mut length) = sockaddr(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
    // SAFETY: buffer and address are valid for writes of the lengths passed.
    let count = unsafe {
        libc::recvfrom(
            fd,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut from).cast(),
            &raw mut length,
        )
    };
    Ok((checked_size(count)?, from))
}

/// sendto(2).
#[inline]
pub fn send_to(fd: RawFd, data: &[u8], to: &libc::sockaddr_in) -> io::Result<usize> {
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: data and address are valid for reads of the lengths passed.
    checked_size(unsafe {
        libc::sendto(
            fd,
            data.as_ptr().cast(),
            data.len(),
            libc::MSG_NOSIGNAL,
            std::ptr::from_ref(to).cast(),
            length,
        )
    })
}

/// Buffers for datagrams that are received together and sent back together.
pub struct Batch {
    headers: Vec<libc::mmsghdr>,
    // The headers point to it; it is never moved, and only the kernel writes to it.
    vectors: Vec<libc::iovec>,
    _names: Vec<libc::sockaddr_in>,
    _data: Vec<u8>,
    size: usize,
}

impl Batch {
    pub fn new(count: usize, size: usize) -> Self {
        // Buffers at a distance of a power of two would share a few lines of the cache.
        let stride = size.next_multiple_of(64) + 64;
        let (unspecified, _) = sockaddr(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        let mut names = vec![unspecified; count];
        let mut data = vec![0u8; stride * count];
        let mut vectors: Vec<_> = data
            .chunks_mut(stride)
            .map(|chunk| libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: size })
            .collect();
        let headers = names
            .iter_mut()
            .zip(&mut vectors)
            .map(|(name, vector)| {
                // SAFETY: plain old data for which all zeroes is a valid value.
                let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
                header.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
                header.msg_hdr.msg_iov = vector;
                header.msg_hdr.msg_iovlen = 1;
                header
            })
            .collect();
        Self { headers, vectors, _names: names, _data: data, size }
    }

    /// recvmmsg(2): waits for the first datagram, and takes the others that are there.
    #[inline]
    pub fn receive(&mut self, fd: RawFd) -> io::Result<usize> {
        let room = self.headers.len() as libc::c_uint;
        for (header, vector) in self.headers.iter_mut().zip(&mut self.vectors) {
            if header.msg_hdr.msg_namelen == size_of::<libc::sockaddr_in>() as libc::socklen_t
                && vector.iov_len == self.size
            {
                break; // this one and later ones were not used
            }
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            vector.iov_len = self.size;
        }
        // SAFETY: the headers point to owned memory of the lengths they give.
        let count = unsafe {
            libc::recvmmsg(
                fd,
                self.headers.as_mut_ptr(),
                room,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        checked_size(count as isize)
    }

    /// sendmmsg(2) of the first `count`, each to its sender.
    #[inline]
    pub fn send_back(&mut self, fd: RawFd, count: usize) -> io::Result<usize> {
        for (header, vector) in self.headers[..count].iter().zip(&mut self.vectors) {
            vector.iov_len = header.msg_len as usize;
        }
        // SAFETY: as in `receive`.
        let sent = unsafe {
            libc::sendmmsg(fd, self.headers.as_mut_ptr(), count as libc::c_uint, libc::MSG_NOSIGNAL)
        };
        checked_size(sent as isize)
    }
}

/// fcntl(O_NONBLOCK): from now on no call waits on it, splice(2) included.
pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointers.
    checked(unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// pipe2(2) of that size: the read end and the write end. Never waits.
pub fn pipe(size: libc::c_int) -> io::Result<(RawFd, RawFd)> {
    let mut ends = [-1; 2];
    // SAFETY: the array has room for two numbers.
    checked(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) })?;
    // SAFETY: no pointers.
    checked(unsafe { libc::fcntl(ends[1], libc::F_SETPIPE_SZ, size) })?;
    Ok((ends[0], ends[1]))
}

/// splice(2) between a pipe and a socket, neither of which waits.
#[inline]
pub fn splice(from: RawFd, to: RawFd, most: usize) -> io::Result<usize> {
    use std::ptr::null_mut;
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: null for both offsets: neither end has one.
    checked_size(unsafe { libc::splice(from, null_mut(), to, null_mut(), most, flags) })
}

/// listen(2) again, for a longer backlog than the standard library's 128.
pub fn set_backlog(listener: &impl AsRawFd, backlog: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    checked(unsafe { libc::listen(listener.as_raw_fd(), backlog) }).map(drop)
}

/// Sets TCP_NODELAY; accepted sockets inherit a listener's.
pub fn set_nodelay(socket: &impl AsRawFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY)
}

/// Sets IP_BIND_ADDRESS_NO_PORT: bind(2) takes an address, and connect(2) chooses the port.
pub fn set_bind_address_no_port(socket: &impl AsRawFd) -> io::Result<()> {
    set(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)
}

/// SO_LINGER of zero: the coming close sends RST.
pub fn set_reset_on_close(socket: RawFd) -> io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = size_of::<libc::linger>() as libc::socklen_t;
    let value = (&raw const linger).cast();
    // SAFETY: the value lives through the call, and its length is correct.
    let result =
        unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_LINGER, value, length) };
    checked(result).map(drop)
}

/// socket(2): TCP over IPv4, blocking.
pub fn tcp_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor returned has no other owner.
    unsafe {
        let fd = checked(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// bind(2) to an address, without a port.
pub fn bind(socket: &impl AsRawFd, source: Ipv4Addr) -> io::Result<()> {
    let (address, length) = sockaddr(SocketAddrV4::new(source, 0));
    // SAFETY: the address lives through the call, and its length is correct.
    checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })
        .map(drop)
}

/// connect(2), which waits until the connection is established.
pub fn connect(socket: &impl AsRawFd, to: SocketAddrV4) -> io::Result<()> {
    let (address, length) = sockaddr(to);
    // SAFETY: the address lives through the call, and its length is correct.
    checked(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })
        .map(drop)
}

fn sockaddr(address: SocketAddrV4) -> (libc::sockaddr_in, libc::socklen_t) {
    let sockaddr = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: address.ip().to_bits().to_be() },
        sin_zero: [0; 8],
    };
    (sockaddr, size_of_val(&sockaddr) as libc::socklen_t)
}

/// Turns an option on.
fn set(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the value is an int that lives through the call, and its length is correct.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    checked(result).map(drop)
}

#[inline]
fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[inline]
fn checked_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
