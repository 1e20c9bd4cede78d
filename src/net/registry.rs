//! The servers of this process that have a port, so that others can be told who holds it, and so
//! that all can be stopped at once. Must never keep a server alive, nor be locked while one is called.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use super::endpoint::Endpoint;
use super::shared::Shared;
use super::{loops, sys};

static SERVERS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Held across a fork, so that the child does not inherit it locked by a thread it does not have.
pub(crate) fn lock_for_fork() {
    MutexGuard::leak(SERVERS.lock());
}

pub(crate) fn unlock_after_fork() {
    sys::force_unlock(&SERVERS);
}

pub(crate) fn add(server: &Arc<Shared>) {
    let mut servers = SERVERS.lock();
    servers.retain(|server| server.strong_count() > 0);
    servers.push(Arc::downgrade(server));
}

/// The servers of this process that have a port and are not stopped, oldest first.
pub(crate) fn all() -> Vec<Arc<Shared>> {
    let servers: Vec<_> = SERVERS.lock().iter().filter_map(Weak::upgrade).collect();
    // One that a forked child inherited is nothing but memory: it must not be dropped either.
    let (here, foreign): (Vec<_>, Vec<_>) =
        servers.into_iter().partition(|server| server.origin.is_here());
    foreign.into_iter().for_each(std::mem::forget);
    here.into_iter().filter(|server| !server.has_ended()).collect()
}

/// The server of this process, other than `asking`, that keeps `address` from being bound.
pub(crate) fn holder(address: SocketAddr, asking: &Arc<Shared>) -> Option<Arc<Shared>> {
    all().into_iter().filter(|server| !Arc::ptr_eq(server, asking)).find(|server| {
        server.address().is_some_and(|held| {
            server.transport == asking.transport
                && held.port() == address.port()
                && address.port() != 0
                && overlap(held.ip(), address.ip())
        })
    })
}

/// Where the server of this process that is reached at `address` passes connections on to.
pub(crate) fn beyond(address: SocketAddr) -> Vec<Endpoint> {
    let servers = all();
    let reached =
        |server: &&Arc<Shared>| server.site().is_some_and(|site| loops::is_at(address, &site));
    servers.iter().filter(reached).flat_map(|server| server.leads_to()).collect()
}

fn overlap(held: IpAddr, asked: IpAddr) -> bool {
    held == asked || held.is_unspecified() || asked.is_unspecified()
}
