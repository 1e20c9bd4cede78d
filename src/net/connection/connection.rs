//! One connection as its worker sees it: its legs, their flags and buffers, and how a turn of it is
//! served. Owns the edge-trigger rules and the rules of half-close and lingering close. Must never
//! block, take a lock, or allocate on the way of data that can be sent at once.
//!
//! The edge-trigger rules: a leg is readable or writable until the kernel says EAGAIN. One shortcut
//! saves a call a message: a short read means an empty queue, but only if the event that announced
//! the data said nothing of an end, an error or urgent data (`drain_to_eagain`), for these end a read early
//! and do not announce themselves twice.

#![allow(
    clippy::box_collection,
    clippy::vec_box,
    reason = "an idle leg holds a null pointer, where an empty collection takes three words"
)]

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};

use crate::net::address::endpoint::{Endpoint, Transport};
use crate::net::base::timers::{Key, Timers};
use crate::net::connection::connect::UpstreamLeg;
use crate::net::connection::lingering_socket::LingeringSocket;
use crate::net::control::limits::Limits;
use crate::net::error::strerror;
use crate::net::ledger::closed_by::ClosedBy;
use crate::net::ledger::ledger::EntryId;
use crate::net::ledger::record::Record;
use crate::net::service::service::BATCH_BYTES;
use crate::net::service::session::{Drain, Io, Leg, Session, SessionError, SessionResult};
use crate::net::service::waker::{Notifier, Waker};
use crate::net::socket::lingering::Until;
use crate::net::socket::options::SocketOptions;
use crate::net::socket::socket::Socket;
use crate::net::socket::splice_pipe::{Pipe, Pipes};
use crate::net::sys;

/// A lingering close gives up when nothing has moved for so long.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// So many bytes of empty write buffers are kept by a worker for the next leg that needs one.
pub(super) const POOLED: usize = 1024 * 1024;

/// Where our FIN on a leg stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    Open,
    /// To be sent behind what is in the outbox.
    Wanted,
    Sent,
}

/// What is waiting to be sent on a leg: never empty.
pub(super) enum Outbox {
    /// Bytes that were copied.
    Ring(VecDeque<u8>),
    /// Bytes in the kernel's hands, on their way from another leg, or the same.
    Pipe(Pipe),
}

impl Outbox {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ring(ring) => ring.len(),
            Self::Pipe(pipe) => pipe.held(),
        }
    }
}

/// One socket of a session, with what the engine knows of it.
pub(super) struct Wire {
    pub(super) socket: Socket,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The event said RDHUP, HUP, ERR or PRI: read until EAGAIN.
    pub(super) drain_to_eagain: bool,
    /// The event said ERR, and nobody has been told of it yet.
    pub(super) failed: bool,
    /// Always careful: a Unix socket ends a read behind each message with descriptors, which says
    /// nothing of what comes after it.
    pub(super) unix: bool,
    pub(super) connecting: bool,
    /// The peer's FIN has been read.
    pub(super) eof: bool,
    /// The session, or the pipe, knows of it.
    pub(super) eof_told: bool,
    pub(super) fin: Fin,
    /// The errno of a send that failed while there may be something left to read and pass on.
    pub(super) send_error: Option<NonZeroI32>,
    /// The session does not want input.
    pub(super) paused: bool,
    /// The outbox has reached high water and not yet low water again.
    pub(super) blocked: bool,
    /// `write` fell short: the session is owed a `low_water`.
    pub(super) short: bool,
    /// The rest in the inbox is to be offered again.
    pub(super) offer: bool,
    /// So much comes in that a pipe is better moved without looking at it.
    pub(super) bulk: bool,
    pub(super) pipe_to: Option<Leg>,
    pub(super) outbox: Option<Box<Outbox>>,
    pub(super) inbox: Option<Box<Vec<u8>>>,
}

impl Wire {
    pub(super) fn new(socket: Socket, transport: Transport) -> Self {
        Self {
            socket,
            unix: transport == Transport::Unix,
            // Tried at once: by the time a worker sees a connection its first bytes are often there.
            readable: true,
            writable: true,
            drain_to_eagain: false,
            failed: false,
            connecting: false,
            eof: false,
            eof_told: false,
            fin: Fin::Open,
            send_error: None,
            paused: false,
            blocked: false,
            short: false,
            offer: false,
            bulk: false,
            pipe_to: None,
            outbox: None,
            inbox: None,
        }
    }

    pub(super) fn unsent(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.len())
    }

    pub(super) fn unused(&self) -> usize {
        self.inbox.as_ref().map_or(0, |inbox| inbox.len())
    }
}

/// How a connection ends, once that is settled.
pub(crate) struct Gone {
    pub(crate) by: ClosedBy,
    pub(crate) error: Option<String>,
    /// With RST in place of FIN.
    pub(crate) reset: bool,
}

/// What the worker's connections share while they are served.
pub(crate) struct WorkerResources {
    pub(crate) poll: Poll,
    pub(crate) timers: Timers,
    pub(crate) notifier: Arc<dyn Notifier>,
    /// High water of an outbox; low water is a quarter of it.
    pub(crate) high_water: usize,
    pub(super) limits: Limits,
    /// Set on far legs; near ones have inherited them.
    pub(super) options: SocketOptions,
    /// Bytes that the connection being served may still move in this turn.
    pub(crate) budget: usize,
    pub(super) pipes: Pipes,
    pub(super) pool: Vec<Box<Outbox>>,
}

impl WorkerResources {
    pub(crate) fn new(
        poll: Poll,
        notifier: Arc<dyn Notifier>,
        limits: Limits,
        options: SocketOptions,
        pipes: Pipes,
    ) -> Self {
        Self {
            poll,
            timers: Timers::default(),
            notifier,
            high_water: limits.write_buffer,
            limits,
            options,
            budget: 0,
            pipes,
            pool: Vec::new(),
        }
    }

    pub(super) fn low_water(&self) -> usize {
        self.high_water / 4
    }

    pub(super) fn take_buffer(&mut self) -> Box<Outbox> {
        // At its full size from the start, for it never grows beyond; a very large one as it is used.
        let ring = || Outbox::Ring(VecDeque::with_capacity(self.high_water.min(POOLED)));
        self.pool.pop().unwrap_or_else(|| Box::new(ring()))
    }

    /// Takes back what was an outbox, with or without something in it.
    pub(super) fn give_buffer(&mut self, mut outbox: Box<Outbox>) {
        if let Outbox::Ring(ring) = &mut *outbox {
            ring.clear();
            if (self.pool.len() + 1) * self.high_water <= POOLED {
                self.pool.push(outbox);
            }
        } else if let Outbox::Pipe(pipe) = *outbox {
            self.pipes.give(pipe);
        }
    }
}

/// What a connection's clock is read for; None for all that need none.
pub(super) struct Watch {
    /// When half of it was closed.
    pub(super) half_closed: Option<Instant>,
    /// When something was last sent, or thrown away in a lingering close.
    pub(super) progress: Instant,
    /// When a byte last went in either direction.
    pub(super) moved: Instant,
    /// Something is to be sent, as far as the timer knows.
    pub(super) owing: bool,
    /// The first byte has come, though it was not read yet.
    pub(super) spoken: bool,
}

/// What is due to a session apart from bytes.
#[derive(Default)]
pub(crate) struct Due {
    pub(crate) open: bool,
    pub(crate) wake: bool,
    pub(crate) drain: bool,
    pub(crate) engine_timer: bool,
    /// `Io::connect` failed on the spot.
    pub(super) refused: Option<i32>,
    pub(crate) timers: Vec<u32>,
}

/// One connection: its legs, its record, and what is to happen to it.
pub(crate) struct Connection {
    pub(super) near: Wire,
    pub(super) far: Option<Box<UpstreamLeg>>,
    pub(crate) record: Arc<Record>,
    /// Its place in the books; None where those are closed already, and it only lingers.
    pub(crate) entry_id: Option<EntryId>,
    /// What ended it first, while it goes on to deliver what is owed.
    pub(super) ending: Option<ClosedBy>,
    pub(super) lingering: bool,
    /// It lingers for a stop, and only until all that was sent has arrived.
    pub(super) until_acknowledged: bool,
    /// The session closes by itself while the server drains.
    pub(super) hold: bool,
    /// The session has answered `Drain::Answered`.
    pub(super) until_answered: bool,
    /// What was last moved went out on the far leg.
    pub(super) asked: bool,
    pub(super) gone: Option<Box<Gone>>,
    pub(super) watch: Option<Box<Watch>>,
    pub(super) timers: Option<Box<Vec<(Key, Instant)>>>,
    pub(crate) due: Option<Box<Due>>,
    pub(super) waker: Option<Box<Waker>>,
}

/// Whether a connection has more to do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// It waits for an event.
    Idle,
    /// Its turn was over before its work was.
    More,
    /// It has ended.
    Gone,
}

/// Token of a leg: which slot, which leg, and a generation that tells a slot's owners apart.
pub(crate) fn leg_token(token: u64, leg: Leg) -> Token {
    Token(token as usize | usize::from(leg == Leg::Upstream))
}

impl Connection {
    pub(crate) fn new(socket: Socket, record: Arc<Record>, entry_id: Option<EntryId>) -> Self {
        Self {
            near: Wire::new(socket, record.transport()),
            far: None,
            record,
            entry_id,
            ending: None,
            lingering: false,
            until_acknowledged: false,
            hold: false,
            until_answered: false,
            asked: false,
            gone: None,
            watch: None,
            timers: None,
            due: Some(Box::new(Due { open: true, ..Due::default() })),
            waker: None,
        }
    }

    /// One whose account is closed, and which has nothing left to do but to end.
    pub(crate) fn leaving(leaving: LingeringSocket) -> Self {
        let LingeringSocket { socket, record, until } = leaving;
        let mut connection = Self {
            ending: Some(ClosedBy::Local),
            until_acknowledged: until == Until::Acknowledged,
            due: None,
            ..Self::new(socket, record, None)
        };
        connection.linger();
        connection
    }

    pub(super) fn wire(&self, leg: Leg) -> Option<&Wire> {
        match leg {
            Leg::Client => Some(&self.near),
            Leg::Upstream => self.far.as_deref().map(|far| &far.wire),
        }
    }

    pub(super) fn wire_mut(&mut self, leg: Leg) -> Option<&mut Wire> {
        match leg {
            Leg::Client => Some(&mut self.near),
            Leg::Upstream => self.far.as_deref_mut().map(|far| &mut far.wire),
        }
    }

    pub(super) fn wires(&self) -> impl Iterator<Item = &Wire> {
        std::iter::once(&self.near).chain(self.wire(Leg::Upstream))
    }

    pub(super) fn wires_mut(&mut self) -> impl Iterator<Item = &mut Wire> {
        let far = self.far.as_deref_mut().map(|far| &mut far.wire);
        std::iter::once(&mut self.near).chain(far)
    }

    /// Registers the near leg with the worker's poller.
    pub(crate) fn register(&self, resources: &WorkerResources, token: u64) -> io::Result<()> {
        register(resources, &self.near.socket, leg_token(token, Leg::Client))
    }

    /// Takes note of an event.
    pub(crate) fn notice(&mut self, leg: Leg, event: &mio::event::Event) {
        let Some(wire) = self.wire_mut(leg) else { return };
        let ended = event.is_read_closed() || event.is_write_closed() || event.is_error();
        wire.readable |= (event.is_readable() || ended) && !wire.eof;
        wire.writable |= event.is_writable() || ended;
        wire.drain_to_eagain |= ended || event.is_priority();
        wire.failed |= event.is_error();
    }

    /// The events that are due to the session, made where there are none yet.
    pub(crate) fn due(&mut self) -> &mut Due {
        self.due.get_or_insert_default()
    }

    /// Has every receive queue looked into again, whatever the last event said.
    pub(crate) fn recheck(&mut self) {
        for wire in self.wires_mut() {
            wire.readable = !wire.eof && !wire.connecting;
        }
    }

    /// Has what is owed tried again, whatever the last event said.
    pub(super) fn retry(&mut self) {
        for wire in self.wires_mut() {
            wire.writable |= wire.outbox.is_some() && !wire.connecting;
        }
    }

    /// Whether nothing is unread, unsent or held back, so that a draining server may close it.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.hold
            && !self.lingering
            && self.due.is_none()
            && (!self.until_answered || self.is_answered())
            && self.wires().all(|wire| {
                !wire.readable
                    && !wire.connecting
                    && wire.unsent() == 0
                    && wire.send_error.is_none()
            })
    }

    /// Whether the far side owes the near one nothing, as far as bytes can tell: it has had the last
    /// word, and has finished if the near side has.
    pub(super) fn is_answered(&self) -> bool {
        self.wire(Leg::Upstream).is_none_or(|far| !self.asked && (far.eof || !self.near.eof))
    }

    /// Settles how the connection ends, unless that is settled already.
    pub(crate) fn end(&mut self, by: ClosedBy, error: Option<String>, reset: bool) {
        if self.gone.is_none() {
            self.gone = Some(Box::new(Gone { by, error, reset }));
        }
    }

    /// The same for a server that stops: what had begun to end it otherwise keeps its name.
    pub(crate) fn end_by_stop(&mut self, reset: bool) {
        let by = self.ending.unwrap_or(ClosedBy::Stop);
        self.end(if reset { ClosedBy::Stop } else { by }, None, reset);
    }

    /// Whether the kernel still holds bytes that it could not send yet. To be asked only where it
    /// matters: it is a system call.
    pub(crate) fn has_unsent(&self) -> bool {
        self.wires().any(|wire| sys::unsent(wire.socket.as_fd()) > 0)
    }

    /// Sends FIN and lingers until the peer has acknowledged it, and with it all before it: a plain
    /// close would let the peer's next byte destroy what the kernel still holds for it.
    pub(crate) fn linger_for_stop(&mut self) {
        self.ending.get_or_insert(ClosedBy::Stop);
        self.until_acknowledged = true;
        self.linger();
    }

    /// Whether a stop has nothing more to wait for. The acknowledgement of a FIN is an event.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.until_acknowledged
            && self
                .wires()
                .all(|wire| wire.fin == Fin::Sent && sys::unacknowledged(wire.socket.as_fd()) == 0)
    }

    /// Whether one direction has ended, or is about to.
    pub(super) fn is_half_closed(&self) -> bool {
        self.lingering || self.wires().any(|wire| wire.eof || wire.fin == Fin::Sent)
    }

    /// Whether something is to be sent that a peer does not take.
    pub(super) fn owes(&self) -> bool {
        self.wires().any(|wire| wire.outbox.is_some() && !wire.connecting)
    }

    pub(super) fn linger(&mut self) {
        self.lingering = true;
        for wire in self.wires_mut() {
            wire.inbox = None;
            wire.paused = false;
            if wire.fin == Fin::Open {
                wire.fin = Fin::Wanted;
            }
        }
    }

    /// Takes the connection apart: how it ended, and its sockets, to be closed by the caller.
    pub(crate) fn dismantle(
        mut self,
        resources: &mut WorkerResources,
        token: u64,
    ) -> (Gone, Vec<Socket>) {
        for (key, at) in self.timers.take().into_iter().flat_map(|timers| *timers) {
            resources.timers.remove(at, token, key);
        }
        let gone = self
            .gone
            .take()
            .map_or(Gone { by: ClosedBy::Error, error: None, reset: true }, |gone| *gone);
        let mut sockets = Vec::with_capacity(2);
        for mut wire in std::iter::once(self.near).chain(self.far.map(|far| far.wire)) {
            if let Some(outbox) = wire.outbox.take() {
                resources.give_buffer(outbox);
            }
            sockets.push(wire.socket);
        }
        (gone, sockets)
    }
}

pub(super) fn register(
    resources: &WorkerResources,
    socket: &Socket,
    token: Token,
) -> io::Result<()> {
    // Urgent data asks for PRIORITY: without it, data that ends at the urgent mark looks like a
    // short read of an empty queue.
    let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
    resources.poll.registry().register(&mut SourceFd(&socket.as_fd().as_raw_fd()), token, interest)
}

/// A connection during its turn: the session's `Io`.
pub(crate) struct Turn<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) resources: &'a mut WorkerResources,
    pub(crate) token: u64,
}

impl Turn<'_> {
    /// Serves one turn: what is due, then both legs until nothing more can be done or the budget is
    /// spent. An error of the session is returned; all else is settled in the connection.
    pub(crate) fn serve(
        &mut self,
        session: &mut dyn Session,
        scratch: &mut [u8],
    ) -> SessionResult<Served> {
        self.resources.budget = BATCH_BYTES;
        let (mut overdue, mut looked) = (false, false);
        if let Some(due) = self.connection.due.take() {
            overdue = due.engine_timer && self.take_expired(Key::Engine);
            self.tell_due(session, *due)?;
            if self.connection.gone.is_some() {
                return Ok(Served::Gone);
            }
        }
        loop {
            let mut acted = self.serve_leg(session, scratch, Leg::Client)?;
            if self.connection.far.is_some() {
                acted |= self.serve_leg(session, scratch, Leg::Upstream)?;
            }
            self.settle();
            if self.connection.gone.is_some() {
                return Ok(Served::Gone);
            }
            if !acted || self.resources.budget == 0 {
                if overdue && !looked {
                    // This thread may be late, as after a SIGSTOP: what had come in time counts, though no
                    // event has told of it yet.
                    looked = true;
                    self.connection.recheck();
                    self.connection.retry();
                    continue;
                }
                if std::mem::take(&mut overdue) {
                    self.overdue();
                    if self.connection.gone.is_some() {
                        return Ok(Served::Gone);
                    }
                    continue;
                }
                self.watch();
                // A spent budget may hide work that no event will announce again, as may what fell
                // due during the turn.
                let more = self.resources.budget == 0 || self.connection.due.is_some();
                return Ok(if more { Served::More } else { Served::Idle });
            }
        }
    }

    pub(super) fn tell_due(&mut self, session: &mut dyn Session, due: Due) -> SessionResult {
        if due.open {
            session.open(self)?;
        }
        if self.connection.lingering {
            // It has closed: there is nothing left for it to hear but the end. A server that stops waits
            // for no peer that has all and only does not leave.
            self.connection.until_acknowledged |= due.drain;
            return Ok(());
        }
        if due.drain {
            self.tell_drain(session)?;
        }
        if due.wake {
            if let Some(waker) = &self.connection.waker {
                waker.heard();
            }
            session.wake(self)?;
        }
        if let Some(errno) = due.refused {
            session.connected(self, Err(errno))?;
        }
        for key in due.timers {
            // One of the calls above may have taken it away or set it anew.
            if self.take_expired(Key::Session(key)) {
                session.timer(self, key)?;
            }
        }
        Ok(())
    }

    pub(super) fn tell_drain(&mut self, session: &mut dyn Session) -> SessionResult {
        let ending = self.connection.ending;
        match session.drain(self)? {
            Drain::Finish => {}
            Drain::Answered => self.connection.until_answered = true,
            Drain::Hold => self.connection.hold = true,
        }
        if self.connection.lingering {
            // It closes because the server does.
            self.connection.ending = Some(ending.unwrap_or(ClosedBy::Stop));
            self.connection.until_acknowledged = true;
        }
        Ok(())
    }

    /// Does what can be done on one leg; whether there was anything.
    pub(super) fn serve_leg(
        &mut self,
        session: &mut dyn Session,
        scratch: &mut [u8],
        leg: Leg,
    ) -> SessionResult<bool> {
        let mut acted = false;
        if self.wire(leg).connecting && self.wire(leg).writable {
            acted = true;
            let result = self.finish_connect();
            if !self.connection.lingering {
                session.connected(self, result)?;
            }
            if result.is_err() {
                return Ok(true);
            }
        }
        if self.wire(leg).failed && self.find_failure(session, leg) {
            return Ok(true);
        }
        let ignores_input = session.ignores_input();
        if ignores_input && self.may_read(session, leg) {
            // Not behind the writing, which may take up every turn.
            acted = true;
            self.read(session, scratch, leg)?;
            if self.connection.gone.is_some() {
                return Ok(true);
            }
        }
        if self.wire(leg).outbox.is_some() && self.wire(leg).writable && self.resources.budget > 0 {
            acted = true;
            self.flush(leg);
        }
        if self.wire(leg).short
            && !self.wire(leg).blocked
            && self.resources.budget > 0
            && !self.connection.lingering
        {
            acted = true;
            self.wire_mut(leg).short = false;
            for wire in self.connection.wires_mut() {
                wire.offer = true;
            }
            session.low_water(self, leg)?;
        }
        if self.wire(leg).offer {
            self.wire_mut(leg).offer = false;
            if !self.connection.lingering && !self.wire(leg).paused {
                acted |= self.offer(session, leg)?;
            }
        }
        if self.wire(leg).pipe_to.is_some() && self.wire(leg).inbox.is_some() {
            acted |= self.pipe_rest(leg);
        }
        if !ignores_input && self.may_read(session, leg) && self.connection.gone.is_none() {
            acted = true;
            self.read(session, scratch, leg)?;
        }
        if self.wire(leg).eof && !self.wire(leg).eof_told {
            acted |= self.tell_eof(session, leg)?;
        }
        Ok(acted)
    }

    pub(super) fn wire(&self, leg: Leg) -> &Wire {
        self.connection.wire(leg).expect("only a leg that is there is served")
    }

    pub(super) fn wire_mut(&mut self, leg: Leg) -> &mut Wire {
        self.connection.wire_mut(leg).expect("only a leg that is there is served")
    }

    /// Whether a leg that is not being read has been reset: nobody would find out otherwise.
    pub(super) fn find_failure(&mut self, session: &dyn Session, leg: Leg) -> bool {
        if self.wire(leg).connecting || self.may_read(session, leg) {
            // Reading tells, behind what has come before.
            return false;
        }
        let wire = self.wire_mut(leg);
        wire.failed = false;
        if wire.send_error.is_some() {
            // That is known, and what has come before it is still to be read.
            return false;
        }
        match wire.socket.options().take_error() {
            Ok(Some(error)) | Err(error) => {
                self.broken(leg, "recv", &error);
                true
            }
            Ok(None) => false,
        }
    }

    pub(super) fn may_read(&self, session: &dyn Session, leg: Leg) -> bool {
        let wire = self.wire(leg);
        if !wire.readable || wire.eof || wire.connecting || self.resources.budget == 0 {
            return false;
        }
        if self.connection.lingering {
            return true;
        }
        if wire.paused {
            return false;
        }
        match wire.pipe_to {
            Some(to) => {
                wire.inbox.is_none() && self.connection.wire(to).is_some_and(|to| !to.blocked)
            }
            None => {
                (!wire.blocked || session.ignores_input()) && wire.unused() < session.input_limit()
            }
        }
    }

    pub(super) fn read(
        &mut self,
        session: &mut dyn Session,
        scratch: &mut [u8],
        leg: Leg,
    ) -> SessionResult {
        let pipe_to = self.wire(leg).pipe_to.filter(|_| !self.connection.lingering);
        if let Some(to) = pipe_to.filter(|_| self.wire(leg).bulk) {
            if self.splice(leg, to) {
                return Ok(());
            }
        }
        let room = match pipe_to {
            _ if self.connection.lingering => scratch.len(),
            Some(to) => self.resources.high_water - self.wire(to).unsent(),
            None => session.input_limit() - self.wire(leg).unused(),
        };
        let scratch_size = scratch.len();
        let room = room.min(scratch_size);
        let wire = self.wire_mut(leg);
        // By flag: what comes from a handler has a descriptor that blocks.
        let count = match sys::recv(wire.socket.as_fd(), &mut scratch[..room], libc::MSG_DONTWAIT) {
            Ok(count) => count,
            Err(error) => {
                match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => {
                        wire.readable = false;
                        wire.drain_to_eagain = false;
                    }
                    _ => self.broken(leg, "recv", &error),
                }
                return Ok(());
            }
        };
        if count == 0 {
            wire.eof = true;
            // What a lost leg says at last is no end, for the reset has been heard by the send that failed.
            wire.eof_told |= wire.send_error.is_some();
            wire.readable = false;
            return Ok(());
        }
        if count < room && !wire.drain_to_eagain && !wire.unix {
            wire.readable = false;
        }
        let data = &scratch[..count];
        self.received(leg, count, Some(data));
        if let Some(to) = pipe_to {
            // A trace is of what was seen.
            let bulk = count == scratch_size && !self.connection.record.is_traced();
            self.wire_mut(leg).bulk |= bulk;
            let budget = self.resources.budget;
            let taken = self.write(to, data);
            debug_assert!(
                taken == count
                    || self.connection.gone.is_some()
                    || self.wire(to).send_error.is_some(),
                "no more was read than there was room for"
            );
            // What is passed on counts once.
            self.resources.budget = budget.saturating_sub(count);
            return Ok(());
        }
        self.resources.budget = self.resources.budget.saturating_sub(count);
        if self.connection.lingering {
            self.progress();
            return Ok(());
        }
        if self.wire(leg).inbox.is_some() {
            self.wire_mut(leg).inbox.get_or_insert_default().extend_from_slice(data);
            self.offer(session, leg)?;
            return Ok(());
        }
        let used = session.bytes(self, leg, data)?;
        let rest = data.get(used..).ok_or_else(|| used_too_much(used, count))?;
        if !rest.is_empty() {
            self.keep(leg, Box::new(rest.to_vec()));
            self.check_stuck(session, leg, used);
        }
        Ok(())
    }

    /// What a session left unused before it made its leg a pipe goes ahead of all that follows.
    pub(super) fn pipe_rest(&mut self, leg: Leg) -> bool {
        let Some(to) = self.wire(leg).pipe_to else { return false };
        if self.connection.lingering || self.connection.wire(to).is_none_or(|to| to.blocked) {
            return false;
        }
        let Some(mut inbox) = self.wire_mut(leg).inbox.take() else { return false };
        let taken = self.write(to, &inbox);
        inbox.drain(..taken);
        if !inbox.is_empty() {
            if let Some(to) = self.connection.wire_mut(to) {
                // Not owed to the session, which does not write it.
                to.short = false;
            }
            self.keep(leg, inbox);
        }
        taken > 0
    }

    /// Keeps what a session did not use; nobody reads it once the session has closed.
    pub(super) fn keep(&mut self, leg: Leg, rest: Box<Vec<u8>>) {
        if self.connection.lingering || self.connection.gone.is_some() {
            return;
        }
        if let Some(wire) = self.connection.wire_mut(leg) {
            wire.inbox = Some(rest);
        }
    }

    /// Offers the rest in the inbox again; whether any of it was used.
    pub(super) fn offer(&mut self, session: &mut dyn Session, leg: Leg) -> SessionResult<bool> {
        if self.wire(leg).pipe_to.is_some() {
            return Ok(false);
        }
        let Some(mut inbox) = self.wire_mut(leg).inbox.take() else { return Ok(false) };
        let used = session.bytes(self, leg, &inbox)?;
        if used > inbox.len() {
            return Err(used_too_much(used, inbox.len()));
        }
        inbox.drain(..used);
        if !inbox.is_empty() {
            self.keep(leg, inbox);
            self.check_stuck(session, leg, used);
        }
        Ok(used > 0)
    }

    /// A session that can write and still uses nothing of a full inbox will never use it.
    pub(super) fn check_stuck(&mut self, session: &dyn Session, leg: Leg, used: usize) {
        let ended = self.connection.lingering || self.connection.gone.is_some();
        let Some(wire) = self.connection.wire(leg).filter(|wire| !ended && wire.pipe_to.is_none())
        else {
            return;
        };
        let waits =
            wire.paused || self.connection.wires().any(|wire| wire.short || wire.connecting);
        if used == 0 && !waits && wire.unused() >= session.input_limit() {
            self.connection.end(ClosedBy::Limit("line"), None, false);
        }
    }

    pub(super) fn tell_eof(&mut self, session: &mut dyn Session, leg: Leg) -> SessionResult<bool> {
        if self.wire(leg).pipe_to.is_some()
            && self.wire(leg).inbox.is_some()
            && !self.connection.lingering
        {
            return Ok(false);
        }
        // Who finishes first ends it: on the far leg that is the service's own doing.
        let by = if leg == Leg::Client { ClosedBy::Peer } else { ClosedBy::Service };
        self.connection.ending.get_or_insert(by);
        if !self.connection.lingering {
            if let Some(to) = self.wire(leg).pipe_to {
                self.wire_mut(leg).eof_told = true;
                self.shut_write(to);
                return Ok(true);
            }
            if self.wire(leg).inbox.is_some() && self.connection.wires().any(|wire| wire.short) {
                // The rest can still be used when there is room to write.
                return Ok(false);
            }
            self.wire_mut(leg).eof_told = true;
            let rest = self.wire_mut(leg).inbox.take();
            session.eof(self, leg, rest.as_ref().map_or(&[], |rest| rest.as_slice()))?;
            return Ok(true);
        }
        self.wire_mut(leg).eof_told = true;
        Ok(true)
    }

    /// The one place that sends: as much of `data` as the kernel and the budget take. None where the
    /// leg turned out to be broken.
    pub(super) fn send(&mut self, leg: Leg, data: &[u8]) -> Option<usize> {
        let mut taken = 0;
        while taken < data.len() && self.resources.budget > 0 {
            let wire = self.wire_mut(leg);
            match sys::send(wire.socket.as_fd(), &data[taken..], 0) {
                Ok(count) => {
                    taken += count;
                    self.sent(leg, count, Some(&data[taken - count..taken]));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => {
                        wire.writable = false;
                        break;
                    }
                    _ => {
                        self.broken(leg, "send", &error);
                        return None;
                    }
                },
            }
        }
        Some(taken)
    }

    /// Sends what is in an outbox, as far as the kernel and the budget go.
    pub(super) fn flush(&mut self, leg: Leg) {
        let Some(mut outbox) = self.wire_mut(leg).outbox.take() else { return };
        let whole = match &mut *outbox {
            Outbox::Ring(ring) => self.flush_ring(leg, ring),
            Outbox::Pipe(pipe) => self.drain_pipe(leg, pipe),
        };
        if !whole {
            return;
        }
        let low = self.resources.low_water();
        let wire = self.wire_mut(leg);
        if outbox.len() <= low {
            wire.blocked = false;
        }
        if outbox.len() == 0 {
            self.resources.give_buffer(outbox);
        } else {
            wire.outbox = Some(outbox);
        }
    }

    /// False where the leg turned out to be broken.
    pub(super) fn flush_ring(&mut self, leg: Leg, ring: &mut VecDeque<u8>) -> bool {
        while !ring.is_empty() && self.wire(leg).writable && self.resources.budget > 0 {
            // A ring has its bytes in two runs; the second is first in the next round.
            let Some(count) = self.send(leg, ring.as_slices().0) else { return false };
            ring.drain(..count);
        }
        true
    }

    /// Counts what was sent; None is the data of bytes that did not come to us.
    pub(super) fn sent(&mut self, leg: Leg, count: usize, data: Option<&[u8]>) {
        self.resources.budget = self.resources.budget.saturating_sub(count);
        match leg {
            Leg::Client => match data {
                Some(data) => self.connection.record.count_sent(data),
                None => self.connection.record.count_sent_unseen(count),
            },
            Leg::Upstream => {
                self.connection.asked = true;
                if let Some(far) = self.connection.record.far() {
                    far.count_sent(count);
                }
            }
        }
        self.progress();
    }

    /// Counts what has come in, likewise.
    pub(super) fn received(&mut self, leg: Leg, count: usize, data: Option<&[u8]>) {
        match leg {
            // The account is closed.
            Leg::Client if self.connection.entry_id.is_none() => {}
            Leg::Client => match data {
                Some(data) => self.connection.record.count_received(data),
                None => self.connection.record.count_received_unseen(count),
            },
            Leg::Upstream => {
                self.connection.asked = false;
                if let Some(far) = self.connection.record.far() {
                    far.count_received(count);
                }
            }
        }
        self.moved();
    }

    pub(super) fn progress(&mut self) {
        if let Some(watch) = &mut self.connection.watch {
            watch.progress = Instant::now();
            watch.moved = watch.progress;
        }
    }

    /// Input came: of interest only to the idle limit.
    pub(super) fn moved(&mut self) {
        if self.resources.limits.idle.is_some() {
            if let Some(watch) = &mut self.connection.watch {
                watch.moved = Instant::now();
            }
        }
    }

    /// A leg failed. What the peer or the network did is a reset, or an error with its text.
    pub(super) fn broken(&mut self, leg: Leg, step: &str, error: &io::Error) {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        if step == "send" && self.read_on(leg, errno) {
            return;
        }
        let wire = self.wire_mut(leg);
        wire.readable = false;
        wire.writable = false;
        if wire.send_error.is_some() {
            // It was lost before, and now there is nothing more to read.
            wire.eof = true;
            wire.eof_told = true;
            return;
        }
        self.end_broken(leg, step, errno);
    }

    /// Goes on to read a leg on which nothing can be sent any more, for what is to be passed on: who
    /// answers early and closes resets everybody who still sends, and the answer came before that.
    /// False where there is nothing to pass on.
    pub(super) fn read_on(&mut self, leg: Leg, errno: i32) -> bool {
        let wire = self.wire(leg);
        let reader = wire.pipe_to.filter(|&to| to != leg);
        let reader = reader.and_then(|to| self.connection.wire(to));
        let useful = reader.is_some_and(|reader| reader.fin == Fin::Open);
        if !useful || wire.eof || self.connection.lingering {
            return false;
        }
        let wire = self.wire_mut(leg);
        wire.send_error = NonZeroI32::new(errno);
        wire.fin = Fin::Sent;
        wire.writable = false;
        // For good: the other side is not read for it any more.
        wire.blocked = true;
        wire.readable = true;
        wire.drain_to_eagain = true;
        true
    }

    pub(super) fn end_broken(&mut self, leg: Leg, step: &str, errno: i32) {
        if self.connection.lingering {
            // All that could be done for the peer was done; what ended the session stays its end.
            let by = self.connection.ending.unwrap_or(ClosedBy::Service);
            self.connection.end(by, None, true);
        } else if leg == Leg::Client
            && matches!(errno, libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED)
        {
            self.connection.end(ClosedBy::Reset, None, true);
        } else {
            // Also the far leg's reset: the near one is reset, so that a cut is not read as an end.
            let mut text = strerror(errno);
            if let (Leg::Upstream, Some(far)) = (leg, self.connection.record.far()) {
                text = format!("{step} {}: {text}", far.remote());
            }
            self.connection.end(ClosedBy::Error, Some(text), true);
        }
    }

    /// Ends a connection of which a leg was lost, once what came on that has been passed on.
    pub(super) fn settle_send_errors(&mut self) {
        for leg in [Leg::Client, Leg::Upstream] {
            let Some(wire) = self.connection.wire(leg).filter(|wire| wire.eof) else { continue };
            let reader = wire.pipe_to.and_then(|to| self.connection.wire(to));
            let passed_on = reader.is_none_or(|reader| reader.outbox.is_none());
            if let Some(errno) = wire.send_error.filter(|_| passed_on) {
                self.end_broken(leg, "send", errno.get());
            }
        }
    }

    /// Sends the FINs that are due, and sees whether the connection is complete.
    pub(super) fn settle(&mut self) {
        self.settle_send_errors();
        if self.connection.gone.is_some() {
            return;
        }
        let alone = self.connection.far.is_none();
        let mut complete = true;
        let mut finished = false;
        for wire in self.connection.wires_mut() {
            if wire.fin == Fin::Wanted && wire.outbox.is_none() && !wire.connecting {
                wire.fin = Fin::Sent;
                // Where both directions are done, the close that follows sends it.
                if !(alone && wire.eof) {
                    // ENOTCONN where a reset has been faster; the next read tells.
                    let _ = wire.socket.shutdown(Shutdown::Write);
                    finished = true;
                }
            }
            complete &= wire.eof && wire.fin == Fin::Sent;
        }
        if finished {
            // From here on it is the peer's turn.
            self.progress();
            if self.connection.watch.is_some() {
                self.rearm();
            }
        }
        if complete || self.connection.is_acknowledged() {
            let by = self.connection.ending.unwrap_or(ClosedBy::Service);
            self.connection.end(by, None, false);
        }
    }

    /// Sets the engine's timer where a limit asks for one: of what is not half closed, has nothing to
    /// send and has no limit of its own, none is ever set.
    pub(super) fn watch(&mut self) {
        let connection = &*self.connection;
        let half_closed = connection.is_half_closed();
        let limits = &self.resources.limits;
        let timed = limits.idle.is_some()
            || limits.first_byte.is_some() && !connection.record.has_received();
        let owing = limits.write.is_some() && connection.owes();
        match &self.connection.watch {
            None if !(half_closed || timed || owing) => return,
            // The timer runs already, and when it runs out it sees for itself.
            Some(watch) if watch.half_closed.is_some() == half_closed && watch.owing == owing => {
                return;
            }
            _ => {}
        }
        let now = Instant::now();
        let fresh =
            || Watch { half_closed: None, progress: now, moved: now, owing: false, spoken: false };
        let watch = self.connection.watch.get_or_insert_with(|| Box::new(fresh()));
        let halves = half_closed && watch.half_closed.is_none();
        if halves {
            watch.half_closed = Some(now);
        }
        if halves || owing && !watch.owing {
            // What was sent before is no progress of this.
            watch.progress = now;
        }
        watch.owing = owing;
        self.rearm();
    }

    /// When the next limit is reached, and its name; the linger's is empty, for that is no limit.
    pub(super) fn due_at(&self) -> Option<(Instant, &'static str)> {
        let connection = &*self.connection;
        let watch = connection.watch.as_ref()?;
        let limits = &self.resources.limits;
        let after = |from: Instant, limit: Option<Duration>, name| {
            limit.and_then(|limit| from.checked_add(limit)).map(|at| (at, name))
        };
        let finished = connection.wires().all(|wire| wire.fin == Fin::Sent);
        let half_closed = match watch.half_closed {
            // Behind its FIN a lingering close waits for progress, and for the limit at most.
            Some(since) if connection.lingering && finished => {
                let quiet = after(watch.progress, Some(LINGER), "");
                [quiet, after(since, limits.half_close, "")].into_iter().flatten().min()
            }
            Some(_) => after(watch.progress, limits.half_close, "half_close"),
            None => None,
        };
        let write = limits.write.filter(|_| connection.owes());
        let first_byte = limits
            .first_byte
            .filter(|_| !connection.lingering && !connection.record.has_received())
            .filter(|_| !watch.spoken);
        [
            half_closed,
            after(watch.progress, write, "write"),
            after(connection.record.opened(), first_byte, "first_byte"),
            after(watch.moved, limits.idle.filter(|_| !connection.lingering), "idle"),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn rearm(&mut self) {
        if let Some((at, _)) = self.due_at() {
            self.put_timer(Key::Engine, Some(at));
        }
    }

    pub(super) fn overdue(&mut self) {
        match self.due_at() {
            Some((at, "")) if at <= Instant::now() => {
                // All is sent: what the kernel still holds of it is delivered behind a FIN, while a
                // reset would destroy it.
                let by = self.connection.ending.unwrap_or(ClosedBy::Service);
                self.connection.end(by, None, false);
            }
            Some((at, "first_byte")) if at <= Instant::now() && self.has_spoken() => {
                if let Some(watch) = &mut self.connection.watch {
                    watch.spoken = true;
                }
                self.rearm();
            }
            Some((at, name)) if at <= Instant::now() => {
                // Who has nothing to lose hears an ordinary end.
                let reset = !matches!(name, "idle" | "first_byte") || self.connection.owes();
                self.connection.end(ClosedBy::Limit(name), None, reset);
            }
            // There was progress in the meantime: the timer is set anew only when it runs out, not
            // with each byte.
            Some(_) => self.rearm(),
            None => self.connection.watch = None,
        }
    }

    /// Whether the peer's first bytes wait for a session that does not take input yet, as one that
    /// still connects to its target.
    pub(super) fn has_spoken(&self) -> bool {
        self.connection.near.paused && sys::unread(self.connection.near.socket.as_fd()) > 0
    }

    /// Forgets a timer that has run out; false where it is not set, or set for later.
    pub(super) fn take_expired(&mut self, key: Key) -> bool {
        let Some(timers) = &mut self.connection.timers else { return false };
        let now = Instant::now();
        let expired = timers.iter().position(|&(set, at)| set == key && at <= now);
        expired.map(|index| timers.swap_remove(index)).is_some()
    }

    pub(super) fn put_timer(&mut self, key: Key, at: Option<Instant>) {
        if self.connection.timers.is_none() && at.is_none() {
            return;
        }
        let timers = self.connection.timers.get_or_insert_default();
        if let Some(index) = timers.iter().position(|&(set, _)| set == key) {
            let (_, before) = timers.swap_remove(index);
            self.resources.timers.remove(before, self.token, key);
        }
        if let Some(at) = at {
            timers.push((key, at));
            self.resources.timers.insert(at, self.token, key);
        }
    }
}

pub(super) fn used_too_much(used: usize, given: usize) -> SessionError {
    SessionError(format!("the session used {used} of {given} bytes"))
}

impl Io for Turn<'_> {
    fn write(&mut self, leg: Leg, data: &[u8]) -> usize {
        let Some(wire) = self.connection.wire(leg) else { return 0 };
        if self.connection.gone.is_some() {
            // Nothing is taken any more, or one that writes for as long as it may never stopped.
            return 0;
        }
        if wire.fin != Fin::Open {
            // Behind its own end a session's words go nowhere, and it need not care.
            return data.len();
        }
        let mut taken = 0;
        if wire.outbox.is_none() && wire.writable && !wire.connecting {
            match self.send(leg, data) {
                Some(count) => taken = count,
                None => return 0,
            }
        }
        if taken == data.len() {
            return taken;
        }
        let mut outbox =
            self.wire_mut(leg).outbox.take().unwrap_or_else(|| self.resources.take_buffer());
        let full = match &mut *outbox {
            Outbox::Ring(ring) => {
                let kept = (data.len() - taken).min(self.resources.high_water - ring.len());
                if ring.try_reserve(kept).is_err() {
                    let error = io::Error::from_raw_os_error(libc::ENOMEM);
                    self.broken(leg, "keep", &error);
                    return 0;
                }
                ring.extend(&data[taken..taken + kept]);
                taken += kept;
                ring.len() == self.resources.high_water
            }
            // Behind a pipe nothing can be kept: what is in there goes first.
            Outbox::Pipe(_) => true,
        };
        let wire = self.connection.wire_mut(leg).expect("seen above");
        wire.blocked |= full;
        wire.short |= taken < data.len();
        wire.outbox = Some(outbox);
        taken
    }

    fn pipe(&mut self, from: Leg, to: Leg) {
        if let Some(wire) = self.connection.wire_mut(from) {
            wire.pipe_to = Some(to);
        }
    }

    fn pause(&mut self, leg: Leg) {
        if let Some(wire) = self.connection.wire_mut(leg) {
            wire.paused = true;
        }
    }

    fn resume(&mut self, leg: Leg) {
        if let Some(wire) = self.connection.wire_mut(leg) {
            wire.paused = false;
            wire.offer = true;
        }
    }

    fn shut_write(&mut self, leg: Leg) {
        if let Some(wire) = self.connection.wire_mut(leg) {
            if wire.fin == Fin::Open {
                wire.fin = Fin::Wanted;
            }
        }
    }

    fn close(&mut self) {
        self.connection.ending.get_or_insert(ClosedBy::Service);
        self.connection.linger();
        // A half-close may already be watched under the longer limit.
        if self.connection.watch.is_some() {
            self.progress();
            self.rearm();
        }
    }

    fn abort(&mut self) {
        let by = self.connection.ending.unwrap_or(ClosedBy::Service);
        self.connection.end(by, None, true);
    }

    fn set_timer(&mut self, key: u32, after: Option<Duration>) {
        let at = after.and_then(|after| Instant::now().checked_add(after));
        self.put_timer(Key::Session(key), at);
    }

    fn connect(&mut self, target: Endpoint) {
        self.begin_connect(target);
    }

    fn local(&self, leg: Leg) -> Option<Endpoint> {
        match leg {
            Leg::Client => Some(self.connection.record.local()),
            Leg::Upstream => self.upstream_local(),
        }
    }

    fn waker(&mut self) -> Waker {
        let Self { connection, resources, token } = self;
        let make = || Box::new(Waker::new(Arc::clone(&resources.notifier), *token));
        (**connection.waker.get_or_insert_with(make)).clone()
    }
}
