//! A worker: a thread with one poller that owns its connections outright. The only worker of a
//! server runs the accept loop as well. Owns the loop, the run queue and the batches; must never
//! attach to an interpreter (a service may), block anywhere but in its poll, or let a panic in one
//! connection reach another.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::acceptor::Acceptor;
use super::inbox::{Inbox, Message};
use super::sink::{Accepted, Inner};
use crate::net::base::{EventFd, Key, Listed, TimerFd, fork, panic_text};
use crate::net::connection::{Connection, Gone, Served, Turn, WorkerResources};
use crate::net::control::{FIRST_BYTE_GRACE, SeenResets, ServerContext};
use crate::net::ledger::{ClosedBy, EntryId, Record, Role, SocketClose};
use crate::net::service::{
    BATCH_BYTES, BATCH_CONNECTIONS, Batch, Leg, Notifier, Null, Peer, Service, Session,
};
use crate::net::socket::{Socket, TcpInfo};
use crate::net::stage::Chain;
use crate::net::stage::faults::Ack;
use crate::net::stage::tls::is_peers_tls_error;

/// The most bytes of one receive. A larger buffer saves few calls, and leaves less of the cache.
const SCRATCH: usize = 64 * 1024;
/// The most events that one poll returns.
const EVENTS: usize = 256;
/// How long the worker sleeps between its turns without a poller.
const POLL_BACKOFF: Duration = Duration::from_millis(10);
const INBOX: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);

struct Entry {
    session: Box<dyn Session>,
    connection: Connection,
    generation: u32,
    queued: bool,
}

/// The state of the worker's thread.
pub(crate) struct Worker {
    // First, so that the poller's number leaves the fork table before it is closed.
    _listed: Listed,
    context: Arc<ServerContext>,
    inbox: Arc<Inbox>,
    messages: Receiver<Message>,
    entries: Slab<Entry>,
    generation: u32,
    run: VecDeque<u32>,
    resources: WorkerResources,
    scratch: Box<[u8]>,
    draining: Option<Draining>,
    quit: bool,
    /// Those that have ended its connections.
    resets: SeenResets,
    /// Ends a poll exactly in time, for stages. None where no connection had any so far, or where
    /// there is no descriptor for it: then the poll rounds its time-out up to milliseconds.
    timer: Option<TimerFd>,
    /// Changes of the faults that connections are told of in this round.
    acks: Vec<Ack>,
    /// The program has closed the poller: no connection reports an event any more.
    is_lost: bool,
    /// The accept loop, if this is the server's only thread.
    acceptor: Option<Box<Acceptor<Vec<Accepted>>>>,
}

#[derive(Clone, Copy)]
struct Draining {
    deadline: Instant,
    /// Until when a connection that has received nothing yet is kept open. None once the grace is
    /// over.
    grace: Option<Instant>,
}

impl Worker {
    /// Opens the poller, which `flag` wakes. Fails with EMFILE and similar errors, with nothing
    /// left open.
    pub(crate) fn new(
        context: Arc<ServerContext>,
        flag: Arc<EventFd>,
    ) -> io::Result<(Self, Arc<Inbox>)> {
        let poll = Poll::new()?;
        let listed = Listed::new(&poll);
        poll.registry().register(
            &mut SourceFd(&flag.as_fd().as_raw_fd()),
            INBOX,
            Interest::READABLE,
        )?;
        let (inbox, messages) = Inbox::new(flag);
        let notifier: Arc<dyn Notifier> = Arc::clone(&inbox) as Arc<dyn Notifier>;
        let resets = SeenResets::new(&context.resets);
        let worker = Self {
            resources: WorkerResources::new(&context, poll, notifier),
            context,
            inbox: Arc::clone(&inbox),
            messages,
            entries: Slab::new(),
            generation: 0,
            run: VecDeque::new(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            draining: None,
            quit: false,
            resets,
            timer: None,
            acks: Vec::new(),
            is_lost: false,
            acceptor: None,
            _listed: listed,
        };
        Ok((worker, inbox))
    }

    /// Makes the worker run the accept loop until the stop. Called before `run`.
    pub(crate) fn accept_with(&mut self, acceptor: Acceptor<Vec<Accepted>>) -> io::Result<()> {
        let number = acceptor.descriptor();
        let mut listener = SourceFd(&number);
        self.resources.poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        self.acceptor = Some(Box::new(acceptor));
        Ok(())
    }

    /// The thread's body. Returns when the server is drained.
    pub(crate) fn run(mut self, service: &dyn Service) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.poll(&mut events);
            for event in &events {
                match (event.token(), &mut self.acceptor) {
                    (INBOX, _) => drop(self.inbox.flag.clear()),
                    // What is due is found below.
                    (TIMER, _) => {}
                    (LISTENER, Some(acceptor)) => acceptor.notice(event.is_read_closed()),
                    _ => self.notice(event),
                }
            }
            while let Ok(message) = self.messages.try_recv() {
                self.handle(message, service);
            }
            self.accept_turn(service);
            self.run_timers();
            if self.run_batches(service) {
                self.acks.clear();
            }
            if self.quit || self.end_of_drain() {
                return;
            }
        }
    }

    /// Runs a turn of the accept loop if the worker has one. Drains after the last turn.
    fn accept_turn(&mut self, service: &dyn Service) {
        let Some(mut acceptor) = self.acceptor.take() else { return };
        let open = acceptor.turn();
        for accepted in acceptor.arrived() {
            self.inbox.load.fetch_add(1, Relaxed);
            self.adopt(accepted, None, service);
        }
        if open {
            self.acceptor = Some(acceptor);
        } else {
            // A forked child's copy of the descriptor would keep it in the poller.
            let number = acceptor.descriptor();
            let mut listener = SourceFd(&number);
            let _ = self.resources.poll.registry().deregister(&mut listener);
            (*acceptor).end();
            self.drain();
        }
    }

    /// Serves once each connection that is queued now. Connections that the turn queues again wait
    /// for the next poll, so that the events of all others are handled first. True if each one has
    /// had its turn.
    fn run_batches(&mut self, service: &dyn Service) -> bool {
        let mut ready = self.run.len();
        while ready > 0 {
            let left = ready.min(BATCH_CONNECTIONS);
            let mut batch = Ready { left, served: 0, worker: self, service };
            // Each session's panics are caught in `serve`. This catches those of the service's own
            // `turn`.
            let turned = catch_unwind(AssertUnwindSafe(|| service.turn(&mut batch)));
            let served = batch.served;
            if turned.is_err() {
                self.context.count_error();
            }
            if served == 0 {
                return false;
            }
            ready -= served;
        }
        true
    }

    fn poll(&mut self, events: &mut Events) {
        let timeout = if self.run.is_empty() { self.timeout() } else { Some(Duration::ZERO) };
        self.inbox.asleep.store(true, SeqCst);
        // A message sent before this store did not set the flag.
        let timeout = if self.messages.is_empty() { timeout } else { Some(Duration::ZERO) };
        let polled = if self.is_lost { Ok(()) } else { self.resources.poll.poll(events, timeout) };
        if polled.is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            // EBADF: the program has closed a descriptor that it does not own.
            self.is_lost = true;
            self.context.lose();
        }
        if self.is_lost {
            events.clear();
            thread::sleep(POLL_BACKOFF);
        }
        self.inbox.asleep.store(false, SeqCst);
    }

    fn timeout(&mut self) -> Option<Duration> {
        let drain = self
            .draining
            .map(|drain| drain.grace.map_or(drain.deadline, |grace| grace.min(drain.deadline)));
        let acceptor = self.acceptor.as_ref().and_then(|acceptor| acceptor.next_turn());
        let next = [self.resources.timers.next(), drain, acceptor].into_iter().flatten().min()?;
        let left = next.saturating_duration_since(Instant::now());
        if let Some(timer) = self.timer.as_mut().filter(|_| !left.is_zero()) {
            if timer.set(next).is_ok() {
                return None;
            }
            // The program has closed it.
            self.timer = None;
        }
        Some(left)
    }

    /// Opens the exact timer, for stages.
    fn open_timer(&mut self) {
        if self.timer.is_some() {
            return;
        }
        let Ok(timer) = TimerFd::new() else { return };
        let number = timer.as_fd().as_raw_fd();
        let mut source = SourceFd(&number);
        if self.resources.poll.registry().register(&mut source, TIMER, Interest::READABLE).is_ok() {
            self.timer = Some(timer);
        }
    }

    fn token(index: usize, generation: u32) -> u64 {
        u64::from(generation) << 32 | (index as u64) << 1
    }

    /// The slot of a token, if the connection that the token was made for still owns it.
    fn find(&mut self, token: u64) -> Option<(usize, &mut Entry)> {
        let index = (token as u32 >> 1) as usize;
        let generation = (token >> 32) as u32;
        let entry = self.entries.get_mut(index)?;
        (entry.generation == generation).then_some((index, entry))
    }

    fn notice(&mut self, event: &mio::event::Event) {
        let token = event.token().0 as u64;
        let Some((index, entry)) = self.find(token) else { return };
        let leg = if token & 1 == 0 { Leg::Client } else { Leg::Upstream };
        entry.connection.notice(leg, event);
        self.enqueue(index);
    }

    fn enqueue(&mut self, index: usize) {
        let entry = &mut self.entries[index];
        if !entry.queued {
            entry.queued = true;
            self.run.push_back(index as u32);
        }
    }

    fn handle(&mut self, message: Message, service: &dyn Service) {
        match message {
            Message::Adopt(accepted) => self.adopt(accepted, None, service),
            Message::AdoptOuter(accepted, inner) => self.adopt(accepted, Some(inner), service),
            Message::Linger(leaving) => {
                self.insert(Connection::of_lingering(leaving), Box::new(Null));
                self.bound_lingering();
            }
            Message::Wake(token) => {
                if let Some((index, entry)) = self.find(token) {
                    entry.connection.due().wake = true;
                    self.enqueue(index);
                }
            }
            Message::Faults(ack) if self.resets.sees_another(&self.context.resets) => {
                self.force();
                self.update_faults(ack);
            }
            Message::Faults(ack) => self.update_faults(ack),
            Message::Drain => self.drain(),
            Message::Deadline => {
                if let Some(draining) = &mut self.draining {
                    draining.deadline = self.context.shutdown.deadline();
                }
            }
            Message::Quit => self.quit = true,
        }
    }

    /// Gives every connection the faults of now.
    fn update_faults(&mut self, ack: Ack) {
        if self.context.faults.is_used() {
            self.open_timer();
        }
        for index in self.indices() {
            self.entries[index].connection.due().faults = true;
            self.enqueue(index);
        }
        self.acks.push(ack);
    }

    /// Takes over a connection, with the socket of its upstream leg where it has one from the
    /// start.
    fn adopt(&mut self, accepted: Accepted, inner: Option<Inner>, service: &dyn Service) {
        let Accepted { socket, record, entry_id } = accepted;
        let line = self.context.limits.line;
        let peer = peer_of(&record, line);
        let is_inner = inner.is_some();
        let (inner, session, faults, own) = match inner {
            Some(Inner { socket, session, faults, stages }) => {
                (Some(socket), Some(session), faults, stages)
            }
            None => (None, None, None, Vec::new()),
        };
        // Without stages of its own, it was not in use before.
        let since = (!own.is_empty()).then(Instant::now);
        let stages = || match &faults {
            Some(faults) => {
                let mut chain = Box::new(Chain::new(own));
                // A chain that is not open yet cannot fail.
                let _ = faults.update(&mut chain, &record, Instant::now());
                Some(chain)
            }
            None => {
                let recorder = if is_inner { None } else { service.recorder(peer.id) };
                let mut chain = self.context.stages_of(&peer, &record, recorder);
                for stage in own.into_iter().rev() {
                    let empty = || Box::new(Chain::new(Vec::new()));
                    chain.get_or_insert_with(empty).put_first(stage);
                }
                chain
            }
        };
        let chain = match catch_unwind(AssertUnwindSafe(stages)) {
            Ok(chain) => chain,
            Err(panic) => return self.refuse(socket, entry_id, panic_text(&*panic)),
        };
        let session = match session {
            Some(session) => session,
            // Made when the stages are ready.
            None if chain.is_some() => Box::new(Null),
            None => match catch_unwind(AssertUnwindSafe(|| service.open(&peer))) {
                Ok(session) => session,
                Err(panic) => return self.refuse(socket, entry_id, panic_text(&*panic)),
            },
        };
        let mut connection = Connection::new(socket, record, Some(entry_id));
        if let Some(chain) = chain {
            self.open_timer();
            connection.put_stages(chain, faults, since);
        }
        inner.into_iter().for_each(|inner| connection.put_inner(inner));
        self.insert(connection, session);
    }

    /// Makes the session of a connection whose stages are ready for it.
    fn make_session(&mut self, index: usize, service: &dyn Service) {
        let line = self.context.limits.line;
        let Entry { session, connection, .. } = &mut self.entries[index];
        if connection.has_inner() {
            // That of an outer connection has been there from the start.
            connection.session_made();
            return self.enqueue(index);
        }
        let record = &connection.record;
        let peer = peer_of(record, line);
        match catch_unwind(AssertUnwindSafe(|| service.open(&peer))) {
            Ok(made) => {
                *session = made;
                connection.session_made();
                self.enqueue(index);
            }
            Err(panic) => {
                connection.end(ClosedBy::Error, Some(panic_text(&*panic)), true);
                self.close(index);
            }
        }
    }

    fn insert(&mut self, connection: Connection, session: Box<dyn Session>) {
        self.generation = self.generation.wrapping_add(1) & (u32::MAX >> 1);
        let generation = self.generation;
        let index = self.entries.insert(Entry { session, connection, generation, queued: false });
        let registered = self.entries[index]
            .connection
            .register(&self.resources, Self::token(index, generation));
        if let Err(error) = registered {
            // ENOMEM, or the limit of epoll watches: only this connection ends.
            let text = format!("epoll_ctl: {error}");
            self.entries[index].connection.end(ClosedBy::Error, Some(text), true);
        }
        if self.draining.is_some() {
            self.entries[index].connection.due().drain = true;
        }
        self.enqueue(index);
    }

    /// Closes the connection that has lingered for longest if more linger than the server may have
    /// connections. They have no slots.
    fn bound_lingering(&mut self) {
        if self.entries.len() <= self.context.admission.limit() {
            return;
        }
        let lingering =
            self.entries.iter().filter(|(_, entry)| entry.connection.entry_id.is_none());
        if let Some((index, _)) = lingering.min_by_key(|(_, entry)| entry.generation) {
            let connection = &mut self.entries[index].connection;
            let by = connection.closed_by();
            connection.end(by, None, false);
            self.close(index);
        }
    }

    fn refuse(&mut self, socket: Socket, entry_id: EntryId, error: String) {
        let close = SocketClose::Reset(socket.as_fd());
        self.close_record(entry_id, ClosedBy::Error, Some(error), close);
        self.context.count_error();
        socket.abort();
        self.release();
    }

    /// Tells every session that the server stops, and checks every receive buffer once more.
    fn drain(&mut self) {
        let deadline = self.context.shutdown.deadline();
        let grace = Instant::now() + FIRST_BYTE_GRACE;
        self.draining = Some(Draining { deadline, grace: Some(grace) });
        if deadline <= Instant::now() {
            // `drain=0` resets even connections that could close cleanly.
            return self.force();
        }
        for index in self.indices() {
            let connection = &mut self.entries[index].connection;
            connection.due().drain = true;
            connection.recheck();
            self.enqueue(index);
        }
    }

    fn run_timers(&mut self) {
        if self.resources.timers.next().is_none() {
            return;
        }
        let now = Instant::now();
        while let Some((token, key)) = self.resources.timers.pop_due(now) {
            let Some((index, entry)) = self.find(token) else { continue };
            match key {
                Key::Engine => entry.connection.due().engine_timer = true,
                // The turn itself runs the stages that are due.
                Key::Stages(_) => {}
                Key::Session(key) => entry.connection.due().timers.push(key),
            }
            self.enqueue(index);
        }
    }

    /// Serves one connection for a turn, and catches the errors and panics of its session.
    fn serve(&mut self, index: usize, service: &dyn Service) {
        let Some(entry) = self.entries.get_mut(index) else { return };
        entry.queued = false;
        let token = Self::token(index, entry.generation);
        let Entry { session, connection, .. } = entry;
        let (resources, scratch) = (&mut self.resources, &mut self.scratch);
        let served = catch_unwind(AssertUnwindSafe(|| {
            Turn { connection, resources, token }.serve(&mut **session, scratch)
        }));
        let served = match served {
            Ok(Ok(served)) => served,
            Ok(Err(error)) => {
                connection.end(ClosedBy::Error, Some(error.0), true);
                Served::Gone
            }
            Err(panic) => {
                connection.end(ClosedBy::Error, Some(panic_text(&*panic)), true);
                Served::Gone
            }
        };
        match served {
            Served::Gone => self.close(index),
            Served::More => self.enqueue(index),
            Served::Open => self.make_session(index, service),
            Served::Idle => {
                if self.draining.is_some() {
                    self.close_if_quiet(index);
                }
            }
        }
    }

    /// Closes a connection without pending work while the server drains. Within the grace it must
    /// have received something.
    fn close_if_quiet(&mut self, index: usize) {
        let graceful = self.draining.is_none_or(|drain| drain.grace.is_none());
        let connection = &mut self.entries[index].connection;
        if graceful && connection.record.awaits_proxy() {
            // Nothing is owed to a peer that is not known.
            connection.end_by_stop(false);
            return self.close(index);
        }
        // No request comes on the connection of a client.
        let silent = !connection.record.has_received() || connection.is_opening();
        let first = connection.record.role() == Role::Server && silent;
        let is_quiet = connection.is_quiet() && (graceful || !first);
        if !is_quiet && !connection.lingers_in_vain() {
            return;
        }
        if connection.end_if_stuck() {
            self.close(index);
        } else if connection.must_linger() {
            connection.linger_for_stop();
            self.enqueue(index);
        } else {
            connection.end_by_stop(false);
            self.close(index);
        }
    }

    /// Closes a connection. Its record closes before its socket, so that a peer that sees the end
    /// finds the record complete.
    fn close(&mut self, index: usize) {
        let entry = self.entries.remove(index);
        let Entry { session, connection, generation, .. } = entry;
        let entry_id = connection.entry_id;
        // The peer's doing, and no failure of the service, as an error of its TLS.
        let has_no_header = connection.is_ended_by_stage() && connection.record.awaits_proxy();
        // Its record is closed, and does not know yet how the connection ends.
        let lingered = entry_id.is_none().then(|| Arc::clone(&connection.record));
        let (gone, sockets) =
            connection.dismantle(&mut self.resources, Self::token(index, generation));
        let Gone { by, error, reset } = gone;
        let is_peers = error.as_deref().is_some_and(is_peers_tls_error);
        let told = tell(session, by, error.clone());
        // A session may know of a failure where its peer has ended the connection in order.
        let has_failed = by == ClosedBy::Error || matches!(told, Ok((ClosedBy::Error, _)));
        match (entry_id.is_some() && has_failed, has_no_header) {
            (true, true) => self.context.ledger.count_proxy_error(),
            (is_failure, _) if is_failure && !is_peers || told.is_err() => {
                self.context.count_error()
            }
            _ => {}
        }
        let reason = told.unwrap_or((by, error));
        // Counted from the call of `stop`, even if this worker has not read its message yet.
        self.context.count_stopped(reset && reason.0 == ClosedBy::Stop);
        // The client's socket comes first. A connection that its peer has reset is not reset again.
        let close = match sockets.first().map(Socket::as_fd) {
            Some(socket) if reset && by != ClosedBy::Reset => SocketClose::Reset(socket),
            Some(socket) => SocketClose::Plain { socket, resets: false },
            None => SocketClose::None,
        };
        match (entry_id, lingered) {
            (Some(entry_id), _) => self.close_record(entry_id, reason.0, reason.1, close),
            // One that is not reset has read everything.
            (None, Some(record)) if reset => {
                let info = TcpInfo::of(sockets[0].as_fd().as_raw_fd(), None).ok();
                record.note_close(close, reason.0, info.as_ref());
            }
            _ => {}
        }
        self.close_sockets(sockets, by, reset, entry_id.is_none());
        self.release();
    }

    /// Closes the sockets of a connection, that of the client first. `has_lingered` is whether its
    /// record was closed before.
    fn close_sockets(&self, sockets: Vec<Socket>, by: ClosedBy, reset: bool, has_lingered: bool) {
        let mut already_reset = by == ClosedBy::Reset;
        for socket in sockets {
            if fork::has_forked() {
                // A forked child's copy of the descriptor keeps it in the poller, which would go on
                // reporting it.
                let _ = self
                    .resources
                    .poll
                    .registry()
                    .deregister(&mut SourceFd(&socket.as_fd().as_raw_fd()));
            }
            match (reset, has_lingered) {
                (true, false) if !std::mem::take(&mut already_reset) => socket.abort(),
                // A handler may have duplicated the socket. This ends the duplicate too.
                (true, true) => socket.reset(),
                (false, true) => drop(socket.shutdown(Shutdown::Both)),
                (_, false) => {}
            }
        }
    }

    /// Services in Rust do not change the congestion control algorithm: it is the listener's.
    fn close_record(
        &self,
        entry_id: EntryId,
        by: ClosedBy,
        error: Option<String>,
        close: SocketClose<'_>,
    ) {
        let inherited = self.context.algorithm.get().copied();
        self.context.close_record(entry_id, by, error, inherited, close);
    }

    /// Accounts for a connection whose descriptors are closed.
    fn release(&self) {
        self.inbox.load.fetch_sub(1, Relaxed);
        self.context.admission.closed();
    }

    /// Applies the drain's grace and deadline. True if the worker has nothing left to do.
    fn end_of_drain(&mut self) -> bool {
        let Some(draining) = self.draining else { return false };
        let now = Instant::now();
        if draining.deadline <= now || self.is_lost {
            self.force();
        } else if draining.grace.is_some_and(|grace| grace <= now) {
            self.draining = Some(Draining { grace: None, ..draining });
            for index in self.indices() {
                self.close_if_quiet(index);
            }
        }
        self.entries.is_empty() && self.messages.is_empty()
    }

    /// Resets all connections that it has.
    fn force(&mut self) {
        for index in self.indices() {
            self.entries[index].connection.end_by_stop(true);
            self.close(index);
        }
    }

    fn indices(&self) -> Vec<usize> {
        self.entries.iter().map(|(index, _)| index).collect()
    }
}

/// The peer of a connection, as far as it is known now.
fn peer_of(record: &Record, line: usize) -> Peer {
    let (id, local, remote) = (record.id(), record.local(), record.remote());
    let tlvs = record.proxy_header().map_or_else(Vec::new, |header| header.tlvs.clone());
    Peer { id, local, remote, proxy: record.proxy(), tlvs, line }
}

/// Tells a session how its connection has ended. Returns what the session says of that.
fn tell(
    mut session: Box<dyn Session>,
    by: ClosedBy,
    error: Option<String>,
) -> thread::Result<(ClosedBy, Option<String>)> {
    catch_unwind(AssertUnwindSafe(|| {
        let reason = session.explain(by, error);
        session.closed(by);
        drop(session);
        reason
    }))
}

/// The head of the run queue, as one batch.
struct Ready<'a> {
    worker: &'a mut Worker,
    service: &'a dyn Service,
    left: usize,
    served: usize,
}

impl Batch for Ready<'_> {
    fn run(&mut self) {
        let mut bytes = 0;
        while self.left > 0 && bytes < BATCH_BYTES {
            self.left -= 1;
            self.served += 1;
            let Some(index) = self.worker.run.pop_front() else { return };
            self.worker.serve(index as usize, self.service);
            bytes += BATCH_BYTES - self.worker.resources.budget;
        }
    }
}
