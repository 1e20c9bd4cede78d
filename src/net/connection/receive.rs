//! How bytes come from a socket to the session, or to the leg that the session has piped them to.
//! Owns the edge-trigger rules and the bound of the inbox. Must never receive more than there is
//! room for.
//!
//! The edge-trigger rules: a leg is readable or writable until the kernel says EAGAIN. One shortcut
//! saves a call a message: a short read means an empty queue, but only if the event that announced
//! the data said nothing of an end, an error or urgent data (`drain_to_eagain`), for these end a
//! read early and do not announce themselves twice.

#![allow(
    clippy::box_collection,
    clippy::vec_box,
    reason = "an idle leg holds a null pointer, where an empty collection takes three words"
)]

use std::io;
use std::os::fd::AsFd;

use super::leg::{Delivery, Input, LegState, Reading};
use super::serve::Turn;
use crate::net::ledger::ClosedBy;
use crate::net::service::{Io, Leg, Session, SessionError, SessionResult};
use crate::net::sys;

impl Turn<'_> {
    pub(super) fn may_read(&self, session: &dyn Session, leg: Leg) -> bool {
        let state = self.leg(leg);
        if !state.readable || state.has_ended() || state.connecting || self.resources.budget == 0 {
            return false;
        }
        self.takes_input(session, leg)
    }

    /// Whether there is room for input: where the session wants it, or in the outbox that it is
    /// piped to.
    pub(super) fn takes_input(&self, session: &dyn Session, leg: Leg) -> bool {
        if self.connection.lingering {
            return true;
        }
        let state = self.leg(leg);
        if state.input == Input::Paused {
            return false;
        }
        match state.delivery.pipe_to() {
            Some(to) => {
                state.inbox.is_none() && self.connection.leg(to).is_some_and(|to| !to.blocked)
            }
            // What a session makes of its input goes to the client. The upstream leg is read also
            // while its target reads nothing: that may wait until it has been read.
            None => {
                (!self.connection.client.blocked || session.ignores_input())
                    && state.unused() < session.input_limit()
            }
        }
    }

    /// How much input there is room for, as far as `most`.
    pub(super) fn room(&self, session: &dyn Session, leg: Leg, most: usize) -> usize {
        let room = match self.leg(leg).delivery.pipe_to() {
            _ if self.connection.lingering => most,
            Some(to) => self.resources.high_water.saturating_sub(self.leg(to).unsent()),
            None => session.input_limit() - self.leg(leg).unused(),
        };
        room.min(most)
    }

    pub(super) fn read(
        &mut self,
        session: &mut dyn Session,
        scratch: &mut [u8],
        leg: Leg,
    ) -> SessionResult {
        let pipe_to = self.leg(leg).delivery.pipe_to().filter(|_| !self.connection.lingering);
        if let (Delivery::Splice(_), Some(to)) = (self.leg(leg).delivery, pipe_to) {
            if self.splice(leg, to) {
                return Ok(());
            }
        }
        let scratch_size = scratch.len();
        let room = self.room(session, leg, scratch_size);
        let state = self.leg_mut(leg);
        // MSG_DONTWAIT, for the socket of a handler blocks.
        let count = match sys::recv(state.socket.as_fd(), &mut scratch[..room], libc::MSG_DONTWAIT)
        {
            Ok(count) => count,
            Err(error) => {
                match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => {
                        state.readable = false;
                        state.drain_to_eagain = false;
                    }
                    _ => self.broken(leg, "recv", &error),
                }
                return Ok(());
            }
        };
        if count == 0 {
            // The end of a leg on which a send failed is no end to deliver: that send has met the
            // reset.
            let failed = state.writing.error().is_some();
            state.reading = if failed { Reading::EndDelivered } else { Reading::Ended };
            state.readable = false;
            return Ok(());
        }
        if count < room && !state.drain_to_eagain && !state.unix {
            state.readable = false;
        }
        let data = &scratch[..count];
        self.received(leg, count, Some(data));
        if count == scratch_size && !self.connection.record.is_traced() {
            // At this rate splicing costs less than copying.
            if let Some(to) = pipe_to.filter(|&to| self.leg(to).stages.is_none()) {
                self.leg_mut(leg).delivery = Delivery::Splice(to);
            }
        }
        self.deliver(session, leg, data)
    }

    /// Hands input to the session, or to the leg that it has piped it to.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        session: &mut dyn Session,
        leg: Leg,
        data: &[u8],
    ) -> SessionResult {
        let count = data.len();
        if let Some(to) = self.leg(leg).delivery.pipe_to().filter(|_| !self.connection.lingering) {
            let budget = self.resources.budget;
            let taken = self.write(to, data);
            debug_assert!(
                taken == count || self.connection.gone.is_some() || self.leg(to).writing.is_over(),
                "no more was read than there was room for"
            );
            // Bytes that are passed on count once.
            self.resources.budget = budget.saturating_sub(count);
            return Ok(());
        }
        self.resources.budget = self.resources.budget.saturating_sub(count);
        if self.connection.lingering {
            self.progress();
            return Ok(());
        }
        if self.leg(leg).inbox.is_some() {
            self.leg_mut(leg).inbox.get_or_insert_default().extend_from_slice(data);
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

    /// Passes on what the session left unused before it made its leg a pipe: it goes ahead of
    /// everything that follows.
    pub(super) fn pipe_rest(&mut self, leg: Leg) -> bool {
        let Some(to) = self.leg(leg).delivery.pipe_to() else { return false };
        if self.connection.lingering || self.connection.leg(to).is_none_or(|to| to.blocked) {
            return false;
        }
        let Some(mut inbox) = self.leg_mut(leg).inbox.take() else { return false };
        let taken = self.write(to, &inbox);
        inbox.drain(..taken);
        if !inbox.is_empty() {
            if let Some(to) = self.connection.leg_mut(to) {
                // The session did not write it, and is owed nothing.
                to.owes_low_water = false;
            }
            self.keep(leg, inbox);
        }
        taken > 0
    }

    /// Keeps what a session did not use, unless the session has closed.
    pub(super) fn keep(&mut self, leg: Leg, rest: Box<Vec<u8>>) {
        if self.connection.lingering || self.connection.gone.is_some() {
            return;
        }
        if let Some(state) = self.connection.leg_mut(leg) {
            state.inbox = Some(rest);
        }
    }

    /// Offers the rest in the inbox again. Returns whether any of it was used.
    pub(super) fn offer(&mut self, session: &mut dyn Session, leg: Leg) -> SessionResult<bool> {
        if self.leg(leg).delivery != Delivery::Session {
            return Ok(false);
        }
        let Some(mut inbox) = self.leg_mut(leg).inbox.take() else { return Ok(false) };
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

    /// Ends a connection whose session can write and still uses nothing of a full inbox: it never
    /// will.
    fn check_stuck(&mut self, session: &mut dyn Session, leg: Leg, used: usize) {
        let ended = self.connection.lingering || self.connection.gone.is_some();
        let Some(state) =
            self.connection.leg(leg).filter(|state| !ended && state.delivery == Delivery::Session)
        else {
            return;
        };
        // A leg on which a send failed takes nothing, and ends the connection once it is read.
        let cannot_write = |state: &LegState| {
            state.owes_low_water || state.connecting || state.writing.error().is_some()
        };
        let waits = state.input == Input::Paused || self.connection.legs().any(cannot_write);
        let is_stuck = used == 0 && !waits && state.unused() >= session.input_limit();
        if is_stuck && !self.end_through_stages(session, "line") {
            self.connection.end(ClosedBy::Limit("line"), None, false);
        }
    }

    /// Counts what was received; `data` is None for bytes that went through a pipe of the kernel's.
    pub(super) fn received(&mut self, leg: Leg, count: usize, data: Option<&[u8]>) {
        match leg {
            // Its record is closed.
            Leg::Client if self.connection.entry_id.is_none() => {}
            Leg::Client => match data {
                Some(data) => self.connection.record.count_received(data),
                None => self.connection.record.count_received_unseen(count),
            },
            Leg::Upstream => {
                self.connection.awaits_answer = false;
                self.connection.record.count_far_received(count, data);
            }
        }
        self.moved();
    }
}

fn used_too_much(used: usize, given: usize) -> SessionError {
    SessionError(format!("the session used {used} of {given} bytes"))
}
