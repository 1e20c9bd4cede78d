//! A worker of a UDP server. It is a thread with one socket that receives datagrams in batches,
//! calls a service for each, and sends the replies in batches. Owns the loop and the limits on
//! replies; must never block except to wait for the next datagram, allocate for one, or let a panic
//! for one peer reach another.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::admission::Admission;
use super::amplification::SenderPolicy;
use super::errors::{Failure, classify};
use super::fault_changes::FaultChanges;
use super::peer_table::Peers;
use super::send::{Sent, send_all};
use super::socket::{DatagramSocket, DatagramSockets, LEAST_IN_QUEUE, MOST_DATAGRAM};
use crate::net::address::Address;
use crate::net::base::panic_text;
use crate::net::control::ServerContext;
use crate::net::ledger::ClosedBy;
use crate::net::service::{Datagrams, Reply, SessionError};
use crate::net::stage::Direction;
use crate::net::sys::{self, BATCH, Inbound, Outgoing};
use crate::net::worker::{ACCEPT_BACKOFF, shut_down};

/// The buffer for replies that do not lie within the received datagram. A larger batch is sent in
/// parts.
const OUTBOX: usize = 128 * 1024;

/// Opens and starts the worker of a socket. On failure everything is closed again.
pub(super) fn start(
    context: &Arc<ServerContext>,
    sockets: &Arc<DatagramSockets>,
    service: &Arc<dyn Datagrams>,
    socket: DatagramSocket,
    number: usize,
    share: usize,
) -> io::Result<()> {
    let socket = Arc::new(socket);
    let worker = Worker::new(context, Arc::clone(&socket), share)?;
    let (service, open) = (Arc::clone(service), Arc::clone(sockets));
    sockets.add(&socket);
    let served = Arc::clone(&socket);
    let started = context.spawn(format!("rsock-worker-{number}"), move || {
        worker.run(&*service);
        open.remove(&served);
    });
    if started.is_err() {
        sockets.remove(&socket);
    }
    started
}

/// The state of the worker's thread.
struct Worker {
    context: Arc<ServerContext>,
    socket: Arc<DatagramSocket>,
    admission: Admission,
    inbound: Inbound,
    outbox: Outbox,
    changes: Arc<FaultChanges>,
    /// The datagram at hand of those that have left stages.
    staged: Vec<u8>,
}

impl Worker {
    fn new(
        context: &Arc<ServerContext>,
        socket: Arc<DatagramSocket>,
        share: usize,
    ) -> io::Result<Self> {
        let idle = context.limits.idle;
        Ok(Self {
            inbound: Inbound::new(context.limits.datagram, socket.tells_destination())?,
            outbox: Outbox::default(),
            changes: FaultChanges::listen(context, Arc::clone(&socket.notifier)),
            staged: Vec::new(),
            admission: Admission::new(Arc::clone(context), Arc::clone(&socket), idle, share),
            context: Arc::clone(context),
            socket,
        })
    }

    /// The thread's body. Returns when the server is drained.
    fn run(mut self, service: &dyn Datagrams) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve_until_end(service)));
        self.context.conclude(served);
        let hard = self.context.shutdown.is_hard();
        self.admission.peers.close_all(hard);
        self.changes.end();
    }

    fn serve_until_end(&mut self, service: &dyn Datagrams) -> io::Result<()> {
        // A blocking receive saves the poll before it and the failed receive after the last
        // datagram.
        let mut blocks = self.allow_blocking();
        while !self.socket.has_ended() {
            if self.changes.is_pending() {
                self.update_faults(service);
                blocks |= self.allow_blocking();
            }
            let flags = self.socket.receive_flags(&mut blocks);
            match self.receive(BATCH, flags)? {
                Some(count) => self.serve(count, service)?,
                // Also on a socket that blocks: another of its owners may have made it
                // non-blocking.
                None => {
                    if self.socket.wait(self.admission.next_turn())? {
                        self.admission.read_error_queue();
                    }
                }
            }
            self.serve_due(service);
            self.admission.peers.close_idle();
        }
        if self.context.shutdown.is_hard() || self.socket.is_handed_over() {
            return Ok(());
        }
        // What is in the queue now is still served. Later datagrams are not.
        let mut left = sys::queued(self.socket.as_fd()) / LEAST_IN_QUEUE;
        while left > 0 && Instant::now() < self.context.shutdown.deadline() {
            let Some(count) = self.receive(left, libc::MSG_DONTWAIT)? else { break };
            self.serve(count, service)?;
            left -= count.min(left);
        }
        self.serve_owed(service)
    }

    /// Lets the thread wait inside the receive call, if nothing else has to end that wait. Returns
    /// whether it does.
    fn allow_blocking(&self) -> bool {
        if self.context.limits.idle.is_none() {
            self.socket.allow_blocking(&self.context.faults, &self.changes);
        }
        self.socket.blocks()
    }

    /// Gives every peer the faults of now.
    fn update_faults(&mut self, service: &dyn Datagrams) {
        // Confirmed at the end.
        let _acks = self.changes.take();
        if self.changes.is_reset(&self.context) {
            self.admission.peers.close_all(true);
        }
        for index in self.admission.peers.indices() {
            if self.admission.update_faults(index) {
                self.serve_staged(index, service);
            }
        }
        self.handle_errors();
    }

    /// Calls the stages whose time has come.
    fn serve_due(&mut self, service: &dyn Datagrams) {
        if self.admission.peers.next_due().is_none() {
            return;
        }
        let now = Instant::now();
        while let Some(index) = self.admission.turn_staged(now) {
            self.serve_staged(index, service);
        }
        self.handle_errors();
    }

    /// While the server drains: serves what stages hold, until the deadline.
    fn serve_owed(&mut self, service: &dyn Datagrams) -> io::Result<()> {
        loop {
            if self.changes.is_pending() {
                self.update_faults(service);
            }
            self.serve_due(service);
            let deadline = self.context.shutdown.deadline();
            if !self.admission.peers.are_owed() || deadline <= Instant::now() {
                return Ok(());
            }
            let due = self.admission.peers.next_due();
            self.socket.wait_in_drain(due.map_or(deadline, |due| due.min(deadline)))?;
        }
    }

    /// Calls the service for what the stages of a peer have passed on, and sends what they have
    /// passed to the peer. Nothing else of this peer may wait in the outbox.
    fn serve_staged(&mut self, index: u32, service: &dyn Datagrams) {
        let Self { admission, staged, context, socket, .. } = self;
        while admission.take_staged(index, staged) {
            let entry = admission.peers.get(index);
            let cut = entry.stages.as_ref().is_some_and(|stages| stages.has_cut);
            let mut answer = StagedAnswer {
                replies: Vec::new(),
                request: staged.len(),
                // A datagram that was cut has this length.
                cut: cut && staged.len() == context.limits.datagram,
                is_unix: socket.is_unix(),
                context,
                allowance: Allowance::new(&entry.key.remote, entry.is_loopback),
                policy: &mut admission.policy,
            };
            let served = catch_unwind(AssertUnwindSafe(|| {
                service.on_datagram(staged, &entry.peer, &mut answer)
            }));
            let error = match served {
                Ok(Ok(())) => None,
                Ok(Err(SessionError(error))) => Some(error),
                Err(panic) => Some(panic_text(&*panic)),
            };
            for reply in answer.replies {
                if !admission.push_staged(index, Direction::Outbound, &reply) {
                    return;
                }
            }
            if let Some(error) = error {
                self.outbox.error_queued |= admission.send_staged(index);
                context.count_error();
                return admission.peers.close(index, ClosedBy::Error, Some(error), false);
            }
        }
        self.outbox.error_queued |= admission.send_staged(index);
    }

    /// Receives a batch. None if nothing was received or an error was handled.
    fn receive(&mut self, most: usize, flags: i32) -> io::Result<Option<usize>> {
        let error = match self.inbound.receive(self.socket.as_fd(), most, flags) {
            Ok(count) => return Ok(Some(count)),
            Err(error) => error,
        };
        match classify(error.raw_os_error().unwrap_or(libc::EIO)) {
            Failure::Fatal => return Err(error),
            Failure::Exhausted | Failure::ThisOne => {
                self.context.ledger.count_accept_error();
                self.socket.wait_for_notifier(Some(Instant::now() + ACCEPT_BACKOFF));
            }
            Failure::Earlier => self.admission.read_error_queue(),
            Failure::Blocked | Failure::Interrupted => {}
        }
        Ok(None)
    }

    /// Calls the service for each received datagram, and sends the replies. An error if another of
    /// its owners has shut the socket down.
    fn serve(&mut self, count: usize, service: &dyn Datagrams) -> io::Result<()> {
        self.admission.close_servers();
        let mut is_shut = false;
        for slot in 0..count {
            let Self { admission, inbound, outbox, context, socket, .. } = self;
            let received = inbound.get(slot);
            // A datagram without a sender marks the end: the socket was shut down.
            let Some(from) = socket.sender(received.from, received.data) else {
                is_shut = !socket.has_ended();
                continue;
            };
            if socket.is_wake_up(&from) {
                continue;
            }
            if received.cut {
                context.ledger.count_cut();
            }
            let to = sys::destination(received.control);
            let found = admission.find_or_admit(from, to, &mut |peers| {
                outbox.flush(inbound, socket, peers, context);
            });
            let Some(index) = found else { continue };
            let entry = admission.peers.get(index);
            entry.record.count_received(received.data);
            if entry.stages.is_some() {
                if admission.receive_staged(index, received.data, to, received.cut) {
                    self.serve_staged(index, service);
                }
                continue;
            }
            let mut answer = Answer {
                outbox,
                inbound,
                socket,
                peers: &admission.peers,
                policy: &mut admission.policy,
                context,
                slot,
                index,
                cut: received.cut,
                allowance: Allowance::new(&entry.key.remote, entry.is_loopback),
            };
            let served = catch_unwind(AssertUnwindSafe(|| {
                service.on_datagram(received.data, &entry.peer, &mut answer)
            }));
            let error = match served {
                Ok(Ok(())) => continue,
                Ok(Err(SessionError(error))) => error,
                Err(panic) => panic_text(&*panic),
            };
            self.flush();
            self.context.count_error();
            self.admission.peers.close(index, ClosedBy::Error, Some(error), false);
        }
        self.flush();
        self.handle_errors();
        if is_shut { Err(shut_down()) } else { Ok(()) }
    }

    /// Reads the error queue, if a send has put something into it.
    fn handle_errors(&mut self) {
        if std::mem::take(&mut self.outbox.error_queued) {
            self.admission.read_error_queue();
        }
    }

    fn flush(&mut self) {
        let Admission { context, socket, peers, .. } = &self.admission;
        self.outbox.flush(&self.inbound, socket, peers, context);
    }
}

/// A reply that waits for the end of its batch.
#[derive(Clone, Copy)]
struct PendingReply {
    /// The received datagram that it answers.
    slot: u32,
    /// The peer that it is sent to.
    index: u32,
    /// Whether its bytes are in the outbox's own buffer, or else in the received datagram.
    is_own: bool,
    start: u32,
    length: u32,
}

/// The replies of a batch.
#[derive(Default)]
struct Outbox {
    pending: Vec<PendingReply>,
    own: Vec<u8>,
    /// A send has put something into the error queue.
    error_queued: bool,
}

impl Outbox {
    /// Sends all pending replies with sendmmsg(2). What cannot be sent at once is dropped, and
    /// counted.
    fn flush(
        &mut self,
        inbound: &Inbound,
        socket: &DatagramSocket,
        peers: &Peers,
        context: &ServerContext,
    ) {
        let (pending, own) = (&self.pending, &self.own);
        let message = |pending: &PendingReply| {
            let received = inbound.get(pending.slot as usize);
            let bytes = if pending.is_own { own } else { received.data };
            let start = pending.start as usize;
            Outgoing {
                data: &bytes[start..start + pending.length as usize],
                to: received.from,
                control: &peers.get(pending.index).route,
            }
        };
        let sent = |at: usize| {
            let pending = &pending[at];
            peers.get(pending.index).record.count_sent(message(pending).data);
        };
        let Sent { dropped, error_queued } =
            send_all(socket, pending.len(), |at| message(&pending[at]), sent);
        self.error_queued |= error_queued;
        context.ledger.count_dropped(dropped as u64);
        self.pending.clear();
        self.own.clear();
    }
}

/// The service's interface for answering one datagram.
struct Answer<'a> {
    outbox: &'a mut Outbox,
    inbound: &'a Inbound,
    socket: &'a DatagramSocket,
    peers: &'a Peers,
    policy: &'a mut SenderPolicy,
    context: &'a ServerContext,
    slot: usize,
    index: u32,
    cut: bool,
    allowance: Allowance<'a>,
}

/// What one datagram may be answered.
struct Allowance<'a> {
    to: &'a Address,
    is_loopback: bool,
    /// How many replies the datagram may still get.
    left: usize,
}

impl<'a> Allowance<'a> {
    fn new(to: &'a Address, is_loopback: bool) -> Self {
        // Outside the loopback a datagram gets one reply, no longer than itself.
        Self { to, is_loopback, left: if is_loopback { usize::MAX } else { 1 } }
    }

    /// Whether a reply may be sent. Outside the loopback the sender's address may be forged, so the
    /// number, size and rate of replies are limited.
    fn may_send(&mut self, policy: &mut SenderPolicy, length: usize, request: usize) -> bool {
        let source = match self.to {
            // There is no address to answer to.
            Address::Unix(name) => return !name.is_unnamed(),
            Address::Ip(_) if self.is_loopback => return true,
            Address::Ip(source) => source.ip(),
        };
        let enough = self.left > 0 && length <= request;
        self.left = self.left.saturating_sub(1);
        enough && policy.may_answer(source)
    }
}

impl Reply for Answer<'_> {
    fn send(&mut self, data: &[u8]) {
        let input = self.inbound.get(self.slot).data;
        let is_too_long = data.len() > MOST_DATAGRAM && !self.socket.is_unix();
        if is_too_long || !self.allowance.may_send(self.policy, data.len(), input.len()) {
            return self.context.ledger.count_dropped(1);
        }
        let outbox = &mut *self.outbox;
        if outbox.pending.len() == BATCH || outbox.own.len() + data.len() > OUTBOX {
            outbox.flush(self.inbound, self.socket, self.peers, self.context);
        }
        // Echoed bytes are not copied.
        let within = (data.as_ptr() as usize).wrapping_sub(input.as_ptr() as usize);
        let is_own = within.checked_add(data.len()).is_none_or(|end| end > input.len());
        let start = if is_own { outbox.own.len() } else { within };
        if is_own {
            outbox.own.extend_from_slice(data);
        }
        outbox.pending.push(PendingReply {
            slot: self.slot as u32,
            index: self.index,
            is_own,
            start: start as u32,
            length: data.len() as u32,
        });
    }

    fn is_cut(&self) -> bool {
        self.cut
    }
}

/// The same for a datagram that has left the stages of its peer. The replies go into them.
struct StagedAnswer<'a> {
    replies: Vec<Vec<u8>>,
    /// The length of the datagram.
    request: usize,
    cut: bool,
    is_unix: bool,
    context: &'a ServerContext,
    allowance: Allowance<'a>,
    policy: &'a mut SenderPolicy,
}

impl Reply for StagedAnswer<'_> {
    fn send(&mut self, data: &[u8]) {
        let is_too_long = data.len() > MOST_DATAGRAM && !self.is_unix;
        if is_too_long || !self.allowance.may_send(self.policy, data.len(), self.request) {
            return self.context.ledger.count_dropped(1);
        }
        self.replies.push(data.to_vec());
    }

    fn is_cut(&self) -> bool {
        self.cut
    }
}
