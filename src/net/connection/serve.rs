//! One turn of a connection: what is due to its session, then its legs until nothing more can be done or
//! the turn's budget is spent. Owns the order of the steps of a turn. Must never block, take a lock, or
//! allocate on the way of data that can be sent at once.

use super::connection::Connection;
use super::leg::Wire;
use super::resources::WorkerResources;
use crate::net::base::timers::Key;
use crate::net::ledger::closed_by::ClosedBy;
use crate::net::service::service::BATCH_BYTES;
use crate::net::service::session::{Drain, Leg, Session, SessionResult};

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
}
