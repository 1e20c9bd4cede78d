//! How a connection ends: half-close, lingering close, and legs that fail. Owns the order of ends and
//! bytes. Must never send a FIN ahead of bytes that are owed, nor report an end before the bytes in front
//! of it.

use std::io;
use std::net::Shutdown;
use std::num::NonZeroI32;
use std::os::fd::AsFd;

use super::connection::Connection;
use super::leg::Fin;
use super::serve::Turn;
use crate::net::error::strerror;
use crate::net::ledger::closed_by::ClosedBy;
use crate::net::service::session::{Io, Leg, Session, SessionResult};
use crate::net::sys;

impl Connection {
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

    /// Sends FIN and lingers until the peer has acknowledged it, and with it all before it: a plain
    /// close would let the peer's next byte destroy what the kernel still holds for it.
    pub(crate) fn linger_for_stop(&mut self) {
        self.ending.get_or_insert(ClosedBy::Stop);
        self.until_acknowledged = true;
        self.linger();
    }

    /// Whether the far side owes the near one nothing, as far as bytes can tell: it has had the last
    /// word, and has finished if the near side has.
    pub(super) fn is_answered(&self) -> bool {
        self.wire(Leg::Upstream).is_none_or(|far| !self.asked && (far.eof || !self.near.eof))
    }
}

impl Turn<'_> {
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
}
