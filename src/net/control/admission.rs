//! Admission: limits the connections of a server, in total and per host. Must never know which
//! thread waits for room, nor close a connection to make room.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use crate::net::address::{Endpoint, canonical};
use crate::net::base::{EventFd, Mutex};

/// The admitted connections, or records of peers, of one server.
pub(crate) struct Admission {
    limit: AtomicUsize,
    admitted: AtomicUsize,
    /// `Limits.per_host`.
    per_host: Option<usize>,
    /// Number of connections of each address; used only with `per_host`.
    hosts: Mutex<HashMap<IpAddr, usize>>,
    room_wanted: AtomicBool,
    /// The flag that the first `leave` after `ask_for_room` sets. Provided by the thread that waits
    /// for room.
    room: Mutex<Option<Arc<EventFd>>>,
}

impl Admission {
    pub(crate) fn new(per_host: Option<usize>) -> Self {
        Self {
            limit: AtomicUsize::new(usize::MAX),
            admitted: AtomicUsize::new(0),
            per_host,
            hosts: Mutex::new(HashMap::new()),
            room_wanted: AtomicBool::new(false),
            room: Mutex::new(None),
        }
    }

    /// Maximum number of connections, or of records of peers.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    /// Sets the limit. Called before the first connection is admitted.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// Sets the flag that `leave` sets; None when no thread waits for room any more.
    pub(crate) fn set_room_flag(&self, flag: Option<Arc<EventFd>>) {
        *self.room.lock() = flag;
    }

    /// Takes a slot for a connection; false at the limit.
    pub(crate) fn enter(&self) -> bool {
        let limit = self.limit();
        let more = |admitted| (admitted < limit).then_some(admitted + 1);
        self.admitted.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Takes a slot of a peer's host; false if the host already has `per_host`. Unix sockets have
    /// no host.
    pub(crate) fn enter_host(&self, peer: Option<SocketAddr>) -> bool {
        let (Some(most), Some(peer)) = (self.per_host, peer) else { return true };
        let mut hosts = self.hosts.lock();
        let held = hosts.entry(canonical(peer).ip()).or_default();
        let free = *held < most;
        if free {
            *held += 1;
        }
        free
    }

    /// Gives back a slot of a host.
    pub(crate) fn leave_host(&self, peer: SocketAddr) {
        if self.per_host.is_some() {
            let mut hosts = self.hosts.lock();
            if let Entry::Occupied(mut held) = hosts.entry(canonical(peer).ip()) {
                *held.get_mut() -= 1;
                if *held.get() == 0 {
                    held.remove();
                }
            }
        }
    }

    /// Gives back a slot that was not used. Sets no flag, because nothing has become free.
    pub(crate) fn give_back(&self) {
        self.admitted.fetch_sub(1, SeqCst);
    }

    /// Gives back the slots of a connection with `peer`, and sets the flag if room was asked for.
    pub(crate) fn leave(&self, peer: &Endpoint) {
        if let Some(address) = peer.address.as_ip() {
            self.leave_host(address);
        }
        self.admitted.fetch_sub(1, SeqCst);
        if self.room_wanted.load(SeqCst) && self.room_wanted.swap(false, SeqCst) {
            let flag = self.room.lock().clone();
            if let Some(flag) = flag {
                flag.set();
            }
        }
    }

    /// Whether a slot is free; if not, `leave` sets the flag.
    pub(crate) fn has_room(&self) -> bool {
        let free = || self.admitted.load(SeqCst) < self.limit();
        if free() {
            return true;
        }
        self.ask_for_room();
        free()
    }

    /// Makes the next `leave` set the flag.
    pub(crate) fn ask_for_room(&self) {
        self.room_wanted.store(true, SeqCst);
    }

    /// Whether no connection has ended since `ask_for_room`.
    pub(crate) fn wants_room(&self) -> bool {
        self.room_wanted.load(SeqCst)
    }
}
