//! The limits on answers to senders whose address may be forged. With them, two servers tricked
//! into answering each other stop after a few datagrams, and a victim receives no more from this
//! server than the attacker has sent with the victim's address. Owns these limits; must never delay
//! a datagram, nor remember more than a fixed number of sources.

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

/// Ports of services that answer whatever they are sent: echo (RFC 862), systat (866), daytime
/// (867), qotd (865), chargen (864), time (868). No datagram comes from port 0. Two such services
/// would answer each other without end (CERT CA-1996-01, CVE-2024-2169).
const ANSWERING_PORTS: [u16; 7] = [0, 7, 11, 13, 17, 19, 37];
/// Replies per second to one source outside the loopback.
const RATE: f64 = 1000.0;
/// Replies that a source may get at once after a pause.
const BURST: f64 = 1000.0;
/// The number of buckets. Sources whose hashes select the same bucket share its rate.
const BUCKETS: usize = 4096;

/// Counts the UDP servers that this process has bound, so that a policy notices a new one.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Counts a UDP server that this process has bound.
pub(crate) fn note_server() {
    CHANGES.fetch_add(1, Relaxed);
}

/// Whether an address certainly belongs to this machine. Other addresses of this machine are
/// treated as remote.
pub(crate) fn is_loopback(address: SocketAddr) -> bool {
    canonical(address).ip().is_loopback()
}

/// Whether no service in Rust may answer this address, because what is there may answer anything,
/// or because it is not one host.
pub(super) fn is_suspect(from: SocketAddr) -> bool {
    ANSWERING_PORTS.contains(&from.port()) || !is_one_host(canonical(from).ip())
}

/// Whether a datagram was sent to one address, not to a broadcast or multicast address.
pub(super) fn was_unicast((to, own): (IpAddr, IpAddr)) -> bool {
    to == own && is_one_host(to)
}

/// Whether an address is neither unspecified nor a multicast address, nor the broadcast address of
/// every network. The broadcast address of one network looks like that of a host.
pub(crate) fn is_one_host(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Whether an address is the broadcast address of a network of this machine. The kernel refuses to
/// connect to such an address (EACCES) unless SO_BROADCAST is set.
pub(crate) fn is_broadcast(ip: IpAddr) -> bool {
    let IpAddr::V4(ip) = canonical((ip, 0).into()).ip() else { return false };
    let refused = |socket: UdpSocket| socket.connect((ip, 9)).err();
    let error = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok().and_then(refused);
    ip.is_broadcast() || error.is_some_and(|error| error.raw_os_error() == Some(libc::EACCES))
}

/// Decides, for one socket, which senders are admitted and answered.
pub(super) struct SenderPolicy {
    /// The addresses of this process's UDP servers when `CHANGES` was `changes`.
    servers: Vec<SocketAddr>,
    changes: u64,
    buckets: Option<Box<Buckets>>,
}

impl SenderPolicy {
    pub(super) fn new() -> Self {
        Self { servers: Vec::new(), changes: 0, buckets: None }
    }

    /// Whether a UDP server has started in this process since the addresses were last read.
    pub(super) fn has_changed(&self) -> bool {
        self.changes != CHANGES.load(Relaxed)
    }

    /// Whether a UDP server answers at this address: one of this process, or of another process
    /// that uses rsock.
    pub(super) fn is_server(&mut self, address: SocketAddr) -> bool {
        let address = canonical(address);
        if self.has_changed() {
            self.refresh_servers();
        }
        if self.servers.iter().any(|&server| answers_at(server, address)) {
            // A server that has ended no longer counts: a client may use its port now.
            self.refresh_servers();
            if self.servers.iter().any(|&server| answers_at(server, address)) {
                return true;
            }
        }
        PortClaim::is_claimed(address)
    }

    fn refresh_servers(&mut self) {
        self.changes = CHANGES.load(Relaxed);
        let servers = registry::all();
        let udp = servers.iter().filter(|server| server.context().transport == Transport::Udp);
        self.servers = udp.filter_map(|server| server.address()?.as_ip()).collect();
    }

    /// Takes one reply from the budget of a source outside the loopback. False if the budget is
    /// used up.
    pub(super) fn may_answer(&mut self, source: IpAddr) -> bool {
        self.buckets
            .get_or_insert_with(|| Box::new(Buckets::new(Instant::now())))
            .take(source, Instant::now())
    }
}

/// Whether the server bound to `server` answers at `address`.
fn answers_at(server: SocketAddr, address: SocketAddr) -> bool {
    server.port() == address.port()
        && (server.ip() == address.ip() || server.ip().is_unspecified() && is_local(address.ip()))
}

/// Whether an address belongs to this machine: only those can be bound.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Tells other processes on this machine that a server answers at an address. It is a name in the
/// abstract namespace of Unix sockets (unix(7)), which has the scope of a network namespace.
///
/// The name disappears with the process. Any process can take a name; the only effect is that
/// senders from that port get no answer.
pub(super) struct PortClaim {
    // Before the socket, so that the number leaves the fork table before the socket closes.
    _listed: Listed,
    _socket: UnixDatagram,
}

impl PortClaim {
    /// None if the process has no descriptor left or the name is taken: other processes do not
    /// learn of the server then.
    pub(super) fn new(address: SocketAddr) -> Option<Self> {
        let socket = UnixDatagram::bind_addr(&name(canonical(address)).ok()?).ok()?;
        Some(Self { _listed: Listed::new(&socket), _socket: socket })
    }

    /// Whether some process claims an address.
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
                taken(any) && is_local(address.ip())
            })
    }
}

/// Whether a server of this process or of another one claims an address.
pub(super) fn is_served(address: SocketAddr) -> bool {
    PortClaim::is_claimed(canonical(address))
}

fn name(address: SocketAddr) -> io::Result<UnixAddr> {
    UnixAddr::from_abstract_name(format!("rsock/udp/{}/{}", address.ip(), address.port()))
}

/// Token buckets in a table of fixed size: how many replies each source may still get. Sources in
/// the same bucket share it.
struct Buckets {
    key: RandomState,
    start: Instant,
    /// Tokens, and the time at which they were counted, in seconds since `start`.
    buckets: Vec<(f64, f64)>,
}

impl Buckets {
    fn new(start: Instant) -> Self {
        Self { key: RandomState::new(), start, buckets: vec![(BURST, 0.0); BUCKETS] }
    }

    fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        // A host with an IPv6 address usually has a whole /64 of them.
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
    fn the_port_of_a_service_that_answers_anything_or_an_address_of_many_hosts_is_suspect() {
        for from in ["192.0.2.1:0", "192.0.2.1:7", "[::1]:19", "0.0.0.0:4000", "224.0.0.1:4000"] {
            assert!(is_suspect(from.parse().unwrap()), "{from}");
        }
        for from in ["255.255.255.255:4000", "[ff02::1]:4000", "[::ffff:224.0.0.1]:4000"] {
            assert!(is_suspect(from.parse().unwrap()), "{from}");
        }
        for from in ["192.0.2.1:123", "[::1]:53", "[2001:db8::1]:4000", "127.0.0.1:65535"] {
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
        // Other sources are not affected, apart from those in the same bucket.
        let others = (0..100).map(|n| IpAddr::from([198, 51, 100, n]));
        assert!(others.filter(|&other| buckets.take(other, start)).count() > 90);
    }
}
