//! The count of forwarders that a connection within this machine has passed. Owns how it travels
//! from one process to the next; must never decide what is too many.
//!
//! A process knows the connections of its own forwarders, and not those of another one. So a
//! forwarder lets each connection that it opens carry the count: in the TTL of its packets (RFC
//! 791), which no router within a machine changes, or in the name of a Unix socket. Without a
//! count, as with any other client, it is 0.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use socket2::Domain;

use crate::net::address::{Address, UnixName};
use crate::net::sys;

/// The largest count that a TTL is taken for: further below the system's value it has another
/// reason.
const MOST: u8 = 32;
/// linux/tcp.h; not in the `libc` crate for every target.
const TCP_SAVE_SYN: i32 = 27;
const TCP_SAVED_SYN: i32 = 28;
/// Room for the headers of IP and TCP, with options.
const SYN: usize = 192;
/// What the names of Unix sockets that carry a count begin with.
const NAME: &str = "\0rsock/hops/";

/// Makes the kernel keep the first packet of each connection that a TCP listener accepts. Where it
/// cannot, every count is 0.
pub(crate) fn keep_first_packets(listener: &impl AsFd) {
    let fd = listener.as_fd();
    let _ = sys::setsockopt(fd, libc::IPPROTO_TCP, TCP_SAVE_SYN, &1i32.to_ne_bytes());
}

/// Makes the kernel report the TTL of each datagram. Where it cannot, every count is 0.
pub(crate) fn report_with_datagrams(socket: &impl AsFd) {
    let on = 1i32.to_ne_bytes();
    let fd = socket.as_fd();
    // An IPv6 socket may have IPv4 peers, so both levels are set.
    let _ = sys::setsockopt(fd, libc::IPPROTO_IP, libc::IP_RECVTTL, &on);
    let _ = sys::setsockopt(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT, &on);
}

/// The count of an accepted connection between these addresses.
pub(crate) fn of_stream(socket: &impl AsFd, local: &Address, remote: &Address) -> u8 {
    match (local, remote) {
        (_, Address::Unix(name)) => of_name(name),
        (Address::Ip(local), Address::Ip(remote)) if is_within(local.ip(), remote.ip()) => {
            let mut packet = [0; SYN];
            let read =
                sys::getsockopt(socket.as_fd(), libc::IPPROTO_TCP, TCP_SAVED_SYN, &mut packet);
            let Ok(length) = read else { return 0 };
            let packet = &packet[..length.min(SYN)];
            // Version 4 has the TTL in its ninth byte, version 6 the hop limit in its eighth.
            let ttl = match packet.first().map(|first| first >> 4) {
                Some(4) => packet.get(8),
                Some(6) => packet.get(7),
                _ => None,
            };
            ttl.map_or(0, |&ttl| of_ttl(socket, remote.ip(), ttl))
        }
        _ => 0,
    }
}

/// The count of a datagram from `remote` to `local`, from its control messages.
pub(crate) fn of_datagram(socket: &impl AsFd, local: IpAddr, remote: IpAddr, control: &[u8]) -> u8 {
    if !is_within(local, remote) {
        return 0;
    }
    let ttl = sys::control_messages(control).find_map(|(level, kind, data)| match (level, kind) {
        (libc::IPPROTO_IP, libc::IP_TTL) if remote.is_ipv4() => data.get(..4),
        (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) if remote.is_ipv6() => data.get(..4),
        _ => None,
    });
    let ttl = ttl.and_then(|data| Some(i32::from_ne_bytes(data.try_into().ok()?)));
    ttl.and_then(|ttl| u8::try_from(ttl).ok()).map_or(0, |ttl| of_ttl(socket, remote, ttl))
}

/// Makes an IP socket carry a count, before its connect.
pub(crate) fn mark(socket: &impl AsFd, domain: Domain, count: u8) {
    let (level, name) = ttl_option(domain == Domain::IPV6);
    let Some(usual) = usual_ttl(socket, level, name) else { return };
    let ttl = i32::from(usual.saturating_sub(count).max(1));
    let _ = sys::setsockopt(socket.as_fd(), level, name, &ttl.to_ne_bytes());
}

/// A name for a Unix socket that carries a count.
pub(crate) fn name(count: u8) -> UnixName {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("{NAME}{count}/{:x}.{:x}", *PROCESS, NUMBER.fetch_add(1, Relaxed));
    UnixName::new(name.as_bytes()).unwrap_or_else(|_| UnixName::unnamed())
}

fn of_name(name: &UnixName) -> u8 {
    let text = name.bytes().strip_prefix(NAME.as_bytes());
    let text = text.and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| text.split('/').next()?.parse().ok()).unwrap_or(0)
}

/// Whether packets between two addresses stay within this machine, as far as the addresses show.
fn is_within(local: IpAddr, remote: IpAddr) -> bool {
    local == remote || remote.is_loopback()
}

fn of_ttl(socket: &impl AsFd, remote: IpAddr, ttl: u8) -> u8 {
    let (level, name) = ttl_option(remote.is_ipv6());
    let count = usual_ttl(socket, level, name).and_then(|usual| usual.checked_sub(ttl));
    count.filter(|&count| count <= MOST).unwrap_or(0)
}

fn ttl_option(v6: bool) -> (i32, i32) {
    if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS)
    } else {
        (libc::IPPROTO_IP, libc::IP_TTL)
    }
}

/// The TTL that the system gives a socket.
fn usual_ttl(socket: &impl AsFd, level: i32, name: i32) -> Option<u8> {
    let mut ttl = [0; 4];
    sys::getsockopt(socket.as_fd(), level, name, &mut ttl).ok()?;
    u8::try_from(i32::from_ne_bytes(ttl)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_carries_its_count() {
        let names = [name(7), name(7)];
        assert_ne!(names[0], names[1]);
        assert!(names.iter().all(|name| of_name(name) == 7));
        for other in ["\0other", "/tmp/x.sock", "\0rsock/hops/", "\0rsock/hops/999/1.1"] {
            assert_eq!(of_name(&UnixName::new(other.as_bytes()).unwrap()), 0, "{other:?}");
        }
        assert_eq!(of_name(&UnixName::unnamed()), 0);
    }
}
