//! Forwarders that would lead back to themselves. Owns what is known of the connections that forwarders
//! of this process have opened; must never open a connection, nor keep one alive.
//!
//! Two nets: before a server starts, where its target leads to is followed through the servers of
//! this process. While it runs, each connection that a forwarder opens is written down together with
//! the forwarders it has come through, so that one that comes back, by whatever way the first net does
//! not see (a name that has moved, two that started at the same moment), is known by its addresses.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, LazyLock, Once};

use super::registry;
use super::registry::Registered;
use crate::net::address::{Address, Endpoint, Transport, UnixName};
use crate::net::base::{Held, HeldAcrossFork, Mutex, MutexGuard, fork, lock};
use crate::net::service::{ForwarderId, Site};
use crate::net::socket::FileId;

/// A connection by its two ends: the side that connects first. With a Unix socket the other one may have
/// several names, and that of the side which connects is enough.
type FlowKey = (Endpoint, Address);

fn flow(from: Endpoint, to: Address) -> FlowKey {
    let to = if to.as_unix().is_some() { Address::Unix(UnixName::unnamed()) } else { to };
    (from, to)
}

/// The connections that forwarders of this process have open, and through which forwarders each has
/// come.
static OPENED: LazyLock<Mutex<Flows>> = LazyLock::new(Mutex::default);
type Flows = HashMap<FlowKey, Arc<[ForwarderId]>>;

thread_local! {
    static HELD: Held<Flows> = const { Held::new(None) };
}

struct ForkHook;

impl HeldAcrossFork for ForkHook {
    fn hold(&self) {
        lock::hold(&HELD, &OPENED);
    }

    fn release(&self) {
        lock::release(&HELD);
    }
}

/// The table; from its first use on it is held across forks.
fn opened() -> &'static Mutex<Flows> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| fork::hold_across(&ForkHook));
    &OPENED
}

/// The forwarders of this process that a connection has come through on its way to us; none for one
/// that comes from anywhere else.
pub(crate) fn trail(local: Endpoint, remote: Endpoint) -> Arc<[ForwarderId]> {
    opened().lock().get(&flow(remote, local.address)).cloned().unwrap_or_default()
}

/// The list while a connection is being opened: whoever accepts it meanwhile waits, to find it there.
pub(crate) struct Opening(MutexGuard<'static, Flows>);

impl Opening {
    /// To be held over a connect that does not wait.
    pub(crate) fn begin() -> Self {
        Self(opened().lock())
    }

    /// Writes down the connection that was opened, with the forwarders before this one.
    pub(crate) fn done(
        mut self,
        local: Endpoint,
        remote: Endpoint,
        trail: &[ForwarderId],
        own: ForwarderId,
    ) -> Opened {
        let flow = flow(local, reached(remote.address));
        self.0.insert(flow.clone(), trail.iter().copied().chain([own]).collect());
        Opened(flow)
    }
}

/// A connection that a forwarder has opened; forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Opened(FlowKey);

impl Drop for Opened {
    fn drop(&mut self) {
        opened().lock().remove(&self.0);
    }
}

/// What one connects with who asks for the unspecified address: this machine.
pub(crate) fn reached(address: Address) -> Address {
    match address.canonical() {
        Address::Ip(ip) => Address::Ip(reached_ip(ip)),
        unix => unix,
    }
}

fn reached_ip(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), v4.port())
        }
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), v6.port())
        }
        address => address,
    }
}

/// Whether what goes to `target` comes to `site`, directly or through other servers of this process.
pub(crate) fn leads_back(target: &Address, site: &Site) -> bool {
    let datagrams = site.local.transport == Transport::Udp;
    let mut seen = Vec::new();
    let mut ahead = vec![reached(target.clone())];
    while let Some(next) = ahead.pop() {
        if is_at(&next, site) {
            return true;
        }
        if !seen.contains(&next) {
            ahead.extend(beyond(&next, datagrams).into_iter().map(|hop| reached(hop.address)));
            seen.push(next);
        }
    }
    false
}

/// Where the server of this process that is reached at `address` forwards connections to.
fn beyond(address: &Address, datagrams: bool) -> Vec<Endpoint> {
    let servers = registry::all();
    let reached = |server: &&Arc<dyn Registered>| {
        (server.context().transport == Transport::Udp) == datagrams
            && server.site().is_some_and(|site| is_at(address, &site))
    };
    servers.iter().filter(reached).flat_map(|server| server.leads_to()).collect()
}

/// Whether what connects to `target` is accepted at `site`.
pub(crate) fn is_at(target: &Address, site: &Site) -> bool {
    match (&site.local.address, target) {
        (Address::Ip(own), Address::Ip(target)) => is_at_ip(*target, *own, site.dual_stack),
        // A file may have several names.
        (Address::Unix(own), Address::Unix(target)) => {
            own == target || FileId::of(own).is_some_and(|file| FileId::of(target) == Some(file))
        }
        _ => false,
    }
}

fn is_at_ip(target: SocketAddr, own: SocketAddr, dual_stack: bool) -> bool {
    if own.port() != target.port() {
        return false;
    }
    match own.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => target.is_ipv4() && is_our_ip(target),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            (target.is_ipv6() || dual_stack) && is_our_ip(target)
        }
        ip => ip == target.ip(),
    }
}

/// Whether an address is one of this machine's: only such a one can be bound to.
pub(crate) fn is_ours(address: &Address) -> bool {
    address.as_ip().is_none_or(is_our_ip)
}

fn is_our_ip(mut address: SocketAddr) -> bool {
    address.set_port(0);
    address.ip().is_loopback() || UdpSocket::bind(reached_ip(address)).is_ok()
}
