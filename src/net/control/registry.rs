//! The servers of this process that have a port, so that others can be told who holds it, and so
//! that all can be stopped at once. Must never keep a server alive, nor be locked while one is called.

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use crate::net::address::endpoint::{Address, Endpoint, Transport};
use crate::net::base::lock::{self, Held, Mutex};
use crate::net::control::context::Shared;
use crate::net::control::forward_loops;
use crate::net::socket::unix_file::FileId;

static SERVERS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

thread_local! {
    static HELD: Held<Vec<Weak<Shared>>> = const { Held::new(None) };
}

/// Held across a fork, so that the child does not inherit it locked by a thread it does not have.
pub(crate) fn lock_for_fork() {
    lock::hold(&HELD, &SERVERS);
}

pub(crate) fn unlock_after_fork() {
    lock::release(&HELD);
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
pub(crate) fn holder(address: &Address, asking: &Arc<Shared>) -> Option<Arc<Shared>> {
    let file = address.as_unix().and_then(FileId::of);
    all().into_iter().filter(|server| !Arc::ptr_eq(server, asking)).find(|server| {
        match (server.address(), address) {
            (Some(Address::Ip(held)), Address::Ip(asked)) => {
                server.transport == asking.transport
                    && held.port() == asked.port()
                    && held.port() != 0
                    && overlap(held.ip(), asked.ip())
            }
            // A file may have several names; what it is tells whose it is.
            (Some(Address::Unix(held)), Address::Unix(asked)) if !asked.is_abstract() => {
                !held.is_abstract() && file.is_some() && server.file() == file
            }
            (Some(Address::Unix(held)), Address::Unix(asked)) => held == *asked,
            _ => false,
        }
    })
}

/// Where the server of this process that is reached at `address` passes connections on to.
pub(crate) fn beyond(address: &Address, datagrams: bool) -> Vec<Endpoint> {
    let servers = all();
    let reached = |server: &&Arc<Shared>| {
        (server.transport == Transport::Udp) == datagrams
            && server.site().is_some_and(|site| forward_loops::is_at(address, &site))
    };
    servers.iter().filter(reached).flat_map(|server| server.leads_to()).collect()
}

fn overlap(held: IpAddr, asked: IpAddr) -> bool {
    held == asked || held.is_unspecified() || asked.is_unspecified()
}
