//! A worker of a UDP server: a thread with one socket, which takes datagrams in batches, has a service
//! answer them, and sends the answers in batches. Owns the loop and what a reply may be; must never block but
//! for the next datagram, allocate for one, or let one peer's panic reach another.

use std::io;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::admission::Admission;
use super::amplification::SenderPolicy;
use super::errors::{Failure, classify};
use super::peer_table::Peers;
use super::send::{Sent, send_all};
use super::socket::{DatagramSocket, DatagramSockets, LEAST_IN_QUEUE, MOST_DATAGRAM};
use crate::net::address::canonical;
use crate::net::base::panic_text;
use crate::net::control::{Cause, ServerContext};
use crate::net::ledger::ClosedBy;
use crate::net::service::{Datagrams, Reply, SessionError};
use crate::net::sys::{self, BATCH, Inbound, Outgoing};
use crate::net::worker::ACCEPT_BACKOFF;

/// What replies are kept in that are not the datagram itself. A batch of larger ones leaves in parts.
const OUTBOX: usize = 128 * 1024;

/// Opens and starts the worker of a port. Nothing is left open where it fails.
pub(super) fn start(
    context: &Arc<ServerContext>,
    sockets: &Arc<DatagramSockets>,
    service: &Arc<dyn Datagrams>,
    port: DatagramSocket,
    number: usize,
    share: usize,
) -> io::Result<()> {
    let port = Arc::new(port);
    let worker = Worker::new(context, sockets, Arc::clone(&port), share)?;
    let (service, open) = (Arc::clone(service), Arc::clone(sockets));
    sockets.add(&port);
    let kept = Arc::clone(&port);
    let started = context.spawn(format!("rsock-worker-{number}"), move || {
        worker.run(&*service);
        open.remove(&kept);
    });
    if started.is_err() {
        sockets.remove(&port);
    }
    started
}

/// A worker before and while it runs.
struct Worker {
    context: Arc<ServerContext>,
    port: Arc<DatagramSocket>,
    admission: Admission,
    inbound: Inbound,
    outbox: Outbox,
}

impl Worker {
    fn new(
        context: &Arc<ServerContext>,
        sockets: &Arc<DatagramSockets>,
        port: Arc<DatagramSocket>,
        share: usize,
    ) -> io::Result<Self> {
        let idle = context.limits.idle;
        Ok(Self {
            inbound: Inbound::new(context.limits.datagram, port.tells_destination())?,
            outbox: Outbox::default(),
            admission: Admission::new(
                Arc::clone(context),
                Arc::clone(sockets),
                Arc::clone(&port),
                idle,
                share,
            ),
            context: Arc::clone(context),
            port,
        })
    }

    /// The thread's body: returns when the server is drained.
    fn run(mut self, service: &dyn Datagrams) {
        let served = catch_unwind(AssertUnwindSafe(|| self.serve_until_end(service)));
        match served {
            Ok(Ok(())) => {}
            Ok(Err(_)) => self.context.stop_by_itself(Cause::AcceptError),
            Err(_) => {
                self.context.count_error();
                self.context.stop_by_itself(Cause::AcceptError);
            }
        }
        let hard = self.context.shutdown.is_hard();
        self.admission.peers.close_all(hard);
    }

    fn serve_until_end(&mut self, service: &dyn Datagrams) -> io::Result<()> {
        // A receive that waits saves the poll before it, and the try after the last one.
        let may_block = self.port.may_block() && self.context.limits.idle.is_none();
        let flags = if may_block { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        while !self.port.has_ended() {
            match self.receive(BATCH, flags)? {
                Some(count) => self.serve(count, service),
                None if may_block => {}
                None => {
                    if self.port.wait(self.admission.peers.idle_at()) {
                        self.admission.hear_refusals();
                    }
                }
            }
            self.admission.peers.close_idle();
        }
        if self.context.shutdown.is_hard() {
            return Ok(());
        }
        // What is in the queue now is served like all before it; what comes later need not be.
        let mut left = sys::queued(self.port.as_fd()) / LEAST_IN_QUEUE;
        while left > 0 && Instant::now() < self.context.shutdown.deadline() {
            let Some(count) = self.receive(left, libc::MSG_DONTWAIT)? else { break };
            self.serve(count, service);
            left -= count.min(left);
        }
        Ok(())
    }

    /// Receives a batch; None where there is nothing, or where something else was to be heard.
    fn receive(&mut self, most: usize, flags: i32) -> io::Result<Option<usize>> {
        let error = match self.inbound.receive(self.port.as_fd(), most, flags) {
            Ok(count) => return Ok(Some(count)),
            Err(error) => error,
        };
        match classify(error.raw_os_error().unwrap_or(libc::EIO)) {
            Failure::Fatal => return Err(error),
            Failure::Exhausted | Failure::ThisOne => {
                self.context.ledger.count_accept_error();
                self.port.wait_for_notifier(Some(Instant::now() + ACCEPT_BACKOFF));
            }
            Failure::Earlier => self.admission.hear_refusals(),
            Failure::Blocked | Failure::Interrupted => {}
        }
        Ok(None)
    }

    /// Has the service answer what was received, and sends what it answers.
    fn serve(&mut self, count: usize, service: &dyn Datagrams) {
        self.admission.close_servers();
        for slot in 0..count {
            let Self { admission, inbound, outbox, context, port } = self;
            let received = inbound.get(slot);
            // Without a sender it is none, but the end.
            let Some(from) = received.from.address() else { continue };
            if received.cut {
                context.ledger.count_cut();
            }
            let to = sys::destination(received.control);
            let met = admission.meet(canonical(from), to, &mut |peers| {
                outbox.flush(inbound, port, peers, context);
            });
            let Some(index) = met else { continue };
            let known = admission.peers.get(index);
            known.record.count_received(received.data);
            let mut answer = Answer {
                outbox,
                inbound,
                port,
                peers: &admission.peers,
                policy: &mut admission.policy,
                context,
                slot,
                index,
                near: known.is_near,
                cut: received.cut,
                // Nobody gets more for a datagram than one of its own size.
                left: if known.is_near { usize::MAX } else { 1 },
            };
            let heard = catch_unwind(AssertUnwindSafe(|| {
                service.on_datagram(received.data, &known.peer, &mut answer)
            }));
            let error = match heard {
                Ok(Ok(())) => continue,
                Ok(Err(SessionError(error))) => error,
                Err(panic) => panic_text(&*panic),
            };
            self.flush();
            self.context.count_error();
            self.admission.peers.close(index, ClosedBy::Error, Some(error), false);
        }
        self.flush();
        if std::mem::take(&mut self.outbox.told) {
            self.admission.hear_refusals();
        }
    }

    fn flush(&mut self) {
        let Admission { context, port, peers, .. } = &self.admission;
        self.outbox.flush(&self.inbound, port, peers, context);
    }
}

/// A reply that waits for the end of its batch.
#[derive(Clone, Copy)]
struct Waiting {
    /// The datagram it answers.
    slot: u32,
    /// Whom it goes to.
    index: u32,
    /// Where its bytes are: in the datagram it answers, or among the outbox's own.
    is_own: bool,
    start: u32,
    length: u32,
}

/// The replies of a batch.
#[derive(Default)]
struct Outbox {
    waiting: Vec<Waiting>,
    own: Vec<u8>,
    /// The error queue has the story of some send.
    told: bool,
}

impl Outbox {
    /// sendmmsg(2) of all that waits. What cannot be sent at once is dropped, and counted.
    fn flush(
        &mut self,
        inbound: &Inbound,
        port: &DatagramSocket,
        peers: &Peers,
        context: &ServerContext,
    ) {
        let (waiting, own) = (&self.waiting, &self.own);
        let message = |waiting: &Waiting| {
            let received = inbound.get(waiting.slot as usize);
            let bytes = if waiting.is_own { own } else { received.data };
            let start = waiting.start as usize;
            Outgoing {
                data: &bytes[start..start + waiting.length as usize],
                to: received.from,
                control: &peers.get(waiting.index).route,
            }
        };
        let sent = |at: usize| {
            let waiting = &waiting[at];
            peers.get(waiting.index).record.count_sent(message(waiting).data);
        };
        let Sent { dropped, told } =
            send_all(port, waiting.len(), |at| message(&waiting[at]), sent);
        self.told |= told;
        context.ledger.count_dropped(dropped as u64);
        self.waiting.clear();
        self.own.clear();
    }
}

/// What the service answers one datagram through.
struct Answer<'a> {
    outbox: &'a mut Outbox,
    inbound: &'a Inbound,
    port: &'a DatagramSocket,
    peers: &'a Peers,
    policy: &'a mut SenderPolicy,
    context: &'a ServerContext,
    slot: usize,
    index: u32,
    near: bool,
    cut: bool,
    /// Replies that it may still get.
    left: usize,
}

impl Answer<'_> {
    /// Whether a reply to somebody who is not on this machine is one that nobody could be hurt by.
    fn is_harmless(&mut self, length: usize, asked: usize) -> bool {
        if self.near {
            return true;
        }
        let enough = self.left > 0 && length <= asked;
        self.left = self.left.saturating_sub(1);
        let source = self.peers.get(self.index).key.remote.ip();
        enough && self.policy.may_answer(source)
    }
}

impl Reply for Answer<'_> {
    fn send(&mut self, data: &[u8]) {
        let input = self.inbound.get(self.slot).data;
        if data.len() > MOST_DATAGRAM || !self.is_harmless(data.len(), input.len()) {
            return self.context.ledger.count_dropped(1);
        }
        let outbox = &mut *self.outbox;
        if outbox.waiting.len() == BATCH || outbox.own.len() + data.len() > OUTBOX {
            outbox.flush(self.inbound, self.port, self.peers, self.context);
        }
        // Echoed bytes stay where they are.
        let within = (data.as_ptr() as usize).wrapping_sub(input.as_ptr() as usize);
        let is_own = within.checked_add(data.len()).is_none_or(|end| end > input.len());
        let start = if is_own { outbox.own.len() } else { within };
        if is_own {
            outbox.own.extend_from_slice(data);
        }
        outbox.waiting.push(Waiting {
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
