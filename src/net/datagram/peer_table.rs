//! a byte.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::amplification;
use super::peer_stages::PeerStages;
use super::socket::DatagramSocket;
use crate::net::address::{Address, Endpoint};
use crate::net::control::ServerContext;
use crate::net::ledger::{ClosedBy, EntryId, Record, Role, SocketClose};
use crate::net::recording::Recorder;
use crate::net::service::Peer;
use crate::net::stage::{Direction, RecorderStage, StageResult};
use crate::net::sys;

/// Identifies a peer: its address, together with the local address that it writes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) remote: Address,
    /// The local address that was written to, where the socket has several.
    pub(super) local: Option<IpAddr>,
}

impl Key {
    /// The key of a sender. `to` is the destination of its datagram, as `sys::destination` returns
    /// it.
    pub(super) fn new(remote: Address, to: Option<(IpAddr, IpAddr)>) -> Self {
        // No answer can leave from an address of many hosts: the kernel then chooses one.
        let local = to.map(|(_, own)| own).filter(|&own| amplification::is_one_host(own));
        Self { remote, local }
    }
}

/// The most credit that a peer can collect, so that a long exchange does not add up to a flood.
const MOST_CREDIT: usize = 1 << 20;
/// No index: the end of a list.
const NONE: u32 = u32::MAX;

/// A peer with an open record.
pub(super) struct PeerEntry {
    pub(super) peer: Peer,
    pub(super) record: Arc<Record>,
    /// The control message that makes a reply leave from the address that the peer wrote to.
    pub(super) route: Vec<u8>,
    /// Whether its address is a loopback address.
    pub(super) is_loopback: bool,
    /// Bytes received from it, less bytes sent to it: what it may still be sent from Python or from
    /// a target, if it is outside the loopback.
    pub(super) credit: usize,
    /// What faults act through, and what records. None without both.
    pub(super) stages: Option<Box<PeerStages>>,
    /// When it last sent or was sent something. Updated only with an idle limit.
    last_active: Instant,
    entry_id: EntryId,
    pub(super) key: Key,
    newer: u32,
    older: u32,
}

impl PeerEntry {
    /// Adds received bytes to the credit.
    pub(super) fn add_credit(&mut self, bytes: usize) {
        self.credit = (self.credit + bytes).min(MOST_CREDIT);
    }

    /// Takes sent bytes from the credit.
    pub(super) fn take_credit(&mut self, bytes: usize) {
        self.credit = self.credit.saturating_sub(bytes);
    }
}

impl PeerEntry {
    /// Whether stages hold something of it.
    fn is_owed(&self) -> bool {
        self.stages.as_ref().is_some_and(|stages| stages.all_parts() > 0)
    }
}

/// The peers of one socket.
pub(super) struct Peers {
    context: Arc<ServerContext>,
    idle: Option<Duration>,
    /// Hashed with a random key, so that senders cannot choose addresses that collide.
    table: HashMap<Key, u32>,
    entries: Slab<PeerEntry>,
    newest: u32,
    oldest: u32,
    /// The peers whose stages are called at some time, the next one first.
    due: BTreeSet<(Instant, u32)>,
    /// Records the peers.
    recorder: Option<Arc<Recorder>>,
}

impl Peers {
    pub(super) fn new(context: Arc<ServerContext>, idle: Option<Duration>) -> Self {
        Self {
            context,
            idle,
            table: HashMap::new(),
            entries: Slab::new(),
            newest: NONE,
            oldest: NONE,
            due: BTreeSet::new(),
            recorder: None,
        }
    }

    /// Has the peers that are opened from now on recorded.
    pub(super) fn record(&mut self, recorder: Option<Arc<Recorder>>) {
        self.recorder = recorder;
    }

    /// The index of a peer that has a record. It becomes the newest.
    pub(super) fn find_and_touch(&mut self, key: &Key) -> Option<u32> {
        // Most datagrams come from the same peer as the one before.
        let newest = self.entries.get(self.newest as usize);
        let index = match newest.filter(|entry| entry.key == *key) {
            Some(_) => self.newest,
            None => *self.table.get(key)?,
        };
        self.touch(index);
        Some(index)
    }

    /// Makes a peer the newest.
    pub(super) fn touch(&mut self, index: u32) {
        if index != self.newest {
            self.unlink(index);
            self.link(index);
        }
        if self.idle.is_some() {
            self.entries[index as usize].last_active = Instant::now();
        }
    }

    /// When the oldest peer reaches the idle limit. None without such a limit, or without peers.
    pub(super) fn idle_at(&self) -> Option<Instant> {
        let oldest = self.entries.get(self.oldest as usize)?;
        oldest.last_active.checked_add(self.idle?)
    }

    /// The index of a peer that has reached the idle limit. One of which stages hold something is
    /// not idle.
    pub(super) fn next_idle(&mut self) -> Option<u32> {
        // The clock is not read without such a limit.
        while self.idle_at().is_some_and(|at| at <= Instant::now()) {
            if !self.get(self.oldest).is_owed() {
                return Some(self.oldest);
            }
            self.touch(self.oldest);
        }
        None
    }

    /// Closes the records of the peers that have reached the idle limit.
    pub(super) fn close_idle(&mut self) {
        while let Some(index) = self.next_idle() {
            self.close(index, ClosedBy::Limit("idle"), None, false);
        }
    }

    /// The index of the peer at an address, for any local address. The newest one if there are
    /// several.
    pub(super) fn find_by_remote(&self, remote: &Address) -> Option<u32> {
        let mut index = self.newest;
        while let Some(entry) = self.entries.get(index as usize) {
            if entry.key.remote == *remote {
                return Some(index);
            }
            index = entry.older;
        }
        None
    }

    /// The index of a peer that has a record. The order does not change.
    pub(super) fn index_of(&self, key: &Key) -> Option<u32> {
        self.table.get(key).copied()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> &mut PeerEntry {
        &mut self.entries[index as usize]
    }

    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn has(&self, index: u32) -> bool {
        self.entries.contains(index as usize)
    }

    pub(super) fn get(&self, index: u32) -> &PeerEntry {
        &self.entries[index as usize]
    }

    /// The indices of all peers.
    pub(super) fn indices(&self) -> Vec<u32> {
        self.entries.iter().map(|(index, _)| index as u32).collect()
    }

    /// The index of the peer that was silent for longest.
    pub(super) fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    /// Opens the record of a new peer. The caller has entered its slot with the admission.
    pub(super) fn open(&mut self, key: Key, socket: &DatagramSocket, is_loopback: bool) -> u32 {
        let mut own = socket.local.clone();
        let mut route = Vec::new();
        let local = key.local.filter(|_| socket.is_wildcard());
        if let (Address::Ip(own), Some(local)) = (&mut own, local) {
            route = sys::leave_from(local, own.is_ipv6());
            own.set_ip(local);
        }
        let transport = self.context.transport;
        let endpoint = |address: Address| Endpoint { transport, address: address.canonical() };
        let (local, remote) = (endpoint(own), endpoint(key.remote.clone()));
        let id = self.context.resets.next_id();
        let record = Record::new(id, Role::Server, local.clone(), remote.clone());
        let record = Arc::new(record.with_trace(self.context.trace));
        let entry_id = self.context.ledger.open(&record);
        let (tlvs, line) = (Vec::new(), self.context.limits.line);
        let peer = Peer { id, local, remote, proxy: None, tlvs, line };
        let last_active = Instant::now();
        let entry = PeerEntry {
            peer,
            record,
            route,
            is_loopback,
            credit: 0,
            stages: None,
            last_active,
            entry_id,
            key,
            newer: NONE,
            older: NONE,
        };
        let mut entry = entry;
        if let Some(recorder) = &self.recorder {
            let Peer { local, remote, .. } = &entry.peer;
            let track = recorder.track(id, remote, local, last_active);
            let stages = entry.stages.insert(Box::new(PeerStages::new(last_active)));
            stages.record(last_active, RecorderStage::of_datagrams(track, last_active));
        }
        let index = self.entries.insert(entry) as u32;
        self.table.insert(self.entries[index as usize].key.clone(), index);
        self.link(index);
        if self.context.faults.is_used() {
            // A stage that is added to others that hold nothing cannot fail.
            let _ = self.update_faults(index, last_active);
            self.settle(index);
        }
        index
    }

    /// Gives a peer the faults that the server has now. `settle` is called after it.
    pub(super) fn update_faults(&mut self, index: u32, now: Instant) -> StageResult {
        let faults = &self.context.faults;
        let entry = &mut self.entries[index as usize];
        if entry.stages.is_none() && faults.concerns(entry.peer.id) {
            entry.stages = Some(Box::new(PeerStages::new(now)));
        }
        match &mut entry.stages {
            Some(stages) => stages.update(faults, &entry.record, now),
            None => Ok(()),
        }
    }

    /// Notes what the stages of a peer have done, and when they are called next. Called after each
    /// use of them.
    pub(super) fn settle(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let Some(stages) = &mut entry.stages else { return };
        stages.keep_notes(&entry.record);
        let due = stages.next_call();
        if due != stages.due {
            stages.due.map(|at| self.due.remove(&(at, index)));
            due.map(|at| self.due.insert((at, index)));
            stages.due = due;
        }
        if stages.is_unused() {
            entry.stages = None;
        }
    }

    /// When the stages of a peer are called next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|&(at, _)| at)
    }

    /// The index of a peer whose stages must be called.
    pub(super) fn due_at(&self, now: Instant) -> Option<u32> {
        self.due.first().filter(|&&(at, _)| at <= now).map(|&(_, index)| index)
    }

    /// Whether stages hold something of a peer.
    pub(super) fn is_owed(&self, index: u32) -> bool {
        self.get(index).is_owed()
    }

    /// Whether stages hold something that a stop waits for. What a stage holds it passes on at some
    /// time.
    pub(super) fn are_owed(&self) -> bool {
        self.due.iter().any(|&(_, index)| self.get(index).is_owed())
    }

    /// The same, of what goes to the peers alone.
    pub(super) fn owe(&self) -> bool {
        let owes = |stages: &PeerStages| stages.parts(Direction::Outbound) > 0;
        self.due.iter().any(|&(_, index)| self.get(index).stages.as_deref().is_some_and(owes))
    }

    /// Closes a record, and frees its slot. What stages hold of the peer is lost, and counted.
    pub(super) fn close(&mut self, index: u32, by: ClosedBy, error: Option<String>, forced: bool) {
        self.unlink(index);
        let entry = self.entries.remove(index as usize);
        self.table.remove(&entry.key);
        if let Some(stages) = entry.stages {
            stages.due.map(|at| self.due.remove(&(at, index)));
            self.context.ledger.count_dropped(stages.all_parts() as u64);
        }
        self.context.close_record(entry.entry_id, by, error, None, SocketClose::None);
        self.context.count_stopped(forced);
        self.context.admission.closed();
    }

    /// Closes all records, because the server stops.
    pub(super) fn close_all(&mut self, forced: bool) {
        while let Some(oldest) = self.oldest() {
            let is_owed = self.get(oldest).is_owed();
            self.close(oldest, ClosedBy::Stop, None, forced || is_owed);
        }
    }

    fn link(&mut self, index: u32) {
        let before = self.newest;
        let entry = &mut self.entries[index as usize];
        (entry.newer, entry.older) = (NONE, before);
        match self.entries.get_mut(before as usize) {
            Some(before) => before.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
    }

    fn unlink(&mut self, index: u32) {
        let PeerEntry { newer, older, .. } = self.entries[index as usize];
        match self.entries.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        match self.entries.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
    }
}
