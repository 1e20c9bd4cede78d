//! Socket addresses as the kernel represents them, ip(7), ipv6(7). Also maps interface names to
//! numbers, netdevice(7). Must never hold state, decide anything, or know what a server is.

use std::ffi::{CStr, CString};
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// An IPv4 or IPv6 address as the kernel reads or writes it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Name {
    // The larger of the two; both begin with the family.
    pub(super) raw: libc::sockaddr_in6,
    pub(super) length: libc::socklen_t,
}

impl Name {
    /// Size of the largest address.
    pub(super) const ROOM: libc::socklen_t = size_of::<libc::sockaddr_in6>() as libc::socklen_t;

    /// A buffer for an address.
    pub(crate) fn room() -> Self {
        // SAFETY: sockaddr_in6 is plain old data for which all zeroes is a valid value.
        Self { raw: unsafe { mem::zeroed() }, length: Self::ROOM }
    }

    pub(crate) fn new(address: SocketAddr) -> Self {
        let address = socket2::SockAddr::from(address);
        let mut name = Self::room();
        name.length = address.len().min(Self::ROOM);
        // SAFETY: the source is valid for its length, the destination for at least as much.
        unsafe {
            std::ptr::copy_nonoverlapping(
                address.as_ptr().cast::<u8>(),
                (&raw mut name.raw).cast::<u8>(),
                name.length as usize,
            );
        }
        name
    }

    /// The address; None if the kernel omitted it.
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
