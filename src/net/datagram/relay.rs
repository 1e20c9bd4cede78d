//! A worker of a UDP server that forwards datagrams. It is a thread with one socket for all peers,
//! and for each peer one socket to the target, so that an answer can be matched to its peer. Owns
//! the loop and those sockets; must never block outside its poll, nor wait for a send.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::admission::Admission;
use super::errors::{Failure, classify};
use super::fault_changes::FaultChanges;
use super::send::{Sent, send_all};
use super::socket::{DatagramSocket, DatagramSockets, LEAST_IN_QUEUE};
use crate::net::address::{Endpoint, canonical};
use crate::net::base::{Listed, TimerFd, fork};
use crate::net::control::forward_loops::MOST_HOPS;
use crate::net::control::{Opened, Opening, ServerContext, forward_loops};
use crate::net::error::strerror;
use crate::net::ledger::{ClosedBy, Far};
use crate::net::service::{ForwarderId, Onward};
use crate::net::socket::{Socket, hops};
use crate::net::stage::Direction;
use crate::net::sys::{self, BATCH, Inbound, Name, Outgoing};
use crate::net::worker::{ACCEPT_BACKOFF, shut_down};

/// How long a session without datagrams stays open if `Limits.idle` is not set. UDP has no end of a
/// connection, and each session holds a descriptor.
const IDLE: Duration = Duration::from_secs(60);
/// The most events that one poll returns.
const EVENTS: usize = 256;
const SOCKET: Token = Token(usize::MAX);
const NOTIFIER: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);

/// Opens and starts the worker of a socket. On failure everything is closed again.
pub(super) fn start(
    context: &Arc<ServerContext>,
    sockets: &Arc<DatagramSockets>,
    onward: Arc<dyn Onward>,
    socket: DatagramSocket,
    number: usize,
    share: usize,
) -> io::Result<()> {
    let socket = Arc::new(socket);
    let size = context.limits.datagram;
    hops::report_with_datagrams(&*socket);
    let from_clients = Inbound::new(size, true)?;
    let from_upstream = Inbound::new(size, false)?;
    let relay = Relay::new(context, Arc::clone(&socket), onward, share)?;
    let (open, served) = (Arc::clone(sockets), Arc::clone(&socket));
    sockets.add(&socket);
    let started = context.spawn(format!("rsock-worker-{number}"), move || {
        relay.run(from_clients, from_upstream);
        open.remove(&served);
    });
    if started.is_err() {
        sockets.remove(&socket);
    }
    started
}

/// The state of a peer beside its record.
struct Session {
    /// The peer's number. `Admission` closes records without a call of the relay, and their indices
    /// are used again.
    id: u64,
    socket: Socket,
    target: Endpoint,
    /// The peer's address in the form that a send takes.
    name: Name,
    /// The last datagram came from the peer, so that an answer may follow.
    awaits_answer: bool,
    /// The session is in the run queue.
    queued: bool,
    _opened: Option<Opened>,
}

/// The state of the worker's thread.
struct Relay {
    // First, so that the poller's number leaves the fork table before it is closed.
    _listed: Listed,
    poll: Poll,
    context: Arc<ServerContext>,
    socket: Arc<DatagramSocket>,
    onward: Arc<dyn Onward>,
    admission: Admission,
    /// By the index of the peer.
    sessions: Vec<Option<Box<Session>>>,
    /// The number of open sessions.
    open: usize,
    run: Vec<u32>,
    /// The socket may have something to receive.
    readable: bool,
    /// Until when the socket is not read, because the system is out of a resource.
    paused_until: Option<Instant>,
    /// The poller has reported that the socket was shut down.
    is_shut: bool,
    /// While the server drains: how many datagrams may still be received.
    left: Option<usize>,
    changes: Arc<FaultChanges>,
    /// Ends a poll exactly in time, for stages. None where no peer had any so far, or where there is
    /// no descriptor for it.
    timer: Option<TimerFd>,
    /// The datagram at hand of those that have left stages.
    staged: Vec<u8>,
}

impl Relay {
    fn new(
        context: &Arc<ServerContext>,
        socket: Arc<DatagramSocket>,
        onward: Arc<dyn Onward>,
        share: usize,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let listed = Listed::new(&poll);
        let watch = |number, token| {
            poll.registry().register(&mut SourceFd(&number), token, Interest::READABLE)
        };
        watch(socket.as_fd().as_raw_fd(), SOCKET)?;
        watch(socket.notifier.as_fd().as_raw_fd(), NOTIFIER)?;
        let idle = context.limits.idle.unwrap_or(IDLE);
        let changes = FaultChanges::listen(context, Arc::clone(&socket.notifier));
        let own = Arc::clone(context);
        let mut admission = Admission::new(own, Arc::clone(&socket), Some(idle), share);
        admission.peers.record(onward.recorder());
        Ok(Self {
            _listed: listed,
            poll,
            admission,
            context: Arc::clone(context),
            socket,
            onward,
            sessions: Vec::new(),
            open: 0,
            run: Vec::new(),
            readable: true,
            paused_until: None,
            is_shut: false,
            left: None,
            changes,
            timer: None,
            staged: Vec::new(),
        })
    }

    /// The thread's body. Returns when the server is drained.
    fn run(mut self, mut from_clients: Inbound, mut from_upstream: Inbound) {
        let serve = || self.serve_until_end(&mut from_clients, &mut from_upstream);
        let served = catch_unwind(AssertUnwindSafe(serve));
        self.context.conclude(served);
        let hard = self.context.shutdown.is_hard();
        for index in self.admission.peers.indices() {
            let awaits_answer = self.session(index).is_some_and(|session| session.awaits_answer);
            let is_owed = awaits_answer || self.admission.peers.is_owed(index);
            self.close(index, ClosedBy::Stop, None, hard || is_owed);
        }
        self.changes.end();
    }

    fn serve_until_end(
        &mut self,
        from_clients: &mut Inbound,
        from_upstream: &mut Inbound,
    ) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.poll(&mut events)?;
            if self.is_shut && !self.socket.has_ended() {
                return Err(shut_down());
            }
            if self.socket.has_ended() && self.left.is_none() {
                if self.context.shutdown.is_hard() {
                    return Ok(());
                }
                // What is in the queue now is still forwarded, unless it is left to others. Later
                // datagrams are not.
                let is_left = self.socket.is_handed_over();
                let queued = if is_left { 0 } else { sys::queued(self.socket.as_fd()) };
                self.left = Some(queued / LEAST_IN_QUEUE);
                self.readable = true;
            }
            if self.readable && self.paused_until.is_none() {
                self.readable = self.receive_from_clients(from_clients)?;
            }
            if self.changes.is_pending() {
                self.update_faults();
            }
            self.serve_due();
            for index in std::mem::take(&mut self.run) {
                self.forward_down(index, from_upstream);
            }
            while let Some(index) = self.admission.peers.next_idle() {
                self.close(index, ClosedBy::Limit("idle"), None, false);
            }
            if self.left.is_some() && !self.readable && self.is_done() {
                return Ok(());
            }
        }
    }

    /// EBADF if the program has closed the poller.
    fn poll(&mut self, events: &mut Events) -> io::Result<()> {
        if self.paused_until.is_some_and(|until| until <= Instant::now()) {
            self.paused_until = None;
        }
        let busy = !self.run.is_empty() || self.readable && self.paused_until.is_none();
        let due = self.admission.peers.next_due();
        let until = [
            due.filter(|&due| !self.set_timer(due)),
            self.admission.peers.idle_at(),
            self.paused_until,
            self.left.map(|_| self.context.shutdown.deadline()),
        ];
        let next = until.into_iter().flatten().min();
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        match self.poll.poll(events, if busy { Some(Duration::ZERO) } else { timeout }) {
            // A wake-up: everything is checked again after it.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.clear(),
            polled => polled?,
        }
        for event in &*events {
            match event.token() {
                SOCKET => {
                    self.readable = true;
                    self.is_shut |= event.is_read_closed();
                }
                NOTIFIER => {
                    if !self.socket.has_ended() {
                        self.socket.notifier.clear();
                    }
                }
                // What is due is found later.
                TIMER => {}
                Token(index) => self.enqueue(index as u32),
            }
        }
        Ok(())
    }

    /// Has the poll end at a time, exactly. False if that cannot be had.
    fn set_timer(&mut self, at: Instant) -> bool {
        if at <= Instant::now() {
            return false;
        }
        if self.timer.is_none() {
            let Ok(timer) = TimerFd::new() else { return false };
            let number = timer.as_fd().as_raw_fd();
            let mut source = SourceFd(&number);
            if self.poll.registry().register(&mut source, TIMER, Interest::READABLE).is_err() {
                return false;
            }
            self.timer = Some(timer);
        }
        let is_set = self.timer.as_mut().is_some_and(|timer| timer.set(at).is_ok());
        if !is_set {
            // The program has closed it.
            self.timer = None;
        }
        is_set
    }

    /// Gives every peer the faults of now.
    fn update_faults(&mut self) {
        // Confirmed at the end.
        let _acks = self.changes.take();
        if self.changes.is_reset(&self.context) {
            for index in self.admission.peers.indices() {
                self.close(index, ClosedBy::Stop, None, true);
            }
        }
        for index in self.admission.peers.indices() {
            // An error of another peer may have closed it.
            if self.admission.peers.has(index) && self.admission.update_faults(index) {
                self.serve_staged(index);
            }
        }
        self.drop_closed_sessions();
    }

    /// Calls the stages whose time has come.
    fn serve_due(&mut self) {
        if self.admission.peers.next_due().is_none() {
            return;
        }
        let now = Instant::now();
        while let Some(index) = self.admission.turn_staged(now) {
            self.serve_staged(index);
        }
        self.drop_closed_sessions();
    }

    /// Sends what the stages of a peer have passed on: to the target, and to the peer.
    fn serve_staged(&mut self, index: u32) {
        let mut data = std::mem::take(&mut self.staged);
        while self.admission.take_staged(index, &mut data) {
            self.send_up(index, &data);
            if !self.admission.peers.has(index) {
                break;
            }
        }
        self.staged = data;
        if self.admission.peers.has(index) && self.admission.send_staged(index) {
            self.read_error_queue();
        }
    }

    fn enqueue(&mut self, index: u32) {
        if let Some(session) = self.sessions.get_mut(index as usize).and_then(Option::as_mut) {
            if !std::mem::replace(&mut session.queued, true) {
                self.run.push(index);
            }
        }
    }

    /// Whether no answer is outstanding, or the deadline has passed.
    fn is_done(&self) -> bool {
        let awaits_answer = self.sessions.iter().flatten().any(|session| session.awaits_answer);
        !awaits_answer && !self.admission.peers.are_owed()
            || self.context.shutdown.deadline() <= Instant::now()
    }

    fn session(&self, index: u32) -> Option<&Session> {
        self.sessions.get(index as usize)?.as_deref()
    }

    /// Receives a batch from the peers and forwards it. Returns whether there may be more.
    fn receive_from_clients(&mut self, from_clients: &mut Inbound) -> io::Result<bool> {
        let most = self.left.map_or(BATCH, |left| left.min(BATCH));
        if most == 0 {
            return Ok(false);
        }
        let error = match from_clients.receive(self.socket.as_fd(), most, libc::MSG_DONTWAIT) {
            Ok(count) => {
                if let Some(left) = &mut self.left {
                    *left -= count;
                }
                self.admission.close_servers();
                for slot in 0..count {
                    // A datagram without a sender marks the end: the socket was shut down.
                    if from_clients.get(slot).from.address().is_none() {
                        return Ok(false);
                    }
                    self.forward_up(from_clients, slot);
                }
                self.drop_closed_sessions();
                return Ok(count > 0);
            }
            Err(error) => error,
        };
        match classify(error.raw_os_error().unwrap_or(libc::EIO)) {
            Failure::Fatal => return Err(error),
            Failure::Exhausted | Failure::ThisOne => {
                self.context.ledger.count_accept_error();
                self.paused_until = Some(Instant::now() + ACCEPT_BACKOFF);
            }
            Failure::Earlier => self.read_error_queue(),
            Failure::Interrupted => {}
            Failure::Blocked => return Ok(false),
        }
        Ok(true)
    }

    fn forward_up(&mut self, from_clients: &Inbound, slot: usize) {
        let received = from_clients.get(slot);
        let Some(from) = received.from.address().map(canonical) else { return };
        let Some(own) = self.socket.local.as_ip() else { return };
        if received.cut {
            self.context.ledger.count_cut();
        }
        let to = sys::destination(received.control);
        let Some(index) = self.admission.find_or_admit(from.into(), to, &mut |_| ()) else {
            return;
        };
        let id = self.admission.peers.get(index).peer.id;
        if self.session(index).is_some_and(|session| session.id != id) {
            self.drop_session(index);
        }
        if self.session(index).is_none() {
            let peer = &self.admission.peers.get(index).peer;
            let trail = forward_loops::trail(peer.local.clone(), peer.remote.clone());
            if trail.contains(&self.onward.forwarder()) {
                self.context.ledger.count_suspect();
                let error = "a datagram that this server forwarded came back to it".to_owned();
                return self.close(index, ClosedBy::Service, Some(error), false);
            }
            let local = to.map_or(own.ip(), |(_, own)| own);
            let hops = hops::of_datagram(&*self.socket, local, from.ip(), received.control);
            if hops >= MOST_HOPS {
                self.context.ledger.count_suspect();
                let error = forward_loops::too_many_hops(&self.onward.target().to_string());
                return self.close(index, ClosedBy::Service, Some(error), false);
            }
            if let Err(error) = self.open(index, received.from, &trail, hops + 1) {
                return self.close(index, ClosedBy::Error, Some(error), false);
            }
        }
        let entry = self.admission.peers.get_mut(index);
        entry.record.count_received(received.data);
        if entry.stages.is_some() {
            if self.admission.receive_staged(index, received.data, to, received.cut) {
                self.serve_staged(index);
            }
            return;
        }
        entry.add_credit(received.data.len());
        self.send_up(index, received.data);
    }

    /// Sends a datagram of a peer to its target.
    fn send_up(&mut self, index: u32, data: &[u8]) {
        let Some(session) = self.sessions.get_mut(index as usize).and_then(Option::as_deref_mut)
        else {
            return;
        };
        let entry = self.admission.peers.get(index);
        session.awaits_answer = true;
        match sys::send(session.socket.as_fd(), data, libc::MSG_DONTWAIT) {
            Ok(count) => entry.record.count_far_sent(count, Some(data)),
            Err(error) => self.handle_upstream_error(index, "send", &error, true),
        }
    }

    /// Opens the socket of a new peer. The text of an error is for its record.
    /// `hops` is the number of forwarders that its datagrams have passed, with this one.
    fn open(
        &mut self,
        index: u32,
        name: &Name,
        trail: &[ForwarderId],
        hops: u8,
    ) -> Result<(), String> {
        let hop = self.onward.forwarder();
        let target = self.onward.target();
        let failed = |error: &io::Error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            format!("connect {target}: {}", strerror(errno))
        };
        let mut may_retry = true;
        let (socket, local, opened) = loop {
            let opening = Opening::begin();
            let error = match self.connect(&target, hops) {
                Ok((socket, local)) => {
                    let opened = opening.done(local.clone(), target.clone(), trail, hop);
                    break (socket, local, opened);
                }
                Err(error) => error,
            };
            drop(opening);
            let exhausted = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
            // The session that was silent for longest gives up its descriptor.
            match self.oldest_except(index).filter(|_| exhausted && may_retry) {
                Some(oldest) => self.close(oldest, ClosedBy::Limit("connections"), None, false),
                None => return Err(failed(&error)),
            }
            may_retry = false;
        };
        let number = socket.as_fd().as_raw_fd();
        let token = Token(index as usize);
        self.poll
            .registry()
            .register(&mut SourceFd(&number), token, Interest::READABLE)
            .map_err(|error| failed(&error))?;
        self.admission.peers.get(index).record.open_far(Box::new(Far::new(local, target.clone())));
        let session = Session {
            id: self.admission.peers.get(index).peer.id,
            socket,
            target,
            name: *name,
            awaits_answer: false,
            queued: false,
            _opened: Some(opened),
        };
        let index = index as usize;
        self.sessions.resize_with(self.sessions.len().max(index + 1), || None);
        self.sessions[index] = Some(Box::new(session));
        self.open += 1;
        Ok(())
    }

    fn oldest_except(&self, index: u32) -> Option<u32> {
        self.admission.peers.oldest().filter(|&oldest| oldest != index)
    }

    fn connect(&self, target: &Endpoint, hops: u8) -> io::Result<(Socket, Endpoint)> {
        let raw = target.address.to_raw()?;
        let connected = || {
            let socket = Socket::outward(target, &self.context.options)?;
            hops::mark(&socket, target.address.domain(), hops);
            socket.options().connect(&raw).map(|()| socket)
        };
        let mut socket = connected()?;
        if socket.is_connected_to_itself(&target.address) {
            // The next one gets another port, because this one is still open.
            socket = connected()?;
        }
        let local = socket.options().local_addr()?.as_socket();
        let local = local.ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
        Ok((socket, Endpoint::new(target.transport, local)))
    }

    /// Receives a batch from the target and sends it to the peer.
    fn forward_down(&mut self, index: u32, from_upstream: &mut Inbound) {
        let Some(session) = self.sessions.get_mut(index as usize).and_then(Option::as_deref_mut)
        else {
            return;
        };
        session.queued = false;
        let count = match from_upstream.receive(session.socket.as_fd(), BATCH, libc::MSG_DONTWAIT) {
            Ok(count) => count,
            Err(error) => return self.handle_upstream_error(index, "recv", &error, false),
        };
        session.awaits_answer = false;
        self.admission.peers.touch(index);
        let entry = self.admission.peers.get(index);
        for slot in 0..count {
            let received = from_upstream.get(slot);
            entry.record.count_far_received(received.data.len(), Some(received.data));
            if received.cut {
                self.context.ledger.count_cut();
            }
        }
        if self.admission.is_staged(index) {
            self.answer_through_stages(index, from_upstream, count);
        } else {
            self.answer(index, from_upstream, count);
        }
        if count == BATCH {
            self.enqueue(index);
        }
    }

    /// Sends a batch of the target to the peer.
    fn answer(&mut self, index: u32, from_upstream: &Inbound, count: usize) {
        let Some(session) = self.sessions[index as usize].as_deref() else { return };
        let entry = self.admission.peers.get(index);
        let source = entry.key.remote.as_ip();
        let mut allowed = Vec::with_capacity(count);
        let mut credit = entry.credit;
        for slot in 0..count {
            // A peer outside the loopback is sent no more bytes than came from its address.
            let length = from_upstream.get(slot).data.len();
            let is_allowed = entry.is_loopback
                || length <= credit
                    && source.is_none_or(|source| self.admission.policy.may_answer(source.ip()));
            if is_allowed {
                credit = credit.saturating_sub(length);
                allowed.push(slot);
            }
        }
        let message = |at: usize| Outgoing {
            data: from_upstream.get(allowed[at]).data,
            to: &session.name,
            control: &entry.route,
        };
        let sent = |at: usize| entry.record.count_sent(from_upstream.get(allowed[at]).data);
        let Sent { dropped, error_queued } = send_all(&self.socket, allowed.len(), message, sent);
        self.context.ledger.count_dropped((count - allowed.len() + dropped) as u64);
        self.admission.peers.get_mut(index).credit = credit;
        if error_queued {
            self.read_error_queue();
        }
    }

    /// The same where the peer has stages. They may lose some, so the bytes that a peer outside the
    /// loopback may be sent are counted behind them.
    fn answer_through_stages(&mut self, index: u32, from_upstream: &Inbound, count: usize) {
        for slot in 0..count {
            let data = from_upstream.get(slot).data;
            let entry = self.admission.peers.get(index);
            let source = entry.key.remote.as_ip().map(|source| source.ip());
            let is_allowed = entry.is_loopback
                || source.is_none_or(|source| self.admission.policy.may_answer(source));
            if !is_allowed {
                self.context.ledger.count_dropped(1);
            } else if !self.admission.push_staged(index, Direction::Outbound, data) {
                return self.drop_closed_sessions();
            }
        }
        self.serve_staged(index);
    }

    /// Handles an error of a socket to the target.
    fn handle_upstream_error(&mut self, index: u32, step: &str, error: &io::Error, sending: bool) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        match classify(errno) {
            Failure::Earlier => {
                let Some(session) = self.session(index) else { return };
                let target = session.target.clone();
                if errno == libc::ECONNREFUSED {
                    Arc::clone(&self.onward).refused(target.clone());
                }
                if sending {
                    self.context.ledger.count_dropped(1);
                }
                let text = format!("{step} {target}: {}", strerror(errno));
                self.close(index, ClosedBy::Error, Some(text), false);
            }
            // There is no room, or the datagram cannot be sent. No send is retried.
            _ if sending => self.context.ledger.count_dropped(1),
            Failure::Interrupted | Failure::Exhausted => self.enqueue(index),
            _ => {}
        }
    }

    /// Closes a session together with its record.
    fn close(&mut self, index: u32, by: ClosedBy, error: Option<String>, forced: bool) {
        self.drop_session(index);
        if by == ClosedBy::Error {
            self.context.count_error();
        }
        self.admission.peers.close(index, by, error, forced);
    }

    fn drop_session(&mut self, index: u32) {
        let Some(session) = self.sessions.get_mut(index as usize).and_then(Option::take) else {
            return;
        };
        self.open -= 1;
        if fork::has_forked() {
            // A forked child's copy of the descriptor keeps it in the poller, which would go on
            // reporting it.
            let number = session.socket.as_fd().as_raw_fd();
            let _ = self.poll.registry().deregister(&mut SourceFd(&number));
        }
    }

    /// Reads the error queue, and closes the sessions of the peers that it closed.
    fn read_error_queue(&mut self) {
        self.admission.read_error_queue();
        self.drop_closed_sessions();
    }

    /// Drops the sessions whose records are closed.
    fn drop_closed_sessions(&mut self) {
        if self.open <= self.admission.peers.count() {
            return;
        }
        for index in 0..self.sessions.len() as u32 {
            let peers = &self.admission.peers;
            let is_open =
                |session: &Session| peers.has(index) && peers.get(index).peer.id == session.id;
            if self.session(index).is_some_and(|session| !is_open(session)) {
                self.drop_session(index);
            }
        }
    }
}
