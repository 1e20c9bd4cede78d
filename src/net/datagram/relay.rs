//! A worker of a UDP server that passes datagrams on: a thread with one socket for its peers, and for each
//! of them one to the target, so that it is known whose an answer is. Owns the loop and those sockets; must
//! never block but in its poll, nor wait for a send.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use super::admission::Admission;
use super::errors::{Failure, classify};
use super::send::{Sent, send_all};
use super::socket::{DatagramSocket, DatagramSockets, LEAST_IN_QUEUE};
use crate::net::address::{Endpoint, canonical};
use crate::net::base::{Listed, fork};
use crate::net::control::{Cause, Opened, Opening, ServerContext, forward_loops};
use crate::net::error::strerror;
use crate::net::ledger::{ClosedBy, Far};
use crate::net::service::{ForwarderId, Onward};
use crate::net::socket::Socket;
use crate::net::sys::{self, BATCH, Inbound, Name, Outgoing};
use crate::net::worker::ACCEPT_BACKOFF;

/// A session ends when nothing has gone its way for so long, where Limits.idle says nothing else: nobody
/// says goodbye on UDP, and each session has a descriptor.
const IDLE: Duration = Duration::from_secs(60);
/// Events of one poll.
const EVENTS: usize = 256;
const PORT: Token = Token(usize::MAX);
const NOTIFIER: Token = Token(usize::MAX - 1);

/// Opens and starts the worker of a port. Nothing is left open where it fails.
pub(super) fn start(
    context: &Arc<ServerContext>,
    sockets: &Arc<DatagramSockets>,
    onward: Arc<dyn Onward>,
    port: DatagramSocket,
    number: usize,
    share: usize,
) -> io::Result<()> {
    let port = Arc::new(port);
    let size = context.limits.datagram;
    let near = Inbound::new(size, port.tells_destination())?;
    let far = Inbound::new(size, false)?;
    let relay = Relay::new(context, sockets, Arc::clone(&port), onward, share)?;
    let (open, kept) = (Arc::clone(sockets), Arc::clone(&port));
    sockets.add(&port);
    let started = context.spawn(format!("rsock-worker-{number}"), move || {
        relay.run(near, far);
        open.remove(&kept);
    });
    if started.is_err() {
        sockets.remove(&port);
    }
    started
}

/// What a peer has beyond its account.
struct Session {
    /// The peer's number. Accounts are closed without asking us, and their places given to others.
    id: u64,
    socket: Socket,
    target: Endpoint,
    /// The peer, as a send wants it.
    name: Name,
    /// The last datagram was the peer's: it may be owed an answer.
    asked: bool,
    /// It is in the run queue.
    queued: bool,
    _opened: Option<Opened>,
}

/// A worker before and while it runs.
struct Relay {
    // First, so that the poller's number leaves the fork table before it is closed.
    _listed: Listed,
    poll: Poll,
    context: Arc<ServerContext>,
    port: Arc<DatagramSocket>,
    onward: Arc<dyn Onward>,
    admission: Admission,
    /// By the index of the peer.
    sessions: Vec<Option<Box<Session>>>,
    /// How many there are.
    open: usize,
    run: Vec<u32>,
    /// The port may have something to be received.
    readable: bool,
    /// Until when the port is left alone: the system is out of something.
    rest: Option<Instant>,
    /// Where it ends: how many datagrams may still be taken from the port.
    left: Option<usize>,
}

impl Relay {
    fn new(
        context: &Arc<ServerContext>,
        sockets: &Arc<DatagramSockets>,
        port: Arc<DatagramSocket>,
        onward: Arc<dyn Onward>,
        share: usize,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let listed = Listed::new(&poll);
        let watch = |number, token| {
            poll.registry().register(&mut SourceFd(&number), token, Interest::READABLE)
        };
        watch(port.as_fd().as_raw_fd(), PORT)?;
        watch(port.notifier.as_fd().as_raw_fd(), NOTIFIER)?;
        let idle = context.limits.idle.unwrap_or(IDLE);
        Ok(Self {
            _listed: listed,
            poll,
            admission: Admission::new(
                Arc::clone(context),
                Arc::clone(sockets),
                Arc::clone(&port),
                Some(idle),
                share,
            ),
            context: Arc::clone(context),
            port,
            onward,
            sessions: Vec::new(),
            open: 0,
            run: Vec::new(),
            readable: true,
            rest: None,
            left: None,
        })
    }

    /// The thread's body: returns when the server is drained.
    fn run(mut self, mut near: Inbound, mut far: Inbound) {
        let serve = || self.serve_until_end(&mut near, &mut far);
        let served = catch_unwind(AssertUnwindSafe(serve));
        if !matches!(served, Ok(Ok(()))) {
            if served.is_err() {
                self.context.count_error();
            }
            self.context.stop_by_itself(Cause::AcceptError);
        }
        let hard = self.context.shutdown.is_hard();
        for index in self.admission.peers.indices() {
            let owed = self.session(index).is_some_and(|session| session.asked);
            self.close(index, ClosedBy::Stop, None, hard || owed);
        }
    }

    fn serve_until_end(&mut self, near: &mut Inbound, far: &mut Inbound) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.poll(&mut events);
            if self.port.has_ended() && self.left.is_none() {
                if self.context.shutdown.is_hard() {
                    return Ok(());
                }
                // What is in the queue now is passed on like all before it; what comes later need not be.
                self.left = Some(sys::queued(self.port.as_fd()) / LEAST_IN_QUEUE);
                self.readable = true;
            }
            if self.readable && self.rest.is_none() {
                self.readable = self.take(near)?;
            }
            for index in std::mem::take(&mut self.run) {
                self.answer(index, far);
            }
            while let Some(index) = self.admission.peers.next_idle() {
                self.close(index, ClosedBy::Limit("idle"), None, false);
            }
            if self.left.is_some() && !self.readable && self.is_done() {
                return Ok(());
            }
        }
    }

    fn poll(&mut self, events: &mut Events) {
        if self.rest.is_some_and(|until| until <= Instant::now()) {
            self.rest = None;
        }
        let busy = !self.run.is_empty() || self.readable && self.rest.is_none();
        let until = [
            self.admission.peers.idle_at(),
            self.rest,
            self.left.map(|_| self.context.shutdown.deadline()),
        ];
        let next = until.into_iter().flatten().min();
        let timeout = next.map(|at| at.saturating_duration_since(Instant::now()));
        // EINTR: as good as a wake-up, for all is checked anew after it.
        let _ = self.poll.poll(events, if busy { Some(Duration::ZERO) } else { timeout });
        for event in &*events {
            match event.token() {
                PORT => self.readable = true,
                NOTIFIER => {
                    if !self.port.has_ended() {
                        self.port.notifier.clear();
                    }
                }
                Token(index) => self.enqueue(index as u32),
            }
        }
    }

    fn enqueue(&mut self, index: u32) {
        if let Some(session) = self.sessions.get_mut(index as usize).and_then(Option::as_mut) {
            if !std::mem::replace(&mut session.queued, true) {
                self.run.push(index);
            }
        }
    }

    /// Whether nobody is owed an answer that may still come.
    fn is_done(&self) -> bool {
        let owed = self.sessions.iter().flatten().any(|session| session.asked);
        !owed || self.context.shutdown.deadline() <= Instant::now()
    }

    fn session(&self, index: u32) -> Option<&Session> {
        self.sessions.get(index as usize)?.as_deref()
    }

    /// Receives a batch from the peers and passes it on; whether there may be more.
    fn take(&mut self, near: &mut Inbound) -> io::Result<bool> {
        let most = self.left.map_or(BATCH, |left| left.min(BATCH));
        if most == 0 {
            return Ok(false);
        }
        let error = match near.receive(self.port.as_fd(), most, libc::MSG_DONTWAIT) {
            Ok(count) => {
                if let Some(left) = &mut self.left {
                    *left -= count;
                }
                self.admission.close_servers();
                for slot in 0..count {
                    // Without a sender it is none, but the end.
                    if near.get(slot).from.address().is_none() {
                        return Ok(false);
                    }
                    self.pass_on(near, slot);
                }
                self.sweep();
                return Ok(count > 0);
            }
            Err(error) => error,
        };
        match classify(error.raw_os_error().unwrap_or(libc::EIO)) {
            Failure::Fatal => return Err(error),
            Failure::Exhausted | Failure::ThisOne => {
                self.context.ledger.count_accept_error();
                self.rest = Some(Instant::now() + ACCEPT_BACKOFF);
            }
            Failure::Earlier => self.hear_refusals(),
            Failure::Interrupted => {}
            Failure::Blocked => return Ok(false),
        }
        Ok(true)
    }

    fn pass_on(&mut self, near: &Inbound, slot: usize) {
        let received = near.get(slot);
        let Some(from) = received.from.address().map(canonical) else { return };
        if received.cut {
            self.context.ledger.count_cut();
        }
        let to = sys::destination(received.control);
        let Some(index) = self.admission.meet(from, to, &mut |_| ()) else { return };
        let id = self.admission.peers.get(index).peer.id;
        if self.session(index).is_some_and(|session| session.id != id) {
            self.drop_session(index);
        }
        if self.session(index).is_none() {
            let peer = &self.admission.peers.get(index).peer;
            let trail = forward_loops::trail(peer.local.clone(), peer.remote.clone());
            if trail.contains(&self.onward.hop()) {
                self.context.ledger.count_suspect();
                let error = "a datagram of its own came back to it".to_owned();
                return self.close(index, ClosedBy::Service, Some(error), false);
            }
            if let Err(error) = self.open(index, received.from, &trail) {
                return self.close(index, ClosedBy::Error, Some(error), false);
            }
        }
        let Some(session) = self.sessions[index as usize].as_deref_mut() else { return };
        let known = self.admission.peers.get_mut(index);
        known.record.count_received(received.data);
        known.earn(received.data.len());
        session.asked = true;
        match sys::send(session.socket.as_fd(), received.data, libc::MSG_DONTWAIT) {
            Ok(count) => {
                if let Some(far) = known.record.far() {
                    far.count_sent(count);
                }
            }
            Err(error) => self.far_failed(index, "send", &error, true),
        }
    }

    /// Opens the socket of a peer that is new. The text of an error is for its record.
    fn open(&mut self, index: u32, name: &Name, trail: &[ForwarderId]) -> Result<(), String> {
        let hop = self.onward.hop();
        let target = self.onward.target();
        let failed = |error: &io::Error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            format!("connect {target}: {}", strerror(errno))
        };
        let mut again = true;
        let (socket, local, opened) = loop {
            let opening = Opening::begin();
            let error = match self.connect(&target) {
                Ok((socket, local)) => {
                    let opened = opening.done(local.clone(), target.clone(), trail, hop);
                    break (socket, local, opened);
                }
                Err(error) => error,
            };
            drop(opening);
            let exhausted = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
            // Who was silent for longest gives up a descriptor.
            match self.oldest_but(index).filter(|_| exhausted && again) {
                Some(oldest) => self.close(oldest, ClosedBy::Limit("connections"), None, false),
                None => return Err(failed(&error)),
            }
            again = false;
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
            asked: false,
            queued: false,
            _opened: Some(opened),
        };
        let index = index as usize;
        self.sessions.resize_with(self.sessions.len().max(index + 1), || None);
        self.sessions[index] = Some(Box::new(session));
        self.open += 1;
        Ok(())
    }

    fn oldest_but(&self, index: u32) -> Option<u32> {
        self.admission.peers.oldest().filter(|&oldest| oldest != index)
    }

    fn connect(&self, target: &Endpoint) -> io::Result<(Socket, Endpoint)> {
        let socket = Socket::outward(target, &self.context.options)?;
        socket.options().connect(&target.address.to_raw()?)?;
        let local = socket.options().local_addr()?.as_socket();
        let local = local.ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
        Ok((socket, Endpoint::new(target.transport, local)))
    }

    /// Receives a batch from the target and sends it to the peer.
    fn answer(&mut self, index: u32, far: &mut Inbound) {
        let Some(session) = self.sessions.get_mut(index as usize).and_then(Option::as_deref_mut)
        else {
            return;
        };
        session.queued = false;
        let count = match far.receive(session.socket.as_fd(), BATCH, libc::MSG_DONTWAIT) {
            Ok(count) => count,
            Err(error) => return self.far_failed(index, "recv", &error, false),
        };
        session.asked = false;
        self.admission.peers.touch(index);
        let known = self.admission.peers.get(index);
        let source = known.key.remote.ip();
        let mut good = Vec::with_capacity(count);
        let mut credit = known.credit;
        for slot in 0..count {
            let received = far.get(slot);
            if let Some(account) = known.record.far() {
                account.count_received(received.data.len());
            }
            if received.cut {
                self.context.ledger.count_cut();
            }
            // To somebody who is not on this machine no more goes than came in his name.
            let length = received.data.len();
            let harmless =
                known.is_near || length <= credit && self.admission.policy.may_answer(source);
            if harmless {
                credit = credit.saturating_sub(length);
                good.push(slot);
            }
        }
        let message = |at: usize| Outgoing {
            data: far.get(good[at]).data,
            to: &session.name,
            control: &known.route,
        };
        let sent = |at: usize| known.record.count_sent(far.get(good[at]).data);
        let Sent { dropped, told } = send_all(&self.port, good.len(), message, sent);
        self.context.ledger.count_dropped((count - good.len() + dropped) as u64);
        self.admission.peers.get_mut(index).credit = credit;
        if told {
            self.hear_refusals();
        }
        if count == BATCH {
            self.enqueue(index);
        }
    }

    /// What an error of a socket to the target means.
    fn far_failed(&mut self, index: u32, step: &str, error: &io::Error, sending: bool) {
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
            // No room, or one that cannot be sent: nothing waits for a send.
            _ if sending => self.context.ledger.count_dropped(1),
            Failure::Interrupted | Failure::Exhausted => self.enqueue(index),
            _ => {}
        }
    }

    /// Closes a session with its account.
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
            // A child's copy would keep it in the poller, and its events coming.
            let number = session.socket.as_fd().as_raw_fd();
            let _ = self.poll.registry().deregister(&mut SourceFd(&number));
        }
    }

    /// Of peers that are not there any more: their sessions are closed with their accounts.
    fn hear_refusals(&mut self) {
        self.admission.hear_refusals();
        self.sweep();
    }

    /// Closes the sessions whose accounts are closed.
    fn sweep(&mut self) {
        if self.open <= self.admission.peers.count() {
            return;
        }
        for index in 0..self.sessions.len() as u32 {
            let peers = &self.admission.peers;
            let lives =
                |session: &Session| peers.has(index) && peers.get(index).peer.id == session.id;
            if self.session(index).is_some_and(|session| !lives(session)) {
                self.drop_session(index);
            }
        }
    }
}
