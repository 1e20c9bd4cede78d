//! The multicast groups that a UDP socket joins, ip(7), ipv6(7). Owns the memberships that callers
//! name; must never send or receive a datagram.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;

use crate::net::error::{Error, Result};
use crate::net::sys;

/// linux/in6.h; not in the `libc` crate.
const IPV6_MULTICAST_ALL: i32 = 29;

/// One group, joined on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The address of the group.
    pub group: IpAddr,
    /// Where it is joined.
    pub interface: Interface,
}

/// An interface of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// The one that the system's routes select.
    Any,
    /// By one of its IPv4 addresses.
    Address(Ipv4Addr),
    /// By its name, such as eth0.
    Name(String),
    /// By its number.
    Index(u32),
}

impl Membership {
    /// `Error::Value` unless the group is a multicast address and the interface fits its family.
    pub fn new(group: IpAddr, interface: Interface) -> Result<Self> {
        if !group.is_multicast() {
            return Err(Error::Value(format!(
                "multicast group {group}: not a multicast address; those are 224.0.0.0 to \
                 239.255.255.255, and ff00::/8"
            )));
        }
        if let (IpAddr::V6(_), Interface::Address(address)) = (group, &interface) {
            return Err(Error::Value(format!(
                "multicast group {group} on {address}: give the name or the number of an interface"
            )));
        }
        Ok(Self { group, interface })
    }

    /// Joins the group: IP_ADD_MEMBERSHIP, IPV6_ADD_MEMBERSHIP. From then on the socket hears only
    /// the groups that it has joined itself (IP_MULTICAST_ALL off), and what it sends to a group
    /// leaves by this interface.
    pub(crate) fn join(&self, fd: &impl AsFd) -> io::Result<()> {
        let fd = fd.as_fd();
        let index = match &self.interface {
            Interface::Any | Interface::Address(_) => 0,
            Interface::Index(index) => *index,
            Interface::Name(name) => sys::interface_index(name)
                .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?,
        };
        let off = 0i32.to_ne_bytes();
        match self.group {
            IpAddr::V4(group) => {
                let address = match self.interface {
                    Interface::Address(address) => address,
                    _ => Ipv4Addr::UNSPECIFIED,
                };
                let request = ip_mreqn(group, address, index);
                sys::setsockopt(fd, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request)?;
                sys::setsockopt(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, &off)?;
                if self.interface != Interface::Any {
                    sys::setsockopt(fd, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)?;
                }
            }
            IpAddr::V6(group) => {
                let request = ipv6_mreq(group, index);
                sys::setsockopt(fd, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &request)?;
                // Linux 4.20; before it the socket hears the groups of other sockets too.
                let _ = sys::setsockopt(fd, libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, &off);
                if index != 0 {
                    let index = index.to_ne_bytes();
                    sys::setsockopt(fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, &index)?;
                }
            }
        }
        Ok(())
    }

    /// The group and the interface, as in "224.0.0.251%eth0".
    pub(crate) fn text(&self) -> String {
        match &self.interface {
            Interface::Any => self.group.to_string(),
            Interface::Address(address) => format!("{}%{address}", self.group),
            Interface::Name(name) => format!("{}%{name}", self.group),
            Interface::Index(index) => format!("{}%{index}", self.group),
        }
    }
}

/// struct ip_mreqn: the group, an address of the interface, the number of the interface.
fn ip_mreqn(group: Ipv4Addr, address: Ipv4Addr, index: u32) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&group.octets());
    bytes[4..8].copy_from_slice(&address.octets());
    bytes[8..].copy_from_slice(&index.to_ne_bytes());
    bytes
}

/// struct ipv6_mreq: the group, the number of the interface.
fn ipv6_mreq(group: Ipv6Addr, index: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..16].copy_from_slice(&group.octets());
    bytes[16..].copy_from_slice(&index.to_ne_bytes());
    bytes
}
