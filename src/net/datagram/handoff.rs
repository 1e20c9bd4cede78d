//! Datagrams that the caller's threads answer. Owns the records that these threads share; must
//! never call into one of them, nor hold its lock while it waits.
//!
//! `filler` gives the datagrams to a pool of threads, `on_demand` to calls of `accept`. `send_one`
//! sends what the threads answer.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Instant;

use super::admission::Admission;
use super::amplification;
use super::fault_changes::FaultChanges;
use super::peer_table::Key;
use super::send_one::Unsent;
use super::socket::{DatagramSocket, DatagramSockets};
use crate::net::address::Address;
use crate::net::base::{EventFd, Mutex, poll_or_sleep};
use crate::net::control::ServerContext;
use crate::net::error::{Error, Result};
use crate::net::handoff::Answers;
use crate::net::ledger::{ClosedBy, Record};
use crate::net::sys::{self, Received};

/// A datagram that is counted in its peer's record.
pub(super) struct Arrival {
    pub(super) key: Key,
    /// The address in its header: that of this machine, or of many.
    pub(super) to: Address,
    pub(super) record: Arc<Record>,
}

/// A datagram that has left the stages of its peer.
pub(super) struct Staged {
    pub(super) data: Vec<u8>,
    pub(super) arrival: Arrival,
}

/// Datagrams that have left stages, for calls of `accept`. Bounded by what stages hold.
#[derive(Default)]
pub(super) struct Arrived {
    /// Locked within the lock of `Handoff::admission`, or alone.
    queue: Mutex<VecDeque<Staged>>,
    /// Whether there are some.
    is_any: AtomicBool,
}

impl Arrived {
    pub(super) fn is_any(&self) -> bool {
        self.is_any.load(SeqCst)
    }

    /// Keeps a datagram, and wakes the calls that wait. Called with the peers locked, so that those
    /// of one peer keep their order.
    pub(super) fn push(&self, socket: &DatagramSocket, staged: Staged) {
        let mut queue = self.queue.lock();
        queue.push_back(staged);
        self.is_any.store(true, SeqCst);
        socket.notifier.set();
    }

    /// Takes the oldest one.
    pub(super) fn take(&self, socket: &DatagramSocket) -> Option<Staged> {
        if !self.is_any() {
            return None;
        }
        let mut queue = self.queue.lock();
        let first = queue.pop_front();
        if queue.is_empty() {
            self.is_any.store(false, SeqCst);
            socket.notifier.clear();
            if socket.has_ended() {
                socket.notifier.set();
            }
        }
        first
    }

    fn clear(&self) {
        self.queue.lock().clear();
    }
}

/// Receives and sends datagrams for the caller's threads.
pub(crate) struct Handoff {
    pub(super) context: Arc<ServerContext>,
    sockets: Arc<DatagramSockets>,
    /// None once the server has ended, so that a thread that still holds the `Handoff` keeps no
    /// descriptor open.
    admission: Mutex<Option<Admission>>,
    pub(super) arrived: Arrived,
    /// Of the thread that calls the stages whose time has come.
    pub(super) changes: Arc<FaultChanges>,
}

impl Handoff {
    /// The records of a socket, which is open from here on. `timer` wakes the thread that calls the
    /// stages.
    pub(super) fn open(
        context: &Arc<ServerContext>,
        sockets: &Arc<DatagramSockets>,
        socket: DatagramSocket,
        timer: Arc<EventFd>,
    ) -> (Arc<Self>, Arc<DatagramSocket>) {
        let socket = Arc::new(socket);
        sockets.add(&socket);
        let (idle, share) = (context.limits.idle, context.admission.limit());
        let admission = Admission::new(Arc::clone(context), Arc::clone(&socket), idle, share);
        let handoff = Self {
            changes: FaultChanges::listen(context, timer),
            context: Arc::clone(context),
            sockets: Arc::clone(sockets),
            admission: Mutex::new(Some(admission.hearing_all())),
            arrived: Arrived::default(),
        };
        (Arc::new(handoff), socket)
    }

    /// Calls a function with the admitted peers. None once the server has ended.
    pub(super) fn with<T>(&self, call: impl FnOnce(&mut Admission) -> T) -> Option<T> {
        self.admission.lock().as_mut().map(call)
    }

    /// The socket. None once the server has ended.
    pub(crate) fn socket(&self) -> Option<Arc<DatagramSocket>> {
        self.with(|admission| Arc::clone(&admission.socket))
    }

    /// Counts a received datagram in its peer's record. None if there is no sender, or no room for
    /// its record, or if the peer has stages: what these pass on is given to `staged`.
    pub(super) fn record_received(
        &self,
        received: &Received<'_>,
        staged: &mut dyn FnMut(Staged),
    ) -> Option<Arrival> {
        let &Received { data, from, control, cut } = received;
        let mut admission = self.admission.lock();
        let admission = admission.as_mut()?;
        let socket = Arc::clone(&admission.socket);
        // A datagram without a sender marks the end: the socket was shut down.
        let remote = socket.sender(from, data)?;
        if cut {
            self.context.ledger.count_cut();
        }
        let to = sys::destination(control);
        // A new peer may have a time of its own.
        let before = admission.peers.next_due();
        let index = admission.find_or_admit(remote, to, &mut |_| {})?;
        let entry = admission.peers.get_mut(index);
        entry.record.count_received(data);
        if entry.stages.is_none() {
            entry.add_credit(data.len());
        }
        let record = Arc::clone(&entry.record);
        if record.received().messages == 1 && self.context.limits.idle.is_some() {
            // The thread that closes idle records has to compute its next deadline.
            self.context.notifier.notify();
        }
        if admission.is_staged(index) {
            if admission.receive_staged(index, data, to, cut) {
                Self::pass_on(admission, index, staged);
            }
            self.wake_timer(admission, before);
            return None;
        }
        Some(Self::arrival(admission, index, to))
    }

    fn arrival(admission: &Admission, index: u32, to: Option<(IpAddr, IpAddr)>) -> Arrival {
        let entry = admission.peers.get(index);
        // A socket that is bound to one address receives only what was sent to it.
        let mut own = admission.socket.local.clone();
        if let (Address::Ip(own), Some((to, _))) = (&mut own, to) {
            own.set_ip(to);
        }
        let (key, record) = (entry.key.clone(), Arc::clone(&entry.record));
        Arrival { key, to: own.canonical(), record }
    }

    /// Takes what the stages of a peer have passed on in both directions: to the caller's threads,
    /// and to the peer.
    fn pass_on(admission: &mut Admission, index: u32, staged: &mut dyn FnMut(Staged)) {
        let mut data = Vec::new();
        while admission.take_staged(index, &mut data) {
            let to = admission.peers.get(index).stages.as_ref().and_then(|stages| stages.to);
            let arrival = Self::arrival(admission, index, to);
            staged(Staged { data: std::mem::take(&mut data), arrival });
        }
        if admission.send_staged(index) {
            admission.read_error_queue();
        }
    }

    /// Wakes the thread that calls the stages, if it has to call some earlier than `before`.
    fn wake_timer(&self, admission: &Admission, before: Option<Instant>) {
        let due = admission.peers.next_due();
        if due.is_some_and(|due| before.is_none_or(|before| due < before)) {
            self.changes.wake();
        }
    }

    /// Gives every peer the faults of now if they have changed, and calls the stages whose time has
    /// come.
    pub(super) fn turn(&self, staged: &mut dyn FnMut(Staged)) {
        let changed = self.changes.is_pending();
        if !changed && !self.context.faults.is_used() {
            return;
        }
        // Confirmed at the end.
        let acks = if changed { self.changes.take() } else { Vec::new() };
        self.with(|admission| {
            if changed && self.changes.is_reset(&self.context) {
                admission.peers.close_all(true);
            }
            if changed {
                for index in admission.peers.indices() {
                    // An error queue that was read may have closed it.
                    if admission.peers.has(index) && admission.update_faults(index) {
                        Self::pass_on(admission, index, staged);
                    }
                }
            }
            if admission.peers.next_due().is_some() {
                let now = Instant::now();
                while let Some(index) = admission.turn_staged(now) {
                    Self::pass_on(admission, index, staged);
                }
            }
        });
        drop(acks);
    }

    /// When the thread that calls the stages must act next.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        self.with(|admission| admission.next_turn()).flatten()
    }

    /// Sends a datagram to the peer with this key, or to the peer at `remote`. Never waits.
    ///
    /// A peer outside the loopback gets no more bytes than it has sent, at most `most`, within the
    /// rate of its source. Otherwise raises EPERM. A multicast group that the socket has joined may
    /// be sent more.
    fn send(&self, remote: &Address, key: Option<Key>, data: &[u8], most: usize) -> Result<usize> {
        let step = "sendto";
        let mut admission = self.admission.lock();
        let Some(admission) = admission.as_mut() else {
            return Err(Error::closed(step, "the server has stopped"));
        };
        let before = admission.peers.next_due();
        let sent = admission.receiver(remote, key, data.len(), most).and_then(|index| {
            if !admission.is_staged(index) {
                return admission.send_now(index, remote, data);
            }
            admission.send_through_stages(index, data)?;
            self.wake_timer(admission, before);
            Ok(data.len())
        });
        sent.map_err(|Unsent { errno, hint }| {
            let target = remote.to_string();
            Error::Os { step, target, errno, hint: hint.to_owned() }
        })
    }

    /// Sends a datagram to any address, for the caller's own calls.
    pub(crate) fn send_to(&self, remote: Address, data: &[u8]) -> Result<usize> {
        self.send(&remote.canonical(), None, data, usize::MAX)
    }

    pub(super) fn close_idle(&self) {
        self.with(|admission| admission.peers.close_idle());
    }

    /// While the server drains: calls `serve` whenever stages are due or a flag is set, until it
    /// returns that nothing is owed, or the deadline has passed.
    pub(super) fn drain<'a>(
        self: &'a Arc<Self>,
        flags: &[&EventFd],
        serve: impl Fn(&'a Arc<Self>) -> bool,
    ) {
        loop {
            for flag in flags {
                flag.clear();
            }
            let (is_owed, deadline) = (serve(self), self.context.shutdown.deadline());
            if !is_owed || deadline <= Instant::now() {
                return;
            }
            let mut fds: Vec<_> = flags.iter().map(|flag| flag.polled()).collect();
            let due = self.with(|admission| admission.peers.next_due()).flatten();
            poll_or_sleep(&mut fds, Some(due.map_or(deadline, |due| due.min(deadline))));
        }
    }

    /// Closes all records and the socket.
    pub(super) fn close(&self, forced: bool) {
        let admission = self.admission.lock().take();
        if let Some(mut admission) = admission {
            admission.peers.close_all(forced);
            self.sockets.remove(&admission.socket);
        }
        self.arrived.clear();
        self.changes.end();
        self.context.clear_notifier();
    }
}

impl Answers for Handoff {
    fn reply(&self, to: &Address, own: Option<IpAddr>, data: &[u8], most: usize) -> Result<()> {
        let has_address = match to {
            // Such as 0.0.0.0, the sender of a DHCP client without an address.
            Address::Ip(to) => amplification::is_one_host(to.ip()),
            Address::Unix(name) => !name.is_unnamed(),
        };
        if !has_address {
            self.context.ledger.count_dropped(1);
            return Ok(());
        }
        self.send(to, Some(Key { remote: to.clone(), local: own }), data, most).map(drop)
    }

    /// Closes the peer's record. The next datagram of that peer opens a new one.
    fn fail(&self, to: &Address, own: Option<IpAddr>, error: String) {
        self.context.count_error();
        self.with(|admission| {
            if let Some(index) = admission.peers.index_of(&Key { remote: to.clone(), local: own }) {
                admission.peers.close(index, ClosedBy::Error, Some(error), false);
            }
        });
    }
}
