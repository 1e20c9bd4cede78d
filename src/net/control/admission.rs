//! Admission: limits the connections of a server, in total and per host. Must never know which
//! thread waits for room, nor close a connection to make room.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use crate::net::address::canonical;
use crate::net::base::{EventFd, Mutex};

/// The admitted connections, or records of peers, of one server.
pub(crate) struct Admission {
    limit: AtomicUsize,
    /// Connections with a slot: those whose records are open, and one for each attempt to accept.
    admitted: AtomicUsize,
    /// Connections that have given back their slots, and whose sockets are still open.
    closing: AtomicUsize,
    /// The limit is what the descriptors allow, so the sockets that are still open count.
    counts_sockets: AtomicBool,
    /// `Limits.per_host`.
    per_host: Option<usize>,
    /// Number of connections of each address; used only with `per_host`.
    hosts: Mutex<HashMap<IpAddr, usize>>,
    room_wanted: AtomicBool,
    /// The flag that the first `leave` or `closed` after `ask_for_room` sets. Provided by the
    /// thread that waits for room.
    room: Mutex<Option<Arc<EventFd>>>,
}

impl Admission {
    pub(crate) fn new(per_host: Option<usize>) -> Self {
        Self {
            limit: AtomicUsize::new(usize::MAX),
            admitted: AtomicUsize::new(0),
            closing: AtomicUsize::new(0),
            counts_sockets: AtomicBool::new(false),
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

    /// Sets the limit, and whether it bounds the sockets rather than the connections. Called before
    /// the first connection is admitted.
    pub(crate) fn set_limit(&self, limit: usize, counts_sockets: bool) {
        self.limit.store(limit, Relaxed);
        self.counts_sockets.store(counts_sockets, Relaxed);
    }

    /// Changes the limit, where it is what the descriptors allow. `limit` is given the number of
    /// sockets that are open. Those above a lower limit stay.
    pub(crate) fn lower_limit(&self, limit: impl FnOnce(usize) -> usize) {
        if self.counts_sockets.load(Relaxed) {
            let open = self.admitted.load(SeqCst) + self.closing.load(SeqCst);
            self.limit.fetch_min(limit(open), Relaxed);
        }
    }

    /// Sets the flag that `leave` and `closed` set; None when no thread waits for room any more.
    pub(crate) fn set_room_flag(&self, flag: Option<Arc<EventFd>>) {
        *self.room.lock() = flag;
    }

    /// Takes a slot for a connection; false at the limit.
    pub(crate) fn enter(&self) -> bool {
        let more = |admitted| self.is_below_limit(admitted).then_some(admitted + 1);
        self.admitted.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    fn is_below_limit(&self, admitted: usize) -> bool {
        let closing = if self.counts_sockets.load(Relaxed) { self.closing.load(SeqCst) } else { 0 };
        admitted + closing < self.limit()
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

    /// Gives back the slots of a connection of a host, whose socket is still open, and sets the
    /// flag if room was asked for. Called while the ledger closes its record, so that a reader of
    /// the ledger finds the slots free.
    pub(crate) fn leave(&self, host: Option<SocketAddr>) {
        if let Some(address) = host {
            self.leave_host(address);
        }
        self.closing.fetch_add(1, SeqCst);
        self.admitted.fetch_sub(1, SeqCst);
        if !self.counts_sockets.load(Relaxed) {
            self.notify_room();
        }
    }

    /// The socket of a connection that has left is closed. Sets the flag if room was asked for.
    pub(crate) fn closed(&self) {
        self.closing.fetch_sub(1, SeqCst);
        self.notify_room();
    }

    fn notify_room(&self) {
        if self.room_wanted.load(SeqCst) && self.room_wanted.swap(false, SeqCst) {
            let flag = self.room.lock().clone();
            if let Some(flag) = flag {
                flag.set();
            }
        }
    }

    /// Whether a slot is free; if not, the next end of a connection sets the flag.
    pub(crate) fn has_room(&self) -> bool {
        let free = || self.is_below_limit(self.admitted.load(SeqCst));
        if free() {
            return true;
        }
        self.ask_for_room();
        free()
    }

    /// Whether no connection has a slot or an open socket, and no attempt to accept is being made.
    pub(crate) fn is_empty(&self) -> bool {
        self.admitted.load(SeqCst) == 0 && self.closing.load(SeqCst) == 0
    }

    /// Makes the next `leave` or `closed` set the flag.
    pub(crate) fn ask_for_room(&self) {
        self.room_wanted.store(true, SeqCst);
    }

    /// Whether no connection has ended since `ask_for_room`.
    pub(crate) fn wants_room(&self) -> bool {
        self.room_wanted.load(SeqCst)
    }
}
