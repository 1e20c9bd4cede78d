//! One turn of a connection: what is due to its session, then its legs until nothing more can be
//! done or the turn's budget is spent. Owns the order of the steps of a turn. Must never block,
//! take a lock, or allocate on the way of data that can be sent at once.

use super::connection::{Connection, Ending};
use super::due::Due;
use super::leg::{Delivery, Input, LegState, Reading};
use super::resources::WorkerResources;
use crate::net::base::Key;
use crate::net::service::{BATCH_BYTES, Drain, Leg, Session, SessionResult};

/// Whether a connection has more to do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// It waits for an event.
    Idle,
    /// Its turn was over before its work was.
    More,
    /// Its stages are ready, and the worker makes its session.
    Open,
    /// It has ended.
    Gone,
}

/// A connection during its turn: the session's `Io`.
pub(crate) struct Turn<'a> {
    pub(crate) connection: &'a mut Connection,
    pub(crate) resources: &'a mut WorkerResources,
    pub(crate) token: u64,
}

impl Turn<'_> {
    /// Serves one turn: what is due, then both legs until nothing more can be done or the budget is
    /// spent. Returns an error of the session; everything else is settled in the connection.
    pub(crate) fn serve(
        &mut self,
        session: &mut dyn Session,
        scratch: &mut [u8],
    ) -> SessionResult<Served> {
        self.resources.budget = BATCH_BYTES;
        let (mut overdue, mut rechecked) = (false, false);
        if let Some(mut due) = self.connection.due.take() {
            self.connection.legs_mut().for_each(LegState::absorb_readiness);
            // First: once the turn is over, the change of the faults is confirmed.
            if std::mem::take(&mut due.faults) {
                self.update_faults()?;
            }
            if std::mem::take(&mut due.make_session) {
                self.connection.due = Some(due);
                return Ok(Served::Open);
            }
            overdue = due.engine_timer && self.take_expired(Key::Engine);
            self.deliver_due(session, *due)?;
            if self.connection.gone.is_some() {
                return Ok(Served::Gone);
            }
        }
        loop {
            if let Some(upstream) = self.connection.leg_mut(Leg::Upstream) {
                // Before the client leg, whose bytes are sent at once on a leg that is writable.
                upstream.absorb_readiness();
            }
            let mut acted = self.serve_leg(session, scratch, Leg::Client)?;
            if self.connection.upstream.is_some() {
                acted |= self.serve_leg(session, scratch, Leg::Upstream)?;
            }
            self.settle();
            if self.connection.gone.is_some() {
                return Ok(Served::Gone);
            }
            if !acted || self.resources.budget == 0 {
                if overdue && !rechecked {
                    // This thread may be late, as after a SIGSTOP: what came in time counts,
                    // although the poller has not reported it yet.
                    rechecked = true;
                    self.connection.recheck();
                    self.connection.retry();
                    continue;
                }
                if std::mem::take(&mut overdue) {
                    self.overdue(session);
                    if self.connection.gone.is_some() {
                        return Ok(Served::Gone);
                    }
                    continue;
                }
                self.watch();
                // No event announces again what a spent budget left undone, or what fell due during
                // the turn.
                let more = self.resources.budget == 0 || self.connection.due.is_some();
                return Ok(if more { Served::More } else { Served::Idle });
            }
        }
    }

    fn deliver_due(&mut self, session: &mut dyn Session, due: Due) -> SessionResult {
        if due.wake {
            self.wake_stages();
            self.rearm_for_call();
        }
        if !self.connection.lingering && self.waits_for_stages(due.drain) {
            if due.wake && session.gives_up() {
                let by = self.connection.closed_by();
                self.connection.end(by, None, true);
            }
            return Ok(());
        }
        if due.open && !self.connection.lingering {
            session.open(self)?;
        }
        if self.connection.lingering {
            // The session has closed, and `closed` is the only event left for it. A server that
            // stops does not wait for a peer that has everything and stays connected.
            self.connection.until_acknowledged |= due.drain;
            return Ok(());
        }
        if due.drain {
            self.deliver_drain(session)?;
        }
        if due.wake && self.connection.waker.as_ref().is_some_and(|waker| waker.heard()) {
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

    fn deliver_drain(&mut self, session: &mut dyn Session) -> SessionResult {
        let ending = self.connection.ending;
        self.connection.drains = true;
        match session.drain(self)? {
            Drain::Finish => {}
            Drain::Answered => self.connection.until_answered = true,
            Drain::Hold => self.connection.hold = true,
        }
        if self.connection.lingering {
            // It closes because the server does.
            self.connection.ending = Some(ending.unwrap_or(Ending::Stop));
            self.connection.until_acknowledged = true;
        }
        Ok(())
    }

    /// Does what can be done on one leg. Returns whether there was anything.
    fn serve_leg(
        &mut self,
        session: &mut dyn Session,
        scratch: &mut [u8],
        leg: Leg,
    ) -> SessionResult<bool> {
        let mut acted = false;
        if self.leg(leg).stages.is_some() {
            acted = self.serve_stages(session, scratch, leg)?;
            if self.connection.gone.is_some() {
                return Ok(true);
            }
        }
        if self.leg(leg).connecting && self.leg(leg).writable {
            acted = true;
            let Some(result) = self.finish_connect() else { return Ok(true) };
            if !self.connection.lingering {
                session.connected(self, result)?;
            }
            if result.is_err() {
                return Ok(true);
            }
        }
        if self.leg(leg).failed && self.find_failure(session, leg) {
            return Ok(true);
        }
        let ignores_input = session.ignores_input();
        if ignores_input && self.may_read(session, leg) {
            // Before the writing, which may use up every turn.
            acted = true;
            self.read(session, scratch, leg)?;
            if self.connection.gone.is_some() {
                return Ok(true);
            }
        }
        if self.leg(leg).outbox.is_some() && self.leg(leg).writable && self.resources.budget > 0 {
            acted = true;
            self.flush(leg);
        }
        if self.leg(leg).owes_low_water
            && !self.leg(leg).blocked
            && self.resources.budget > 0
            && !self.connection.lingering
        {
            acted = true;
            self.leg_mut(leg).owes_low_water = false;
            for state in self.connection.legs_mut() {
                if state.input == Input::Flowing {
                    state.input = Input::OfferAgain;
                }
            }
            session.low_water(self, leg)?;
        }
        if self.leg(leg).input == Input::OfferAgain {
            self.leg_mut(leg).input = Input::Flowing;
            if !self.connection.lingering {
                acted |= self.offer(session, leg)?;
            }
        }
        if self.leg(leg).delivery != Delivery::Session && self.leg(leg).inbox.is_some() {
            acted |= self.pipe_rest(leg);
        }
        if !ignores_input && self.may_read(session, leg) && self.connection.gone.is_none() {
            acted = true;
            self.read(session, scratch, leg)?;
        }
        if self.leg(leg).reading == Reading::Ended {
            acted |= self.deliver_end(session, leg)?;
        }
        Ok(acted)
    }

    pub(super) fn leg(&self, leg: Leg) -> &LegState {
        self.connection.leg(leg).expect("only a leg that is there is served")
    }

    pub(super) fn leg_mut(&mut self, leg: Leg) -> &mut LegState {
        self.connection.leg_mut(leg).expect("only a leg that is there is served")
    }
}
