//! Detection of forwarders that lead back to themselves. Owns the table of connections that
//! forwarders of this process have opened; must never open a connection, nor keep one alive.
//!
//! There are three checks. Before a server starts, its target is followed through the servers of
//! this process. While it runs, each connection that a forwarder opens is registered together with
//! the forwarders that it has passed. A connection that comes back is then recognised by its
//! addresses, including cases that the first check misses: a name that resolves differently now,
//! two servers that started at the same moment. A loop through other processes is noticed by the
//! number of forwarders that a connection has passed (`socket/hops.rs`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, LazyLock, Once};

use super::registry;
use super::registry::Registered;
use crate::net::address::{Address, Endpoint, Transport, UnixName};
use crate::net::base::{Held, HeldAcrossFork, Mutex, MutexGuard, fork, lock};
use crate::net::service::{ForwarderId, Site};
use crate::net::socket::FileId;

/// The most forwarders of this machine that a connection passes, in this process and others. More
/// are a loop.
pub(crate) const MOST_HOPS: u8 = 16;

/// The text of the error for one that has passed as many. `forwarder` is the one that refuses it.
pub(crate) fn too_many_hops(forwarder: &str) -> String {
    format!(
        "{forwarder}: it has passed {MOST_HOPS} forwarders of this machine: they lead in a circle"
    )
}

/// A connection by its two ends, the connecting side first. For a Unix socket the name of the
/// connecting side is enough; the other side may have several names.
type FlowKey = (Endpoint, Address);

fn flow(from: Endpoint, to: Address) -> FlowKey {
    let to = if to.as_unix().is_some() { Address::Unix(UnixName::unnamed()) } else { to };
    (from, to)
}

/// The open connections that forwarders of this process have made, each with the forwarders that it
/// has passed.
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

/// The table. From its first use on it is locked across forks.
fn opened() -> &'static Mutex<Flows> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| fork::hold_across(&ForkHook));
    &OPENED
}

/// The forwarders of this process that a connection has passed on its way here; empty for a
/// connection from elsewhere.
pub(crate) fn trail(local: Endpoint, remote: Endpoint) -> Arc<[ForwarderId]> {
    opened().lock().get(&flow(remote, local.address)).cloned().unwrap_or_default()
}

/// The locked table while a connection is being opened. The accepting side waits for the lock, and
/// so finds the connection in the table.
pub(crate) struct Opening(MutexGuard<'static, Flows>);

impl Opening {
    /// Locks the table. Held during a connect that does not wait.
    pub(crate) fn begin() -> Self {
        Self(opened().lock())
    }

    /// Registers the opened connection, with the forwarders before this one.
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

/// A connection that a forwarder has opened, removed from the table when this is dropped.
#[derive(Debug)]
pub(crate) struct Opened(FlowKey);

impl Drop for Opened {
    fn drop(&mut self) {
        opened().lock().remove(&self.0);
    }
}

/// The address that a connect to `address` reaches: this machine for an unspecified address.
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

/// Whether a connection to `target` arrives at `site`, directly or through other servers of this
/// process.
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

/// The targets of the server of this process that is reached at `address`.
fn beyond(address: &Address, datagrams: bool) -> Vec<Endpoint> {
    let servers = registry::all();
    let reached = |server: &&Arc<dyn Registered>| {
        (server.context().transport == Transport::Udp) == datagrams
            && server.site().is_some_and(|site| is_at(address, &site))
    };
    servers.iter().filter(reached).flat_map(|server| server.leads_to()).collect()
}

/// Whether a connection to `target` is accepted at `site`.
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

/// Whether an address belongs to this machine: only then can it be bound.
pub(crate) fn is_ours(address: &Address) -> bool {
    address.as_ip().is_none_or(is_our_ip)
}

fn is_our_ip(mut address: SocketAddr) -> bool {
    address.set_port(0);
    address.ip().is_loopback() || UdpSocket::bind(reached_ip(address)).is_ok()
}
