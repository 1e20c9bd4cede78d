//! How bytes come from a socket to the session, or to the pipe that takes its place. Owns the edge-trigger
//! rules and the bound of the inbox. Must never receive more than there is room for.
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

use std::io;
use std::os::fd::AsFd;

use super::serve::Turn;
use crate::net::ledger::closed_by::ClosedBy;
use crate::net::service::session::{Io, Leg, Session, SessionError, SessionResult};
use crate::net::sys;

impl Turn<'_> {
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

    /// Counts what has come in, likewise.
    pub(super) fn received(&mut self, leg: Leg, count: usize, data: Option<&[u8]>) {
        match leg {
            // The account is closed.
            Leg::Client if self.connection.place.is_none() => {}
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
}

pub(super) fn used_too_much(used: usize, given: usize) -> SessionError {
    SessionError(format!("the session used {used} of {given} bytes"))
}
