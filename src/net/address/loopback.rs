//! The address at which a client of the same machine reaches a socket. Must never open a socket
//! except to test whether an address is this machine's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The address to connect to for a socket that is bound to `bound`: the loopback, if that is every
/// address. Where the machine has no `::1`, a socket that serves both families is reached over
/// IPv4. Never blocks.
#[must_use]
pub fn reachable(bound: SocketAddr, dual_stack: bool) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            // EADDRNOTAVAIL where IPv6 is disabled.
            let has_loopback = || UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
            if dual_stack && !has_loopback() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            }
        }
        _ => return bound,
    };
    SocketAddr::new(ip, bound.port())
}
