//! One connection as its worker sees it: its legs, its record, and what is due to it. Owns its
//! construction, its state as the worker asks for it, and its dismantling. Must never move a byte, which
//! its turns do (`serve`).

#![allow(
    clippy::box_collection,
    clippy::vec_box,
    reason = "an idle leg holds a null pointer, where an empty collection takes three words"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::connect::UpstreamLeg;
use super::deadlines::Watch;
use super::leg::Wire;
use super::lingering_socket::LingeringSocket;
use super::resources::WorkerResources;
use super::serve::Due;
use crate::net::base::timers::Key;
use crate::net::ledger::closed_by::ClosedBy;
use crate::net::ledger::ledger::Place;
use crate::net::ledger::record::Record;
use crate::net::service::session::Leg;
use crate::net::service::waker::Waker;
use crate::net::socket::lingering::Until;
use crate::net::socket::socket::Socket;
use crate::net::sys;

/// How a connection ends, once that is settled.
pub(crate) struct Gone {
    pub(crate) by: ClosedBy,
    pub(crate) error: Option<String>,
    /// With RST in place of FIN.
    pub(crate) reset: bool,
}

/// One connection: its legs, its record, and what is to happen to it.
pub(crate) struct Connection {
    pub(super) near: Wire,
    pub(super) far: Option<Box<UpstreamLeg>>,
    pub(crate) record: Arc<Record>,
    /// Its place in the books; None where those are closed already, and it only lingers.
    pub(crate) place: Option<Place>,
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

impl Connection {
    pub(crate) fn new(socket: Socket, record: Arc<Record>, place: Option<Place>) -> Self {
        Self {
            near: Wire::new(socket, record.transport()),
            far: None,
            record,
            place,
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

    /// Whether something is to be sent that a peer does not take.
    pub(super) fn owes(&self) -> bool {
        self.wires().any(|wire| wire.outbox.is_some() && !wire.connecting)
    }

    /// Whether the kernel still holds bytes that it could not send yet. To be asked only where it
    /// matters: it is a system call.
    pub(crate) fn has_unsent(&self) -> bool {
        self.wires().any(|wire| sys::unsent(wire.socket.as_fd()) > 0)
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

/// Token of a leg: which slot, which leg, and a generation that tells a slot's owners apart.
pub(crate) fn leg_token(token: u64, leg: Leg) -> Token {
    Token(token as usize | usize::from(leg == Leg::Upstream))
}
