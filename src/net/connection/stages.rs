//! The stages of a leg: how bytes and ends move between its socket, its chain and its session. Owns
//! what the socket's side of the chain needs to know. Must never let a byte pass the chain, nor
//! cost anything to a leg without stages but one test for null.
//!
//! To the rest of the engine a leg with stages is never readable and never writable: what those
//! flags say is taken over here at the start of each turn. So input comes to the session only out
//! of the chain, and what is written waits in the outbox until it is given to the chain. Bytes that
//! stages hold count as part of the outbox and of the inbox, and bound what is taken in as those
//! do.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::connection::{Connection, Ending};
use super::leg::{Delivery, LegState, Reading, Writing};
use super::leg_stages::{LegStages, Opening, OurEnd, SocketEnd};
use super::outbox::Outbox;
use super::serve::Turn;
use crate::net::base::Key;
use crate::net::ledger::ClosedBy;
use crate::net::service::{Leg, Session, SessionResult, Waker};
use crate::net::stage::faults::FaultSet;
use crate::net::stage::{Chain, Direction, Inbound, Outbound, StageEnd};
use crate::net::sys;

/// What a chunk costs of a turn's budget at least: a chunk of one byte costs a call all the same.
const CHUNK_COST: usize = 256;

impl Connection {
    /// Puts a chain between the client and its session, which is opened once the stages are ready:
    /// `serve` then returns `Served::Open`. `faults` are the connection's own, in place of the
    /// server's. A connection that was in use before waits for its stages since `since`.
    pub(crate) fn put_stages(
        &mut self,
        chain: Box<Chain>,
        faults: Option<Arc<FaultSet>>,
        since: Option<Instant>,
    ) {
        self.client.stages = Some(Box::new(LegStages { faults, since, ..LegStages::new(chain) }));
        self.due = None;
    }

    /// The session has been made, and is opened in the next turn.
    pub(crate) fn session_made(&mut self) {
        let Some(stages) = &mut self.client.stages else { return };
        stages.opening = Opening::Made;
        let drains = stages.drains;
        let due = self.due();
        due.open = true;
        due.drain |= drains;
    }

    /// Whether a stage has ended the connection, which is the peer's doing.
    pub(crate) fn is_ended_by_stage(&self) -> bool {
        self.ending == Some(Ending::Stage)
    }

    /// Whether the stages have yet to be ready for a session.
    pub(crate) fn is_opening(&self) -> bool {
        let stages = self.client.stages.as_ref();
        let waits = |opening| matches!(opening, Opening::Waiting | Opening::Upgrading);
        stages.is_some_and(|stages| waits(stages.opening))
    }

    /// How a stage has ended the connection.
    fn stage_end(&self) -> Option<&StageEnd> {
        self.legs().find_map(|state| state.stages.as_ref()?.end.as_ref())
    }

    /// Who a stage says has ended the connection.
    pub(super) fn closed_by_stage(&self) -> ClosedBy {
        self.stage_end().map_or(ClosedBy::Service, |end| end.by)
    }

    /// What a stage says of that end.
    pub(super) fn stage_error(&self) -> Option<String> {
        self.stage_end().and_then(|end| end.error.clone())
    }

    /// Has the reset of a session that aborts go through its stages. Returns false where there are
    /// none.
    pub(super) fn abort_through_stages(&mut self) -> bool {
        if self.legs().all(|state| state.stages.is_none()) {
            return false;
        }
        self.ending.get_or_insert(Ending::Service);
        self.lingering = true;
        for state in self.legs_mut() {
            state.inbox = None;
            // Nothing more is written. No FIN is sent either: the connection ends when the reset
            // has passed.
            state.writing = Writing::FinSent;
            if let Some(stages) = &mut state.stages {
                state.writing = Writing::FinWanted;
                if !stages.is_aborting() {
                    stages.our_end = OurEnd::ResetWanted;
                }
            }
        }
        true
    }
}

impl Turn<'_> {
    /// Whether what is due waits until the stages are ready for a session. Notes that the server
    /// stops.
    pub(super) fn waits_for_stages(&mut self, drains: bool) -> bool {
        let Some(stages) = &mut self.connection.client.stages else { return false };
        stages.drains |= drains;
        matches!(stages.opening, Opening::Waiting | Opening::Asked)
    }

    /// Passes a wake on to the stages it was meant for.
    pub(super) fn wake_stages(&mut self) {
        for state in self.connection.legs_mut() {
            if let Some(stages) = &mut state.stages {
                if stages.chain.was_woken() {
                    stages.chain.wake();
                }
            }
        }
    }

    /// Gives the client's leg the faults that the server has now; where it has no stages yet, only
    /// if a fault concerns it. One whose session has closed gets no further faults, and loses those
    /// that were removed.
    pub(super) fn update_faults(&mut self) -> SessionResult {
        let own = self.connection.client.stages.as_ref().and_then(|stages| stages.faults.clone());
        let faults = own.unwrap_or_else(|| Arc::clone(&self.resources.faults));
        let record = Arc::clone(&self.connection.record);
        let ends = self.connection.lingering || self.connection.gone.is_some();
        if self.connection.client.stages.is_none()
            && (ends
                || self.connection.entry_id.is_none()
                || !faults.concerns(record.id())
                || !self.put_stages_between())
        {
            return Ok(());
        }
        let now = Instant::now();
        let Some(stages) = &mut self.connection.client.stages else { return Ok(()) };
        if ends {
            faults.remove_old(&mut stages.chain, now)
        } else {
            faults.update(&mut stages.chain, &record, now)
        }
    }

    /// Puts an empty chain into a connection that is being served. Returns false where it is about
    /// to end.
    pub(super) fn put_stages_between(&mut self) -> bool {
        if self.connection.client.writing.error().is_some() {
            return false;
        }
        if let Some(outbox) = self.connection.client.outbox.take() {
            let rest = match *outbox {
                Outbox::Pipe(pipe) => self.take_back(Leg::Client, pipe).map(Outbox::Ring),
                other => Some(other),
            };
            let Some(rest) = rest else { return false };
            self.connection.client.outbox = Some(Box::new(rest));
        }
        for state in self.connection.legs_mut() {
            if let Delivery::Splice(to) = state.delivery {
                state.delivery = Delivery::Copy(to);
            }
        }
        let client = &mut self.connection.client;
        let mut stages = LegStages::new(Box::new(Chain::new(Vec::new())));
        stages.opening = Opening::Made;
        if client.writing.is_over() {
            stages.our_end = OurEnd::EndPassed;
        }
        if client.has_ended() {
            stages.socket_end = SocketEnd::End;
        }
        client.stages = Some(Box::new(stages));
        true
    }

    /// Puts a chain with TLS into the upstream leg, which is connected.
    pub(super) fn put_stages_upstream(&mut self, chain: Box<Chain>) {
        if let Some(far) = self.connection.record.far() {
            // The totals count one that is not completed.
            far.begin_handshake();
        }
        if let Some(state) = self.connection.leg_mut(Leg::Upstream) {
            state.stages = Some(Box::new(LegStages::new(chain)));
            // From here on, nothing passes the chain by.
            state.absorb_readiness();
        }
    }

    /// Takes out a chain that has lost its last stage and has nothing on its way: the leg is then
    /// served as one that never had any. Not one with faults of its own, whose set it keeps.
    fn take_out_empty_chain(&mut self, leg: Leg) {
        let ends = self.connection.lingering || self.connection.gone.is_some();
        let state = self.leg_mut(leg);
        let is_empty = |stages: &mut Box<LegStages>| {
            stages.is_open && stages.faults.is_none() && stages.is_empty()
        };
        // Where a stage has ended the input, the rest of it is still thrown away.
        let cut = state.has_ended() && state.can_receive();
        let ends = ends || cut;
        let Some(stages) = state.stages.take_if(|stages| !ends && is_empty(stages)) else { return };
        state.readable |= stages.readable && !state.has_ended();
        state.writable |= stages.writable;
        state.drain_to_eagain |= stages.drain_to_eagain;
        state.failed |= stages.failed;
        let mut outbox = state.outbox.take();
        let ring = outbox.as_mut().and_then(|outbox| outbox.ring_mut()).map(std::mem::take);
        match (outbox, ring) {
            (Some(mut outbox), Some(ring)) if !ring.is_empty() => {
                *outbox = Outbox::Ring(ring);
                state.outbox = Some(outbox);
            }
            (outbox, _) => {
                state.blocked &= state.writing.error().is_some();
                outbox.into_iter().for_each(|outbox| self.resources.give_buffer(outbox));
            }
        }
        self.put_timer(Key::Stages(leg as u8), None);
    }

    /// Keeps in the record what faults have done.
    fn keep_notes(&mut self, leg: Leg) {
        let Some(stages) = &mut self.leg_mut(leg).stages else { return };
        let (notes, tls) = (stages.chain.take_notes(), stages.chain.take_tls());
        for event in notes {
            self.connection.record.note_fault(event);
        }
        let record = &self.connection.record;
        let ledger = &self.resources.context.ledger;
        match (tls, leg) {
            (None, _) => {}
            (Some(info), Leg::Client) => {
                ledger.count_handshake(&info);
                record.note_tls(info);
            }
            (Some(info), Leg::Upstream) => {
                ledger.count_target_handshake(&info);
                record.far().into_iter().for_each(|far| far.note_tls(info.clone()));
            }
        }
    }

    /// Keeps in the record what a proxy has said. Its client takes a slot of its host; where that
    /// has none left, the connection is reset.
    fn heed_proxy(&mut self, leg: Leg) {
        let Some(stages) = &mut self.leg_mut(leg).stages else { return };
        let Some(header) = stages.chain.take_proxy() else { return };
        let record = &self.connection.record;
        record.note_proxy(*header);
        if self.resources.context.admission.enter_host(record.remote().address.as_ip()) {
            record.note_slot();
        } else {
            self.connection.end(ClosedBy::Limit("per_host"), None, true);
        }
    }

    /// Does what can be done between the socket, the chain and the session of a leg. Returns
    /// whether there was anything.
    pub(super) fn serve_stages(
        &mut self,
        session: &mut dyn Session,
        scratch: &mut [u8],
        leg: Leg,
    ) -> SessionResult<bool> {
        self.leg_mut(leg).absorb_readiness();
        if self.leg(leg).connecting {
            return Ok(false);
        }
        let now = Instant::now();
        if self.leg(leg).stages.as_ref().is_some_and(|stages| !stages.is_open) {
            session.opening(Waker::new(Arc::clone(&self.resources.notifier), self.token));
        }
        let mut acted = self.feed_chain(leg, now)?;
        acted |= self.begin_upgrade(session, leg, now)?;
        self.keep_notes(leg);
        acted |= self.heed_stage_end(session, scratch, leg, now)?;
        acted |= self.send_from_chain(leg, now)?;
        if self.connection.gone.is_some() {
            return Ok(true);
        }
        self.count_held(leg);
        acted |= self.receive_into_chain(session, scratch, leg, now)?;
        self.heed_proxy(leg);
        if self.connection.gone.is_some() {
            return Ok(true);
        }
        self.keep_notes(leg);
        acted |= self.heed_stage_end(session, scratch, leg, now)?;
        self.open_above(session, leg)?;
        acted |= self.deliver_from_chain(session, scratch, leg)?;
        self.count_held(leg);
        self.set_stage_timer(leg, now);
        self.take_out_empty_chain(leg);
        Ok(acted)
    }

    /// Gives the chain what the session has written, its end, and the time.
    fn feed_chain(&mut self, leg: Leg, now: Instant) -> SessionResult<bool> {
        let (notifier, token) = (&self.resources.notifier, self.token);
        let gate = self.resources.context.gate.as_ref();
        let Some(state) = self.connection.leg_mut(leg) else { return Ok(false) };
        let Some(stages) = &mut state.stages else { return Ok(false) };
        let mut acted = false;
        if !stages.is_open {
            stages.is_open = true;
            stages.chain.put_gate(gate);
            stages.chain.open(now, Some(Waker::new(Arc::clone(notifier), token)))?;
        }
        if let Some(ring) = state.outbox.as_mut().and_then(|outbox| outbox.ring_mut()) {
            acted |= !ring.is_empty();
            let before = stages.chain.held(Direction::Outbound);
            if !stages.is_aborting() && stages.can_send() {
                let (first, second) = ring.as_slices();
                stages.chain.outbound(now, Outbound::Bytes(first))?;
                stages.chain.outbound(now, Outbound::Bytes(second))?;
            }
            // What no send will count: a session whose bytes are thrown away could write on and on.
            let kept = stages.chain.held(Direction::Outbound).saturating_sub(before);
            let lost = ring.len().saturating_sub(kept);
            self.resources.budget = self.resources.budget.saturating_sub(lost);
            ring.clear();
        }
        match (stages.our_end, state.writing) {
            (OurEnd::None, Writing::FinWanted) => {
                acted = true;
                stages.our_end = OurEnd::EndGiven;
                stages.chain.outbound(now, Outbound::End)?;
            }
            (OurEnd::ResetWanted, _) => {
                acted = true;
                stages.our_end = OurEnd::ResetGiven;
                stages.chain.outbound(now, Outbound::Reset)?;
            }
            _ => {}
        }
        stages.chain.turn(now)?;
        Ok(acted)
    }

    /// Sends what leaves the chain, each chunk by a call of its own.
    fn send_from_chain(&mut self, leg: Leg, now: Instant) -> SessionResult<bool> {
        // Taken out, for the counting needs the rest of the connection; no session is called here.
        let Some(mut stages) = self.leg_mut(leg).stages.take() else { return Ok(false) };
        let sent = self.send_chunks(leg, &mut stages, now);
        self.leg_mut(leg).stages = Some(stages);
        let (acted, reset) = sent?;
        if reset {
            let by = self.connection.closed_by();
            self.connection.end(by, None, true);
        }
        Ok(acted)
    }

    /// Returns whether it did anything, and whether a reset has left the chain.
    fn send_chunks(
        &mut self,
        leg: Leg,
        stages: &mut LegStages,
        now: Instant,
    ) -> SessionResult<(bool, bool)> {
        let mut acted = false;
        let delivered = stages.end.as_ref().is_some_and(|end| end.delivered);
        // Any other reset overtakes what the socket has not taken, as that of a session does
        // without stages.
        if stages.chain.ends_with_reset() && !delivered && !stages.chain.has_end() {
            return Ok((true, true));
        }
        while let Some(event) = stages.chain.next_outbound() {
            if !matches!(event, Outbound::Bytes(_)) && stages.chain.has_end() {
                // A stage's end that waits for a delivery to the session.
                break;
            }
            let chunk = match event {
                Outbound::Bytes(chunk) => chunk,
                Outbound::End => {
                    acted = true;
                    stages.chain.consume_outbound(0);
                    if !stages.is_aborting() {
                        stages.our_end = OurEnd::EndPassed;
                    }
                    let state = self.leg_mut(leg);
                    if state.writing == Writing::Open {
                        // A stage has ended our side by itself.
                        state.writing = Writing::FinWanted;
                    }
                    continue;
                }
                Outbound::Reset => {
                    let unsent = || sys::unsent(self.leg(leg).socket.as_fd());
                    if delivered && stages.waits_for_delivery(now, unsent()) {
                        break;
                    }
                    stages.chain.consume_outbound(0);
                    return Ok((true, true));
                }
            };
            let length = chunk.len();
            if !stages.can_send() || stages.end_has_passed() {
                acted = true;
                stages.chain.consume_outbound(length);
                continue;
            }
            if !stages.writable || self.resources.budget == 0 {
                break;
            }
            acted = true;
            match sys::send(self.leg(leg).socket.as_fd(), chunk, 0) {
                Ok(count) => {
                    let budget = self.resources.budget;
                    self.sent(leg, count, Some(&chunk[..count]));
                    self.resources.budget = budget.saturating_sub(count.max(CHUNK_COST));
                    stages.chain.consume_outbound(count);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => stages.writable = false,
                    _ => {
                        let errno = error.raw_os_error().unwrap_or(libc::EIO);
                        stages.writable = false;
                        if stages.socket_end == SocketEnd::None {
                            // What the peer sent before comes first.
                            stages.socket_end = SocketEnd::SendFailed(errno);
                            stages.readable = true;
                            stages.drain_to_eagain = true;
                        } else {
                            stages.fail(now, "send", errno)?;
                        }
                    }
                },
            }
        }
        Ok((acted, false))
    }

    /// How much may be received: what the session or the pipe has room for, less what stages hold
    /// already.
    fn chain_room(&self, session: &dyn Session, leg: Leg, stages: &LegStages) -> usize {
        let state = self.leg(leg);
        let room = match state.delivery.pipe_to() {
            // Behind an end that a stage has made, input is thrown away.
            _ if state.has_ended() => self.resources.high_water,
            _ if self.connection.lingering || stages.opening != Opening::Made => {
                self.resources.high_water
            }
            Some(to) => {
                let unsent = self.connection.leg(to).map_or(0, LegState::unsent);
                self.resources.high_water.saturating_sub(unsent)
            }
            None => session.input_limit().saturating_sub(state.unused()),
        };
        room.saturating_sub(stages.counted(Direction::Inbound)).min(stages.chain.room())
    }

    /// Receives once, as far as there is room.
    fn receive_into_chain(
        &mut self,
        session: &mut dyn Session,
        scratch: &mut [u8],
        leg: Leg,
        now: Instant,
    ) -> SessionResult<bool> {
        let Some(mut stages) = self.leg_mut(leg).stages.take() else { return Ok(false) };
        let room = self.chain_room(session, leg, &stages).min(scratch.len());
        let acted = self.receive_chunk(&mut scratch[..room], leg, &mut stages, now);
        self.leg_mut(leg).stages = Some(stages);
        acted
    }

    fn receive_chunk(
        &mut self,
        buffer: &mut [u8],
        leg: Leg,
        stages: &mut LegStages,
        now: Instant,
    ) -> SessionResult<bool> {
        if stages.has_received_all() || self.resources.budget == 0 {
            return Ok(false);
        }
        if buffer.is_empty() || !stages.readable {
            return self.find_failure_below(leg, stages, now);
        }
        let state = self.leg(leg);
        match sys::recv(state.socket.as_fd(), buffer, libc::MSG_DONTWAIT) {
            Ok(0) => {
                if let SocketEnd::SendFailed(errno) = stages.socket_end {
                    stages.fail(now, "send", errno)?;
                } else {
                    stages.readable = false;
                    stages.socket_end = SocketEnd::End;
                    stages.chain.inbound(now, Inbound::End)?;
                }
            }
            Ok(count) => {
                if count < buffer.len() && !stages.drain_to_eagain && !state.unix {
                    stages.readable = false;
                }
                self.received(leg, count, Some(&buffer[..count]));
                self.resources.budget = self.resources.budget.saturating_sub(count.max(CHUNK_COST));
                stages.chain.inbound(now, Inbound::Bytes(&buffer[..count]))?;
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => {
                    stages.readable = false;
                    stages.drain_to_eagain = false;
                }
                _ => stages.fail(now, "recv", error.raw_os_error().unwrap_or(libc::EIO))?,
            },
        }
        Ok(true)
    }

    /// Looks for the error of a socket that is not being read: no read would find it.
    fn find_failure_below(
        &mut self,
        leg: Leg,
        stages: &mut LegStages,
        now: Instant,
    ) -> SessionResult<bool> {
        if let SocketEnd::SendFailed(errno) = stages.socket_end {
            stages.fail(now, "send", errno)?;
            return Ok(true);
        }
        if !std::mem::take(&mut stages.failed) {
            return Ok(false);
        }
        match self.leg(leg).socket.options().take_error() {
            Ok(Some(error)) | Err(error) => {
                stages.fail(now, "recv", error.raw_os_error().unwrap_or(libc::EIO))?;
                Ok(true)
            }
            Ok(None) => Ok(false),
        }
    }

    /// Ends the connection where a stage has asked for that, behind what it has passed on before.
    fn heed_stage_end(
        &mut self,
        session: &mut dyn Session,
        scratch: &mut [u8],
        leg: Leg,
        now: Instant,
    ) -> SessionResult<bool> {
        if !self.leg(leg).stages.as_ref().is_some_and(|stages| stages.chain.has_end()) {
            return Ok(false);
        }
        self.deliver_from_chain(session, scratch, leg)?;
        let left = self.undelivered(leg);
        let Some(stages) = &mut self.leg_mut(leg).stages else { return Ok(false) };
        if stages.chain.end().is_some_and(|end| end.delivered)
            && stages.waits_for_delivery(now, left)
        {
            return Ok(false);
        }
        let Some(end) = stages.chain.take_end() else { return Ok(false) };
        stages.delivery = None;
        let reset = end.reset;
        let (by, error) = (end.by, end.error.clone());
        // A session that has closed has nothing to lose by a cut.
        let decides = leg == Leg::Client && !(end.cut && self.connection.lingering);
        let Some(stages) = &mut self.leg_mut(leg).stages else { return Ok(false) };
        // The chain has it already.
        stages.our_end = match stages.our_end {
            _ if reset => OurEnd::ResetGiven,
            OurEnd::EndPassed => OurEnd::EndPassed,
            // Also where a stage above, or the session, has reset the connection: that reset does
            // not get through.
            _ => OurEnd::EndGiven,
        };
        if leg == Leg::Upstream {
            return self.end_upstream(&end, now);
        }
        if decides {
            stages.end = Some(end);
        }
        if decides {
            self.connection.ending = Some(Ending::Stage);
            session.ends(by, error.as_deref());
        }
        if reset {
            self.connection.abort_through_stages();
        } else {
            self.connection.linger();
        }
        Ok(true)
    }

    /// Ends a connection that has reached a limit, with an end that goes through the stages. Returns
    /// false where they have no part in it.
    pub(super) fn end_through_stages(
        &mut self,
        session: &mut dyn Session,
        name: &'static str,
    ) -> bool {
        let by = ClosedBy::Limit(name);
        if self.connection.lingering {
            return false;
        }
        let all = self.connection.legs_mut().filter_map(|state| state.stages.as_mut());
        let mut owing = all.filter(|stages| stages.end.is_none() && stages.chain.owes_end());
        let Some(stages) = owing.next() else { return false };
        stages.end = Some(StageEnd { reset: false, delivered: false, cut: false, by, error: None });
        drop(owing);
        self.connection.ending = Some(Ending::Stage);
        // Not for a peer that may never answer.
        self.connection.until_acknowledged = true;
        session.ends(by, None);
        self.connection.linger();
        self.progress();
        true
    }

    /// Bytes that have left the chain inbound, and have not reached the session, or the other end of
    /// the leg that it has piped them to.
    fn undelivered(&self, leg: Leg) -> usize {
        let state = self.leg(leg);
        let Some(stages) = &state.stages else { return 0 };
        let unread = stages.chain.unread();
        if !stages.chain.end().is_some_and(|end| end.reset) {
            // Before a FIN everything is sent.
            return unread;
        }
        let to = state.delivery.pipe_to().filter(|&to| to != leg);
        let unsent = to.and_then(|to| self.connection.leg(to)).map_or(0, |to| {
            to.unsent() + if to.connecting { 0 } else { sys::unsent(to.socket.as_fd()) }
        });
        unread + unsent
    }

    /// Has the worker make the session, once the stages are ready. Of the upstream leg, which the
    /// session has connected, tells it that they are.
    fn open_above(&mut self, session: &mut dyn Session, leg: Leg) -> SessionResult {
        let lingering = self.connection.lingering;
        let Some(stages) = &mut self.leg_mut(leg).stages else { return Ok(()) };
        if lingering || !stages.chain.is_ready() {
            return Ok(());
        }
        match stages.opening {
            Opening::Waiting => {}
            Opening::Upgrading => {
                stages.opening = Opening::Made;
                return session.upgraded(self);
            }
            Opening::Asked | Opening::Made => return Ok(()),
        }
        match leg {
            Leg::Client => {
                stages.opening = Opening::Asked;
                self.connection.due().make_session = true;
                Ok(())
            }
            Leg::Upstream => {
                stages.opening = Opening::Made;
                session.staged(self)
            }
        }
    }

    /// Ends the connection because a stage of the upstream leg has ended that: the client is reset,
    /// so that a cut is not read as an end.
    fn end_upstream(&mut self, end: &StageEnd, now: Instant) -> SessionResult<bool> {
        if end.cut && self.connection.lingering {
            return Ok(true);
        }
        if !end.reset {
            // The alert, as far as the target takes it at once.
            self.send_from_chain(Leg::Upstream, now)?;
        }
        let far = self.connection.record.far().map(|far| far.remote().to_string());
        let text = end.error.as_deref().unwrap_or("ended by a stage");
        let text = far.map_or_else(|| text.to_owned(), |far| format!("{far}: {text}"));
        self.connection.end(ClosedBy::Error, Some(text), true);
        Ok(true)
    }

    /// Delivers what leaves the chain to the session, or to the leg that it has piped it to.
    fn deliver_from_chain(
        &mut self,
        session: &mut dyn Session,
        scratch: &mut [u8],
        leg: Leg,
    ) -> SessionResult<bool> {
        let mut acted = false;
        while self.connection.gone.is_none() && self.resources.budget > 0 {
            let lingering = self.connection.lingering;
            let state = self.leg(leg);
            let Some(stages) = &state.stages else { break };
            let made = stages.opening == Opening::Made
                && self.connection.due.as_ref().is_none_or(|due| !due.open);
            match stages.chain.next_inbound() {
                None => break,
                Some(Inbound::Bytes(chunk)) => {
                    let taken = lingering || made && self.takes_input(session, leg);
                    if !taken && !state.has_ended() {
                        if stages.chain.ends_with_error() {
                            // As a leg that is not read finds out.
                            self.fail_above(leg);
                            acted = true;
                        }
                        break;
                    }
                    let count = if state.has_ended() {
                        chunk.len()
                    } else {
                        chunk.len().min(self.room(session, leg, scratch.len()))
                    };
                    let wanted = !state.has_ended();
                    if wanted {
                        scratch[..count].copy_from_slice(&chunk[..count]);
                    }
                    self.consume_inbound(leg, count);
                    let budget = self.resources.budget;
                    if wanted {
                        self.deliver(session, leg, &scratch[..count])?;
                    }
                    let left = budget.saturating_sub(count.max(CHUNK_COST));
                    self.resources.budget = self.resources.budget.min(left);
                }
                Some(Inbound::End) => {
                    if !made && !lingering {
                        if stages.opening != Opening::Waiting {
                            break;
                        }
                        // The peer has finished before there was a session.
                        if self.connection.has_inner() && self.connection.record.awaits_proxy() {
                            // The caller, which has the other end, does not know of it.
                            self.connection.end(ClosedBy::Peer, None, false);
                            return Ok(true);
                        }
                        self.connection.ending.get_or_insert(Ending::Peer);
                        self.connection.linger();
                    }
                    self.consume_inbound(leg, 0);
                    let state = self.leg_mut(leg);
                    if state.reading == Reading::Open {
                        state.reading = Reading::Ended;
                    }
                }
                Some(Inbound::Error(_)) => self.fail_above(leg),
            }
            acted = true;
        }
        if self.connection.lingering {
            let state = self.leg_mut(leg);
            let over =
                state.stages.as_ref().is_some_and(|stages| stages.socket_end == SocketEnd::End);
            if over && state.reading == Reading::Open {
                // Input is thrown away: its end need not come through the stages.
                state.reading = Reading::EndDelivered;
            }
        }
        let swallowed = self.leg(leg).stages.as_ref().is_some_and(|stages| {
            matches!(stages.socket_end, SocketEnd::Failed(..))
                && !stages.chain.is_owed()
                && stages.chain.next_call().is_none()
        });
        if swallowed && self.connection.gone.is_none() {
            // Nothing can come of a connection whose socket has failed, whatever its stages make of
            // that.
            self.fail_above(leg);
            acted = true;
        }
        Ok(acted)
    }

    fn consume_inbound(&mut self, leg: Leg, count: usize) {
        if let Some(stages) = &mut self.leg_mut(leg).stages {
            stages.chain.consume_inbound(count);
        }
    }

    /// The failure of the socket has left the chain.
    fn fail_above(&mut self, leg: Leg) {
        let Some(stages) = &mut self.leg_mut(leg).stages else { return };
        while let Some(event) = stages.chain.next_inbound() {
            // The session did not take what is left in front of it.
            let count = if let Inbound::Bytes(chunk) = event { chunk.len() } else { 0 };
            stages.chain.consume_inbound(count);
        }
        let SocketEnd::Failed(step, errno) = stages.socket_end else { return };
        stages.socket_end = SocketEnd::FailureDelivered;
        self.broken(leg, step, &io::Error::from_raw_os_error(errno));
        let state = self.leg_mut(leg);
        // Nothing is left to read, whether there is something left to pass on or not.
        state.readable = false;
        if state.writing.error().is_some() {
            state.reading = Reading::EndDelivered;
        }
    }

    /// Keeps the outbox of a leg at what waits in it and in the chain.
    fn count_held(&mut self, leg: Leg) {
        let (low, high) = (self.resources.low_water(), self.resources.high_water);
        let state = self.leg_mut(leg);
        let Some(stages) = &state.stages else { return };
        // What stages still hold behind the end is not sent any more.
        let over = stages.end_has_passed();
        let is_empty = over || stages.chain.held(Direction::Outbound) == 0;
        let held = if over { 0 } else { stages.counted(Direction::Outbound) };
        let outbox = match state.outbox.take() {
            None if is_empty => None,
            None => Some(self.resources.take_buffer()),
            outbox => outbox,
        };
        let mut unsent = 0;
        if let Some(mut outbox) = outbox {
            let ring = outbox.ring_mut().map(std::mem::take).unwrap_or_default();
            if ring.is_empty() && is_empty {
                *outbox = Outbox::Ring(ring);
                self.resources.give_buffer(outbox);
            } else {
                *outbox = Outbox::Staged { ring, held };
                unsent = outbox.len();
                self.leg_mut(leg).outbox = Some(outbox);
            }
        }
        let state = self.leg_mut(leg);
        if unsent >= high {
            state.blocked = true;
        } else if unsent <= low && state.writing.error().is_none() {
            state.blocked = false;
        }
    }

    fn set_stage_timer(&mut self, leg: Leg, now: Instant) {
        let Some(stages) = &mut self.leg_mut(leg).stages else { return };
        let at = stages.next_call();
        if at != stages.timer || at.is_some_and(|at| at <= now) {
            stages.timer = at;
            self.put_timer(Key::Stages(leg as u8), at);
        }
    }
}
