//! Endpoints: transport, address, their text, and the rules for valid hosts and ports. Must never
//! use a resolver; that is `resolve`.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, SockAddr};

use super::unix_name::UnixName;
use crate::net::sys;

/// The protocol that carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP over IPv4 or IPv6 (RFC 9293).
    Tcp,
    /// UDP over IPv4 or IPv6 (RFC 768).
    Udp,
    /// A stream between processes of one machine, unix(7).
    Unix,
    /// Datagrams between processes of one machine, unix(7).
    UnixDatagram,
}

impl Transport {
    /// The name in Python's API and in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Unix => "unix",
            Self::UnixDatagram => "unix-datagram",
        }
    }

    /// Whether each send is a message of its own.
    #[must_use]
    pub fn is_datagram(self) -> bool {
        matches!(self, Self::Udp | Self::UnixDatagram)
    }

    /// Whether its addresses are names of Unix sockets.
    #[must_use]
    pub fn is_unix(self) -> bool {
        matches!(self, Self::Unix | Self::UnixDatagram)
    }
}

/// The address of a socket: an IP address with a port, or the name of a Unix socket. Cheap to
/// clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// An IPv4 or IPv6 address with a port.
    Ip(SocketAddr),
    /// A path, an abstract name, or no name.
    Unix(UnixName),
}

impl Address {
    /// The IP address and port; None for a Unix socket.
    #[must_use]
    pub fn as_ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The name of a Unix socket; None for an IP address.
    #[must_use]
    pub fn as_unix(&self) -> Option<&UnixName> {
        match self {
            Self::Ip(_) => None,
            Self::Unix(name) => Some(name),
        }
    }

    /// The address family of sockets with this address.
    #[must_use]
    pub(crate) fn domain(&self) -> Domain {
        match self {
            Self::Ip(address) => Domain::for_address(*address),
            Self::Unix(_) => Domain::UNIX,
        }
    }

    /// The kernel's form.
    pub(crate) fn to_raw(&self) -> io::Result<SockAddr> {
        match self {
            Self::Ip(address) => Ok((*address).into()),
            Self::Unix(name) => name.to_raw(),
        }
    }

    /// From the kernel's form; None for an unsupported family.
    pub(crate) fn from_raw(address: &SockAddr) -> Option<Self> {
        let ip = address.as_socket().map(Self::Ip);
        ip.or_else(|| UnixName::from_raw(address).map(Self::Unix))
    }

    /// The same address, with an IPv4-mapped IPv6 address as plain IPv4: an IPv4 peer of a
    /// dual-stack port.
    #[must_use]
    pub fn canonical(self) -> Self {
        match self {
            Self::Ip(address) => Self::Ip(canonical(address)),
            Self::Unix(_) => self,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl From<&Address> for Address {
    fn from(address: &Address) -> Self {
        address.clone()
    }
}

impl From<UnixName> for Address {
    fn from(name: UnixName) -> Self {
        Self::Unix(name)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => f.write_str(&display(address)),
            Self::Unix(name) => name.fmt(f),
        }
    }
}

/// Transport and address of one side. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The protocol that carries the bytes.
    pub transport: Transport,
    /// The address; IPv4-mapped IPv6 addresses are stored as IPv4.
    pub address: Address,
}

impl Endpoint {
    /// A TCP endpoint.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        Self::new(Transport::Tcp, address)
    }

    /// An endpoint of a transport that uses hosts and ports.
    #[must_use]
    pub fn new(transport: Transport, address: SocketAddr) -> Self {
        Self { transport, address: canonical(address).into() }
    }

    /// A UDP endpoint.
    #[must_use]
    pub fn udp(address: SocketAddr) -> Self {
        Self::new(Transport::Udp, address)
    }

    /// An endpoint of a stream: TCP for an IP address, else a Unix socket.
    #[must_use]
    pub fn stream(address: Address) -> Self {
        match address {
            Address::Ip(address) => Self::tcp(address),
            Address::Unix(_) => Self { transport: Transport::Unix, address },
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Converts `::ffff:a.b.c.d`, an IPv4 peer of a dual-stack port, to plain IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

/// The host part as users write it, with the interface name of a scope.
#[must_use]
pub fn host_text(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => {
            let scope =
                sys::interface_name(v6.scope_id()).unwrap_or_else(|| v6.scope_id().to_string());
            format!("{}%{scope}", v6.ip())
        }
        _ => address.ip().to_string(),
    }
}

/// The text of an address: `127.0.0.1:80`, `[::1]:80`, `[fe80::1%eth0]:80`.
#[must_use]
pub fn display(address: &SocketAddr) -> String {
    host_port(&host_text(address), address.port())
}

pub(crate) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_peers_are_shown_as_ipv4() {
        let mapped = Address::Ip("[::ffff:192.0.2.1]:80".parse().unwrap());
        assert_eq!(Endpoint::stream(mapped).to_string(), "192.0.2.1:80");
        assert_eq!(
            Endpoint::tcp("[2001:db8::1]:80".parse().unwrap()).to_string(),
            "[2001:db8::1]:80"
        );
    }
}
