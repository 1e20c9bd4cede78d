//! The servers of this process that have an address. Owns the list that finds the holder of an
//! address, and the servers to stop at exit; must never keep a server alive, nor hold its lock
//! while a server is called.

use std::net::IpAddr;
use std::ptr;
use std::sync::{Arc, Once, Weak};
use std::time::{Duration, Instant};

use super::context::ServerContext;
use super::shutdown::{Cause, StopReport};
use crate::net::address::{Address, Endpoint, reachable};
use crate::net::base::{Held, HeldAcrossFork, Mutex, Waiter, fork, lock};
use crate::net::error::Result;
use crate::net::service::Site;
use crate::net::socket::FileId;

/// The interface of a server to other servers of its process.
pub(crate) trait Registered: Send + Sync {
    /// The state shared by its parts.
    fn context(&self) -> &Arc<ServerContext>;

    /// The address it is bound to; None before the bind and after its end.
    fn address(&self) -> Option<Address>;

    /// The file of that address, for a Unix socket.
    fn file(&self) -> Option<FileId>;

    /// The addresses that it forwards to.
    fn leads_to(&self) -> Vec<Endpoint>;

    /// Exempts the calling thread's handler, if it is one of this server, from the stop that
    /// follows.
    fn exempt_caller(&self);

    /// Begins a stop, or moves its deadline closer. Never blocks.
    fn signal_stop(&self, cause: Cause, drain: Duration);

    /// Waits for the end of its last thread; None after the deadline.
    fn wait(
        &self,
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Option<StopReport>>;

    /// The address of its listener; None as with `address`.
    fn site(&self) -> Option<Site> {
        let context = self.context();
        let local = Endpoint { transport: context.transport, address: self.address()?.canonical() };
        Some(Site { server: context.number, local, dual_stack: context.options.dual_stack })
    }
}

static SERVERS: Mutex<Vec<Weak<dyn Registered>>> = Mutex::new(Vec::new());
/// The servers that their owners have dropped, until they have ended.
static DROPPED: Mutex<Vec<Dropped>> = Mutex::new(Vec::new());

struct Dropped {
    address: Address,
    /// Its threads keep it alive, and have closed their sockets when they release it.
    context: Weak<ServerContext>,
}

thread_local! {
    static HELD: Held<Vec<Weak<dyn Registered>>> = const { Held::new(None) };
    static HELD_DROPPED: Held<Vec<Dropped>> = const { Held::new(None) };
}

struct ForkHook;

impl HeldAcrossFork for ForkHook {
    fn hold(&self) {
        lock::hold(&HELD, &SERVERS);
        lock::hold(&HELD_DROPPED, &DROPPED);
    }

    fn release(&self) {
        lock::release(&HELD_DROPPED);
        lock::release(&HELD);
    }
}

pub(crate) fn add(server: Weak<dyn Registered>) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| fork::hold_across(&ForkHook));
    let mut servers = SERVERS.lock();
    // A server whose start has failed may be bound again.
    servers.retain(|one| one.strong_count() > 0 && !one.ptr_eq(&server));
    servers.push(server);
}

/// Notes that a server has no owner any more. Its threads hold its address until they end.
pub(crate) fn drop_owner(address: Address, context: &Arc<ServerContext>) {
    let mut dropped = DROPPED.lock();
    dropped.retain(|one| one.context.strong_count() > 0);
    dropped.push(Dropped { address, context: Arc::downgrade(context) });
}

/// A server of this process without an owner that holds `address`, and has not ended.
pub(crate) fn ownerless(address: &Address, asking: &ServerContext) -> Option<Arc<ServerContext>> {
    let there = |one: &Dropped| is_taken(&one.address, address).then(|| one.context.upgrade())?;
    // Collected first: the last reference to a server must not be dropped under the lock.
    let found: Vec<_> = DROPPED.lock().iter().filter_map(there).collect();
    found.into_iter().find(|context| {
        context.origin.is_here() && !context.has_ended() && context.transport == asking.transport
    })
}

/// The servers of this process that have an address and have not ended, oldest first.
pub(crate) fn all() -> Vec<Arc<dyn Registered>> {
    let servers: Vec<_> = SERVERS.lock().iter().filter_map(Weak::upgrade).collect();
    // A server that a forked child inherited is only memory, and must not be dropped either.
    let (here, foreign): (Vec<_>, Vec<_>) =
        servers.into_iter().partition(|server| server.context().origin.is_here());
    foreign.into_iter().for_each(std::mem::forget);
    let has_address = |server: &Arc<dyn Registered>| server.address().is_some();
    here.into_iter().filter(|one| !one.context().has_ended() && has_address(one)).collect()
}

/// The server of this process, other than `asking`, that holds `address` and prevents a bind to it.
pub(crate) fn holder(address: &Address, asking: &dyn Registered) -> Option<Arc<dyn Registered>> {
    let file = address.as_unix().and_then(FileId::of);
    let others = all().into_iter().filter(|server| !ptr::addr_eq(Arc::as_ptr(server), asking));
    others.into_iter().find(|server| match (server.address(), address) {
        (Some(held @ Address::Ip(_)), Address::Ip(_)) => {
            server.context().transport == asking.context().transport && is_taken(&held, address)
        }
        // A file may have several names, so the files are compared.
        (Some(Address::Unix(held)), Address::Unix(asked)) if !asked.is_abstract() => {
            !held.is_abstract() && file.is_some() && server.file() == file
        }
        (Some(held), _) => is_taken(&held, address),
        (None, _) => false,
    })
}

/// Whether a socket at `held` prevents a bind to `asked`.
fn is_taken(held: &Address, asked: &Address) -> bool {
    match (held, asked) {
        (Address::Ip(held), Address::Ip(asked)) => {
            held.port() == asked.port() && held.port() != 0 && overlap(held.ip(), asked.ip())
        }
        (Address::Unix(held), Address::Unix(asked)) => held == asked,
        _ => false,
    }
}

fn overlap(held: IpAddr, asked: IpAddr) -> bool {
    held == asked || held.is_unspecified() || asked.is_unspecified()
}

/// A weak reference to a server of this process, used to find its address.
#[derive(Clone)]
pub struct ServerHandle {
    name: String,
    server: Weak<dyn Registered>,
}

impl std::fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerHandle({:?})", self.name)
    }
}

impl ServerHandle {
    pub(crate) fn new(name: String, server: Weak<dyn Registered>) -> Self {
        Self { name, server }
    }

    /// The server's name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address at which this machine reaches it, which for every address is a loopback address;
    /// None before the bind and after its end.
    #[must_use]
    pub fn reachable(&self) -> Option<Endpoint> {
        let server = self.server.upgrade()?;
        if !server.context().origin.is_here() {
            std::mem::forget(server);
            return None;
        }
        let address = server.address().filter(|_| !server.context().has_ended())?;
        let dual_stack = server.context().options.dual_stack;
        let reached = address.as_ip().map(|ip| Address::Ip(reachable(ip, dual_stack)));
        let address = reached.unwrap_or(address);
        Some(Endpoint { transport: server.context().transport, address })
    }
}
