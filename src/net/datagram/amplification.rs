//! Who gets no answer. A datagram's sender is whoever it says it is: these rules see to it that two
//! servers set on each other fall silent, and that nobody gets more from us than a stranger has spent in
//! his name. Must never hold a datagram up, nor keep more than a fixed number of sources in mind.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::net::address::{Transport, canonical};
use crate::net::base::Listed;
use crate::net::control::registry;

/// Ports below this are servers' (RFC 6335, "system ports"), and no client has them.
const FIRST_CLIENT_PORT: u16 = 1024;
/// Replies a second to one source that is not on this machine...
const RATE: f64 = 1000.0;
/// ...and so many at once.
const BURST: f64 = 1000.0;
/// Sources are told apart as far as they fall into different buckets of so many.
const BUCKETS: usize = 4096;

/// Counts the UDP servers of this process that ever had an address, so that a change is seen.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// A UDP server of this process has been given its address.
pub(crate) fn note_server() {
    CHANGES.fetch_add(1, Relaxed);
}

/// Whether an address is this machine's for certain. Others may be, too; they are treated as strangers'.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    canonical(address).ip().is_loopback()
}

/// Whether nobody can be a client from there.
pub(super) fn is_suspect(from: SocketAddr) -> bool {
    from.port() < FIRST_CLIENT_PORT || !is_one_host(canonical(from).ip())
}

/// Whether it was sent to one address, and not to all that listen.
pub(super) fn was_for_us((to, own): (IpAddr, IpAddr)) -> bool {
    to == own && is_one_host(to)
}

fn is_one_host(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// What decides for one port who is let in and who is answered.
pub(super) struct SenderPolicy {
    /// The addresses of the UDP servers of this process, when there were so many changes.
    servers: Vec<SocketAddr>,
    changes: u64,
    buckets: Option<Box<Buckets>>,
}

impl SenderPolicy {
    pub(super) fn new() -> Self {
        Self { servers: Vec::new(), changes: 0, buckets: None }
    }

    /// Whether there are servers that were not known when the peers of now were let in.
    pub(super) fn has_changed(&self) -> bool {
        self.changes != CHANGES.load(Relaxed)
    }

    /// Whether a UDP server answers at this address: one of this process, or of another one that runs
    /// rsock.
    pub(super) fn is_server(&mut self, address: SocketAddr) -> bool {
        let address = canonical(address);
        if self.has_changed() {
            self.look_around();
        }
        if self.servers.iter().any(|&server| answers_at(server, address)) {
            // One that has ended is not a server any more, and its port may be a client's now.
            self.look_around();
            if self.servers.iter().any(|&server| answers_at(server, address)) {
                return true;
            }
        }
        PortClaim::is_claimed(address)
    }

    fn look_around(&mut self) {
        self.changes = CHANGES.load(Relaxed);
        let servers = registry::all();
        let udp = servers.iter().filter(|server| server.context().transport == Transport::Udp);
        self.servers = udp.filter_map(|server| server.address()?.as_ip()).collect();
    }

    /// Takes one reply to a source that is not on this machine out of what it has left.
    pub(super) fn may_answer(&mut self, source: IpAddr) -> bool {
        self.buckets
            .get_or_insert_with(|| Box::new(Buckets::new(Instant::now())))
            .take(source, Instant::now())
    }
}

/// Whether what answers at `server` answers at `address`.
fn answers_at(server: SocketAddr, address: SocketAddr) -> bool {
    server.port() == address.port()
        && (server.ip() == address.ip() || server.ip().is_unspecified() && is_own(address.ip()))
}

/// Whether an address is this machine's: only those can be bound to.
fn is_own(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// A server's word to other processes on this machine that it answers at an address: a name in the abstract
/// namespace of Unix sockets, which is as wide as the network that they share.
///
/// The name ends with the process. Anybody may take one; all that comes of it is that whoever sends
/// from that port gets no answer.
pub(super) struct PortClaim {
    // Before the socket, so that the number leaves the fork table before it is closed.
    _listed: Listed,
    _socket: UnixDatagram,
}

impl PortClaim {
    /// Without one, where the system has no descriptor left or somebody has the name: other processes
    /// then do not know.
    pub(super) fn new(address: SocketAddr) -> Option<Self> {
        let socket = UnixDatagram::bind_addr(&name(canonical(address)).ok()?).ok()?;
        Some(Self { _listed: Listed::new(&socket), _socket: socket })
    }

    /// Whether some process says that it answers at an address.
    fn is_claimed(address: SocketAddr) -> bool {
        let Ok(probe) = UnixDatagram::unbound() else { return false };
        let taken = |address| {
            let Ok(name) = name(address) else { return false };
            probe.connect_addr(&name).is_ok()
        };
        let mut any = address;
        let (v4, v6) = (Ipv4Addr::UNSPECIFIED.into(), std::net::Ipv6Addr::UNSPECIFIED.into());
        taken(address)
            || [v4, v6].into_iter().any(|ip| {
                any.set_ip(ip);
                taken(any) && is_own(address.ip())
            })
    }
}

/// Whether a server, of this process or of another, says that it answers at an address.
pub(super) fn is_served(address: SocketAddr) -> bool {
    PortClaim::is_claimed(canonical(address))
}

fn name(address: SocketAddr) -> io::Result<UnixAddr> {
    UnixAddr::from_abstract_name(format!("rsock/udp/{}/{}", address.ip(), address.port()))
}

/// How many replies each source may still get: token buckets, in a table that never grows. Sources that fall
/// into the same one share it.
struct Buckets {
    key: RandomState,
    start: Instant,
    /// Tokens, and when they were counted, in seconds since `start`.
    buckets: Vec<(f64, f64)>,
}

impl Buckets {
    fn new(start: Instant) -> Self {
        Self { key: RandomState::new(), start, buckets: vec![(BURST, 0.0); BUCKETS] }
    }

    fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        // One who has an IPv6 address mostly has 2^64 of them.
        let source = match canonical((source, 0).into()).ip() {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        let index = self.key.hash_one(source) as usize % BUCKETS;
        let now = now.duration_since(self.start).as_secs_f64();
        let (tokens, counted) = &mut self.buckets[index];
        *tokens = (*tokens + (now - *counted) * RATE).min(BURST);
        *counted = now;
        let enough = *tokens >= 1.0;
        if enough {
            *tokens -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nobody_is_a_client_from_a_servers_port_or_from_everywhere() {
        for from in ["192.0.2.1:0", "192.0.2.1:1023", "[::1]:53", "0.0.0.0:4000", "224.0.0.1:4000"]
        {
            assert!(is_suspect(from.parse().unwrap()), "{from}");
        }
        for from in ["255.255.255.255:4000", "[ff02::1]:4000", "[::ffff:224.0.0.1]:4000"] {
            assert!(is_suspect(from.parse().unwrap()), "{from}");
        }
        for from in ["192.0.2.1:1024", "[2001:db8::1]:4000", "127.0.0.1:65535"] {
            assert!(!is_suspect(from.parse().unwrap()), "{from}");
        }
    }

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let start = Instant::now();
        let mut buckets = Buckets::new(start);
        let source = "192.0.2.1".parse().unwrap();
        let got = |buckets: &mut Buckets, at| {
            std::iter::repeat_with(|| buckets.take(source, at)).take_while(|&taken| taken).count()
        };
        assert_eq!(got(&mut buckets, start), BURST as usize);
        assert_eq!(got(&mut buckets, start + Duration::from_millis(100)), RATE as usize / 10);
        assert_eq!(got(&mut buckets, start + Duration::from_secs(3600)), BURST as usize);
        // Another one is not held to it, but for the one in thousands that shares its bucket.
        let others = (0..100).map(|n| IpAddr::from([198, 51, 100, n]));
        assert!(others.filter(|&other| buckets.take(other, start)).count() > 90);
    }
}
