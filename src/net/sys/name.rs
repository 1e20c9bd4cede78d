//! Socket addresses as the kernel represents them, ip(7), ipv6(7). Also maps interface names to
//! numbers, netdevice(7). Must never hold state, decide anything, or know what a server is.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice};

/// An IPv4 or IPv6 address, or the name of a Unix socket, as the kernel reads or writes it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Name {
    pub(super) raw: RawName,
    pub(super) length: libc::socklen_t,
}

/// The bytes of a sockaddr_un, which has room for a sockaddr_in6 too, aligned as either. The family
/// is in the byte order of the machine, ports are in that of the network.
#[repr(C, align(4))]
#[derive(Clone, Copy)]
pub(super) struct RawName([u8; Name::ROOM as usize]);

/// Where the name of a Unix socket begins, behind the family.
const PATH: usize = std::mem::offset_of!(libc::sockaddr_un, sun_path);

impl Name {
    /// Size of the largest address.
    pub(super) const ROOM: libc::socklen_t = size_of::<libc::sockaddr_un>() as libc::socklen_t;

    /// A buffer for an address.
    pub(crate) fn room() -> Self {
        Self { raw: RawName([0; Self::ROOM as usize]), length: Self::ROOM }
    }

    pub(crate) fn new(address: SocketAddr) -> Self {
        let mut name = Self::room();
        let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        name.put(0, &(family as libc::sa_family_t).to_ne_bytes());
        name.put(2, &address.port().to_be_bytes());
        match address {
            SocketAddr::V4(address) => {
                name.put(4, &address.ip().octets());
                name.length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
            SocketAddr::V6(address) => {
                // Kept as the kernel has it, as the standard library does.
                name.put(4, &address.flowinfo().to_ne_bytes());
                name.put(8, &address.ip().octets());
                name.put(24, &address.scope_id().to_ne_bytes());
                name.length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            }
        }
        name
    }

    /// Of a Unix socket with this name: a path, or an abstract name, which begins with a NUL.
    pub(crate) fn of_unix(name: &[u8]) -> Self {
        let mut to = Self::room();
        to.put(0, &(libc::AF_UNIX as libc::sa_family_t).to_ne_bytes());
        // A longer name is refused where a name is made, so the NUL behind a path has room.
        let length = name.len().min(Self::ROOM as usize - PATH - 1);
        to.put(PATH, &name[..length]);
        let has_nul = name.first() != Some(&0);
        to.length = (PATH + length + usize::from(has_nul)) as libc::socklen_t;
        to
    }

    /// The bytes of an address that the kernel or the C library has written.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut name = Self::room();
        let length = bytes.len().min(Self::ROOM as usize);
        name.put(0, &bytes[..length]);
        name.length = length as libc::socklen_t;
        name
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.raw.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        std::array::from_fn(|index| self.raw.0[at + index])
    }

    /// The bytes of the name of a Unix socket, without the NUL behind a path; none for a socket
    /// without a name, which the kernel may omit.
    pub(crate) fn unix(&self) -> &[u8] {
        let end = (self.length as usize).min(Self::ROOM as usize);
        match self.raw.0.get(PATH..end).unwrap_or_default() {
            abstract_name @ [0, ..] => abstract_name,
            path => path.split(|&byte| byte == 0).next().unwrap_or_default(),
        }
    }

    /// The same, if it is the name of a Unix socket.
    pub(crate) fn unix_name(&self) -> Option<&[u8]> {
        let family = libc::sa_family_t::from_ne_bytes(self.get(0));
        (self.length > 0 && i32::from(family) == libc::AF_UNIX).then(|| self.unix())
    }

    /// The IP address; None if the kernel omitted it, or of another family.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        if self.length == 0 {
            return None;
        }
        let port = u16::from_be_bytes(self.get(2));
        match libc::c_int::from(libc::sa_family_t::from_ne_bytes(self.get(0))) {
            libc::AF_INET => Some(SocketAddrV4::new(Ipv4Addr::from(self.get::<4>(4)), port).into()),
            libc::AF_INET6 => {
                let ip = Ipv6Addr::from(self.get::<16>(8));
                let flow = u32::from_ne_bytes(self.get(4));
                let scope = u32::from_ne_bytes(self.get(24));
                Some(SocketAddrV6::new(ip, port, flow, scope).into())
            }
            _ => None,
        }
    }
}

/// A socket to ask about interfaces by.
fn any_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?)
}

/// Interface number of a scope name (`eth0` in `fe80::1%eth0`), as if_nametoindex(3) returns it.
pub(crate) fn interface_index(name: &str) -> Option<u32> {
    netdevice::name_to_index(any_socket().ok()?, name).ok()
}

/// Name of an interface, as if_indextoname(3) returns it.
pub(crate) fn interface_name(index: u32) -> Option<String> {
    netdevice::index_to_name(any_socket().ok()?, index).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_form_of_the_kernel() {
        for address in ["127.0.0.1:80", "0.0.0.0:0", "[::1]:65535", "[fe80::1%7]:443"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(Name::new(address).address(), Some(address));
            // As the C library lays it out.
            let raw = socket2::SockAddr::from(address);
            assert_eq!(raw.len(), Name::new(address).length);
        }
        let address = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 1, 2, 3).into();
        assert_eq!(Name::new(address).address(), Some(address));
        assert_eq!(Name { length: 0, ..Name::new(address) }.address(), None);
        assert_eq!(Name::room().address(), None);
    }

    #[test]
    fn the_kernel_reads_and_writes_the_same_addresses() {
        let [one, other] = [(); 2].map(|()| std::net::UdpSocket::bind("[::1]:0"));
        let (Ok(one), Ok(other)) = (one, other) else { return };
        let to = other.local_addr().unwrap();
        crate::net::sys::send_to(std::os::fd::AsFd::as_fd(&one), b"x", to, 0).unwrap();
        let mut from = Name::room();
        let fd = std::os::fd::AsFd::as_fd(&other);
        crate::net::sys::recvmsg(fd, &mut [], &mut [], &mut from, 0).unwrap();
        assert_eq!(from.address(), Some(one.local_addr().unwrap()));
    }

    #[test]
    fn interfaces_have_names_and_numbers() {
        let number = interface_index("lo").unwrap();
        assert_eq!(interface_name(number).as_deref(), Some("lo"));
        assert_eq!(interface_index("no such name"), None);
        assert_eq!(interface_index(&"x".repeat(300)), None);
        assert_eq!(interface_index("l\0o"), None);
        assert_eq!(interface_name(0), None);
    }
}
