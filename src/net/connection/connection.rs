//! One connection as its worker sees it: its legs, its record, and what is due to it. Owns its
//! construction, its state as the worker asks for it, and its dismantling. Must never move a byte,
//! which its turns do (`serve`).

#![allow(
    clippy::box_collection,
    clippy::vec_box,
    reason = "an idle leg holds a null pointer, where an empty collection takes three words"
)]

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::due::Due;
use super::leg::LegState;
use super::lingering_socket::LingeringSocket;
use super::resources::WorkerResources;
use super::upstream::UpstreamLeg;
use super::watch::Watch;
use crate::net::base::Key;
use crate::net::ledger::{ClosedBy, EntryId, Record};
use crate::net::service::{Leg, Waker};
use crate::net::socket::{Socket, Until};
use crate::net::stage::Direction;
use crate::net::sys;

/// What began to end a connection that goes on to deliver what is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client finished first.
    Peer,
    /// The session closed, or its upstream finished first.
    Service,
    /// A handler has closed it.
    Local,
    /// The server stops.
    Stop,
    /// A stage has ended it, and says how.
    Stage,
}

/// How a connection ends, once that is settled.
pub(crate) struct Gone {
    pub(crate) by: ClosedBy,
    pub(crate) error: Option<String>,
    /// With RST instead of FIN.
    pub(crate) reset: bool,
}

/// One connection: its legs, its record, and what is due to it.
pub(crate) struct Connection {
    pub(super) client: LegState,
    pub(super) upstream: Option<Box<UpstreamLeg>>,
    pub(crate) record: Arc<Record>,
    /// Its entry in the ledger; None where the record is closed already, and the connection only
    /// lingers.
    pub(crate) entry_id: Option<EntryId>,
    /// What ended it first, while it goes on to deliver what is owed.
    pub(super) ending: Option<Ending>,
    pub(super) lingering: bool,
    /// It lingers only until the peer has acknowledged all that was sent.
    pub(super) until_acknowledged: bool,
    /// The session has answered `Drain::Hold`: it closes by itself while the server drains.
    pub(super) hold: bool,
    /// The session has answered `Drain::Answered`.
    pub(super) until_answered: bool,
    /// The session knows that the server stops.
    pub(super) drains: bool,
    /// The session has called `Io::finish_input`, and there was input left.
    pub(super) finishing_input: bool,
    /// The caller's end of a socket pair is closed for good.
    pub(super) abandoned: bool,
    /// What was moved last went out on the upstream leg, which owes an answer.
    pub(super) awaits_answer: bool,
    /// The number of forwarders that it has passed; None until a session connects its upstream leg.
    pub(super) hops: Option<u8>,
    pub(super) gone: Option<Box<Gone>>,
    pub(super) watch: Option<Box<Watch>>,
    pub(super) timers: Option<Box<Vec<(Key, Instant)>>>,
    pub(super) due: Option<Box<Due>>,
    pub(super) waker: Option<Box<Waker>>,
}

impl Connection {
    pub(crate) fn new(socket: Socket, record: Arc<Record>, entry_id: Option<EntryId>) -> Self {
        Self {
            client: LegState::new(socket, record.transport()),
            upstream: None,
            record,
            entry_id,
            ending: None,
            lingering: false,
            until_acknowledged: false,
            hold: false,
            until_answered: false,
            drains: false,
            finishing_input: false,
            abandoned: false,
            awaits_answer: false,
            hops: None,
            gone: None,
            watch: None,
            timers: None,
            due: Some(Box::new(Due { open: true, ..Due::default() })),
            waker: None,
        }
    }

    /// A connection whose record is closed: it only lingers.
    pub(crate) fn of_lingering(lingering: LingeringSocket) -> Self {
        let LingeringSocket { socket, record, until } = lingering;
        let mut connection = Self {
            ending: Some(Ending::Local),
            until_acknowledged: until == Until::Acknowledged,
            due: None,
            ..Self::new(socket, record, None)
        };
        connection.linger();
        connection
    }

    pub(super) fn leg(&self, leg: Leg) -> Option<&LegState> {
        match leg {
            Leg::Client => Some(&self.client),
            Leg::Upstream => self.upstream.as_deref().map(|upstream| &upstream.state),
        }
    }

    pub(super) fn leg_mut(&mut self, leg: Leg) -> Option<&mut LegState> {
        match leg {
            Leg::Client => Some(&mut self.client),
            Leg::Upstream => self.upstream.as_deref_mut().map(|upstream| &mut upstream.state),
        }
    }

    pub(super) fn legs(&self) -> impl Iterator<Item = &LegState> {
        std::iter::once(&self.client).chain(self.leg(Leg::Upstream))
    }

    pub(super) fn legs_mut(&mut self) -> impl Iterator<Item = &mut LegState> {
        let upstream = self.upstream.as_deref_mut().map(|upstream| &mut upstream.state);
        std::iter::once(&mut self.client).chain(upstream)
    }

    /// Registers the legs with the worker's poller.
    pub(crate) fn register(&self, resources: &WorkerResources, token: u64) -> io::Result<()> {
        self.client.register(resources, token, Leg::Client)?;
        self.leg(Leg::Upstream)
            .map_or(Ok(()), |upstream| upstream.register(resources, token, Leg::Upstream))
    }

    /// Records what an event says of a leg.
    pub(crate) fn notice(&mut self, leg: Leg, event: &mio::event::Event) {
        let Some(state) = self.leg_mut(leg) else { return };
        let ended = event.is_read_closed() || event.is_write_closed() || event.is_error();
        state.readable |= (event.is_readable() || ended) && state.can_receive();
        state.writable |= event.is_writable() || ended;
        state.drain_to_eagain |= ended || event.is_priority();
        state.failed |= event.is_error();
    }

    /// What is due to the session, to be added to.
    pub(crate) fn due(&mut self) -> &mut Due {
        self.due.get_or_insert_default()
    }

    /// Marks every leg readable, whatever the last event said.
    pub(crate) fn recheck(&mut self) {
        for state in self.legs_mut() {
            state.readable = state.can_receive() && !state.connecting;
        }
    }

    /// Marks every leg with an outbox writable, whatever the last event said.
    pub(super) fn retry(&mut self) {
        for state in self.legs_mut() {
            state.writable |= state.outbox.is_some() && !state.connecting;
        }
    }

    /// Whether nothing is unread, unsent or held back, so that a draining server may close it.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.hold
            && !self.lingering
            && self.due.is_none()
            && (!self.until_answered || self.is_answered())
            && self.legs().all(|state| {
                !state.readable
                    && !state.connecting
                    && (state.unsent() == 0 || state.is_stuck())
                    && state.writing.error().is_none()
                    && state.stages.as_ref().is_none_or(|stages| stages.is_quiet())
            })
    }

    /// Whether a leg has something to send that its peer does not take. A handler may take its
    /// time.
    pub(super) fn owes(&self) -> bool {
        let owes = |state: &LegState| match &state.stages {
            // What a stage holds back is not the peer's delay.
            Some(stages) => stages.waits_for_socket(),
            None => state.outbox.is_some() && !state.connecting,
        };
        owes(&self.client) || !self.has_inner() && self.leg(Leg::Upstream).is_some_and(owes)
    }

    /// Whether a fault holds something back that goes on in its time, while the peer takes what it
    /// is sent: nothing moves, and this is not the peer's doing.
    pub(super) fn is_delayed(&self) -> bool {
        let delays = |state: &LegState| {
            state.stages.as_ref().is_some_and(|stages| stages.chain.is_delaying())
        };
        self.legs().any(delays) && !self.owes()
    }

    /// Whether bytes would be lost by a close.
    pub(super) fn has_unsent(&self) -> bool {
        let holds = |state: &LegState| {
            state.stages.as_ref().is_some_and(|stages| stages.chain.held(Direction::Outbound) > 0)
        };
        self.owes() || self.legs().any(holds)
    }

    /// Whether a fault lets nothing more through to the peer, so that the connection has no end of
    /// its own. What it holds is lost with the connection.
    fn is_stuck(&self) -> bool {
        self.legs().any(LegState::is_stuck)
    }

    /// Whether bytes are held that a fault does not let through in either direction.
    fn has_stuck_bytes(&self) -> bool {
        let stuck = |state: &LegState| {
            state.stages.as_ref().is_some_and(|stages| {
                [Direction::Inbound, Direction::Outbound].into_iter().any(|direction| {
                    stages.chain.is_stuck(direction) && stages.chain.held(direction) > 0
                })
            })
        };
        self.legs().any(stuck)
    }

    /// Settles how a quiet connection ends that a stop has nothing to wait for, because a fault
    /// lets nothing through. Returns whether it did.
    pub(crate) fn end_if_stuck(&mut self) -> bool {
        let cut = self.has_stuck_bytes();
        if !cut && !self.is_stuck() {
            return false;
        }
        // What is lost must not look like an end.
        self.end_by_stop(cut);
        true
    }

    /// Whether it lingers only for an end that a fault does not let through.
    pub(crate) fn lingers_in_vain(&self) -> bool {
        self.lingering && self.is_stuck() && self.legs().any(|state| !state.writing.is_over())
    }

    /// Whether a server that stops closes it lingeringly: the kernel still holds bytes that it
    /// could not send yet, or there are stages that the end has to go through. A system call for
    /// each leg.
    pub(crate) fn must_linger(&self) -> bool {
        self.legs().any(|state| state.stages.is_some() || sys::unsent(state.socket.as_fd()) > 0)
    }

    /// How the connection ends unless a failure or a limit ends it first.
    pub(crate) fn closed_by(&self) -> ClosedBy {
        self.ended_by(Ending::Service)
    }

    /// What began to end it, or what ends it now.
    fn ended_by(&self, now: Ending) -> ClosedBy {
        match self.ending.unwrap_or(now) {
            Ending::Peer => ClosedBy::Peer,
            Ending::Service => ClosedBy::Service,
            Ending::Local => ClosedBy::Local,
            Ending::Stop => ClosedBy::Stop,
            Ending::Stage => self.closed_by_stage(),
        }
    }

    /// Settles how the connection ends; the first call counts.
    pub(crate) fn end(&mut self, by: ClosedBy, error: Option<String>, reset: bool) {
        if self.gone.is_none() {
            let error = match self.ending {
                Some(Ending::Stage) => error.or_else(|| self.stage_error()),
                _ => error,
            };
            self.gone = Some(Box::new(Gone { by, error, reset }));
        }
    }

    /// The same for a server that stops. An end that had begun before keeps its name, unless it is
    /// cut short.
    pub(crate) fn end_by_stop(&mut self, reset: bool) {
        let by = self.ended_by(Ending::Stop);
        self.end(if reset { ClosedBy::Stop } else { by }, None, reset);
    }

    /// Takes the connection apart: how it ended, and its sockets, which the caller closes.
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
        for mut state in
            std::iter::once(self.client).chain(self.upstream.map(|upstream| upstream.state))
        {
            if let Some(outbox) = state.outbox.take() {
                resources.give_buffer(outbox);
            }
            sockets.push(state.socket);
        }
        (gone, sockets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the benchmark's row "bytes per idle connection" rests on.
    #[test]
    fn an_idle_connection_stays_small() {
        assert!(size_of::<LegState>() <= 48, "{}", size_of::<LegState>());
        assert!(size_of::<Connection>() <= 128, "{}", size_of::<Connection>());
    }
}
