//! The peers of a UDP port that have been heard from, with their accounts: found by address, in the order in
//! which they were last heard. Must never hold more of them than the server admits, nor move a byte.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::socket::{DatagramSocket, DatagramSockets};
use crate::net::address::Endpoint;
use crate::net::control::ServerContext;
use crate::net::ledger::{ClosedBy, EntryId, Record, Role};
use crate::net::service::Peer;
use crate::net::sys;

/// Who talks to which of our addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) remote: SocketAddr,
    /// The address of ours that was written to, where there are several.
    pub(super) local: Option<IpAddr>,
}

/// The most credit that a peer is given, so that years of asking buy no flood.
const MOST_CREDIT: usize = 1 << 20;
/// Nobody: the end of a list.
const NONE: u32 = u32::MAX;

/// A peer that has been heard from.
pub(super) struct Known {
    pub(super) peer: Peer,
    pub(super) record: Arc<Record>,
    /// The control message that has a reply leave from where the peer has written to.
    pub(super) route: Vec<u8>,
    /// Whether it is on this machine, as far as its address says.
    pub(super) is_near: bool,
    /// Bytes that it has sent and not been sent: what Python may send it, where it is not near.
    pub(super) credit: usize,
    /// When it was last heard; kept up only where the idle limit asks for it.
    heard: Instant,
    entry_id: EntryId,
    pub(super) key: Key,
    newer: u32,
    older: u32,
}

impl Known {
    /// Adds what it has sent to what it may be sent.
    pub(super) fn earn(&mut self, bytes: usize) {
        self.credit = (self.credit + bytes).min(MOST_CREDIT);
    }

    /// Takes what it was sent from what it may be sent.
    pub(super) fn pay(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub(bytes);
    }
}

/// Those that one port has heard from.
pub(super) struct Peers {
    context: Arc<ServerContext>,
    sockets: Arc<DatagramSockets>,
    idle: Option<Duration>,
    /// Keyed by secret numbers, so that nobody can choose addresses that fall together.
    table: HashMap<Key, u32>,
    known: Slab<Known>,
    newest: u32,
    oldest: u32,
}

impl Peers {
    pub(super) fn new(
        context: Arc<ServerContext>,
        sockets: Arc<DatagramSockets>,
        idle: Option<Duration>,
    ) -> Self {
        let (table, known) = (HashMap::new(), Slab::new());
        Self { context, sockets, idle, table, known, newest: NONE, oldest: NONE }
    }

    /// The index of a peer, if it was heard from before; it is the newest then.
    pub(super) fn find(&mut self, key: &Key) -> Option<u32> {
        // Mostly it is the one that was heard last.
        let newest = self.known.get(self.newest as usize);
        let index = match newest.filter(|known| known.key == *key) {
            Some(_) => self.newest,
            None => *self.table.get(key)?,
        };
        self.touch(index);
        Some(index)
    }

    /// Something went its way: it is the newest then.
    pub(super) fn touch(&mut self, index: u32) {
        if index != self.newest {
            self.unlink(index);
            self.link(index);
        }
        if self.idle.is_some() {
            self.known[index as usize].heard = Instant::now();
        }
    }

    /// When the next one has been silent for too long; None where there is no such limit, or nobody.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        let oldest = self.known.get(self.oldest as usize)?;
        oldest.heard.checked_add(self.idle?)
    }

    /// One that has been silent for too long.
    pub(super) fn next_idle(&self) -> Option<u32> {
        // The clock is not read where there is no such limit.
        self.idle_at().filter(|&at| at <= Instant::now()).map(|_| self.oldest)
    }

    /// Closes the accounts of those that have been silent for too long.
    pub(super) fn close_idle(&mut self) {
        while let Some(index) = self.next_idle() {
            self.close(index, ClosedBy::Limit("idle"), None, false);
        }
    }

    /// The one of an address, whichever of ours it writes to; of several the one last heard.
    pub(super) fn of(&self, remote: SocketAddr) -> Option<u32> {
        let mut index = self.newest;
        while let Some(known) = self.known.get(index as usize) {
            if known.key.remote == remote {
                return Some(index);
            }
            index = known.older;
        }
        None
    }

    /// The index of a peer, if it was heard from; that is no news of it.
    pub(super) fn index_of(&self, key: &Key) -> Option<u32> {
        self.table.get(key).copied()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut Known {
        &mut self.known[index as usize]
    }

    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    pub(super) fn has(&self, index: u32) -> bool {
        self.known.contains(index as usize)
    }

    pub(super) fn get(&self, index: u32) -> &Known {
        &self.known[index as usize]
    }

    /// All of them.
    pub(super) fn indices(&self) -> Vec<u32> {
        self.known.iter().map(|(index, _)| index as u32).collect()
    }

    /// The one that has been silent for longest.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Opens the account of a peer that was never heard from. Its place must have been entered.
    pub(super) fn open(&mut self, key: Key, port: &DatagramSocket, is_near: bool) -> u32 {
        let mut own = port.local;
        let mut route = Vec::new();
        if let Some(local) = key.local.filter(|_| port.is_wildcard()) {
            own.set_ip(local);
            route = sys::leave_from(local, port.local.is_ipv6());
        }
        let (local, remote) = (Endpoint::udp(own), Endpoint::udp(key.remote));
        let id = self.sockets.next_id();
        let record = Record::new(id, Role::Server, local.clone(), remote.clone());
        let record = Arc::new(record.with_trace(self.context.trace));
        let entry_id = self.context.ledger.open(&record);
        let peer = Peer { id, local, remote, line: self.context.limits.line };
        let heard = Instant::now();
        let known = Known {
            peer,
            record,
            route,
            is_near,
            credit: 0,
            heard,
            entry_id,
            key,
            newer: NONE,
            older: NONE,
        };
        let index = self.known.insert(known) as u32;
        self.table.insert(key, index);
        self.link(index);
        index
    }

    /// Closes an account, and gives its place back.
    pub(super) fn close(&mut self, index: u32, by: ClosedBy, error: Option<String>, forced: bool) {
        self.unlink(index);
        let known = self.known.remove(index as usize);
        self.table.remove(&known.key);
        self.context.ledger.close(known.entry_id, by, error, None);
        self.context.count_stopped(forced);
        self.context.admission.leave(&known.peer.remote);
    }

    /// Closes them all, since the server stops.
    pub(super) fn close_all(&mut self, forced: bool) {
        while let Some(oldest) = self.oldest() {
            self.close(oldest, ClosedBy::Stop, None, forced);
        }
    }

    fn link(&mut self, index: u32) {
        let before = self.newest;
        let known = &mut self.known[index as usize];
        (known.newer, known.older) = (NONE, before);
        match self.known.get_mut(before as usize) {
            Some(before) => before.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
    }

    fn unlink(&mut self, index: u32) {
        let Known { newer, older, .. } = self.known[index as usize];
        match self.known.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        match self.known.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
    }
}
