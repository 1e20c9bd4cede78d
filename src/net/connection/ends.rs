//! How a connection ends: half-close, lingering close, and legs that fail. Owns the order of ends
//! and bytes. Must never send a FIN ahead of bytes that are owed, nor report an end before the
//! bytes in front of it.

use std::io;
use std::net::Shutdown;
use std::num::NonZeroI32;
use std::os::fd::AsFd;

use super::connection::{Connection, Ending};
use super::leg::{Delivery, Input, Reading, Writing};
use super::serve::Turn;
use crate::net::error::strerror;
use crate::net::ledger::ClosedBy;
use crate::net::service::{Io, Leg, Session, SessionResult};
use crate::net::sys;

impl Connection {
    /// Whether there may be nothing more to wait for, although it is not complete.
    fn may_end_early(&self) -> bool {
        self.until_acknowledged | self.abandoned
    }

    /// Whether a stop has nothing more to wait for. The acknowledgement of a FIN is an event.
    fn is_acknowledged(&self) -> bool {
        self.until_acknowledged
            && self
                .legs()
                .all(|state| state.writing.is_over() && sys::is_acknowledged(state.socket.as_fd()))
    }

    /// Whether a fault lets nothing through of what an abandoned connection has left.
    fn is_held_back(&self) -> bool {
        self.abandoned && self.client.is_stuck()
    }

    /// Whether one direction has ended, or is about to.
    pub(super) fn is_half_closed(&self) -> bool {
        self.lingering || self.legs().any(|state| state.has_ended() || state.writing.is_over())
    }

    /// Whether the client has finished, the target has everything, and its answer is still to come,
    /// or to continue.
    pub(super) fn waits_for_target(&self) -> bool {
        !self.lingering
            && self.client.has_ended()
            && self.client.outbox.is_none()
            && self.leg(Leg::Upstream).is_some_and(|upstream| {
                !upstream.has_ended()
                    && upstream.outbox.is_none()
                    && !upstream.connecting
                    && upstream.writing.error().is_none()
            })
    }

    /// Begins a lingering close: a FIN behind what is owed, and the input is thrown away.
    pub(super) fn linger(&mut self) {
        self.lingering = true;
        for state in self.legs_mut() {
            state.inbox = None;
            state.input = Input::Flowing;
            if state.writing == Writing::Open {
                state.writing = Writing::FinWanted;
            }
        }
    }

    /// Sends FIN and lingers until the peer has acknowledged it, and with it everything before it.
    /// After a plain close the peer's next byte would cause a reset, and destroy what the kernel
    /// still holds.
    pub(crate) fn linger_for_stop(&mut self) {
        self.ending.get_or_insert(Ending::Stop);
        self.until_acknowledged = true;
        self.linger();
    }

    /// Whether the upstream owes the client nothing, as far as bytes can tell: the last bytes came
    /// from it, and it has finished if the client has.
    pub(super) fn is_answered(&self) -> bool {
        self.leg(Leg::Upstream).is_none_or(|upstream| {
            !self.awaits_answer && (upstream.has_ended() || !self.client.has_ended())
        })
    }
}

impl Turn<'_> {
    pub(super) fn deliver_end(
        &mut self,
        session: &mut dyn Session,
        leg: Leg,
    ) -> SessionResult<bool> {
        if self.leg(leg).delivery != Delivery::Session
            && self.leg(leg).inbox.is_some()
            && !self.connection.lingering
        {
            return Ok(false);
        }
        // The side that finishes first ends it; the upstream is the service's own.
        let by = if leg == Leg::Client { Ending::Peer } else { Ending::Service };
        self.connection.ending.get_or_insert(by);
        if !self.connection.lingering {
            if let Some(to) = self.leg(leg).delivery.pipe_to() {
                self.leg_mut(leg).reading = Reading::EndDelivered;
                self.shut_write(to);
                return Ok(true);
            }
            if self.leg(leg).inbox.is_some()
                && self.connection.legs().any(|state| state.owes_low_water)
            {
                // The rest can still be used when there is room to write.
                return Ok(false);
            }
            self.leg_mut(leg).reading = Reading::EndDelivered;
            let rest = self.leg_mut(leg).inbox.take();
            session.eof(self, leg, rest.as_ref().map_or(&[], |rest| rest.as_slice()))?;
            return Ok(true);
        }
        self.leg_mut(leg).reading = Reading::EndDelivered;
        Ok(true)
    }

    /// Looks for the error of a leg that is not being read: no read would find it.
    pub(super) fn find_failure(&mut self, session: &dyn Session, leg: Leg) -> bool {
        if self.leg(leg).connecting || self.may_read(session, leg) {
            // The read finds it, behind what came before it.
            return false;
        }
        let state = self.leg_mut(leg);
        state.failed = false;
        if state.writing.error().is_some() {
            // The error is known; what came before it has yet to be read.
            return false;
        }
        match state.socket.options().take_error() {
            Ok(Some(error)) | Err(error) => {
                self.broken(leg, "recv", &error);
                true
            }
            Ok(None) => false,
        }
    }

    /// Handles the failure of a leg: a reset by the peer, or an error with its text.
    pub(super) fn broken(&mut self, leg: Leg, step: &str, error: &io::Error) {
        if leg == Leg::Upstream && self.connection.has_inner() {
            return self.inner_broken(step);
        }
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        if step == "send" && self.keep_reading(leg, errno) {
            return;
        }
        let state = self.leg_mut(leg);
        state.readable = false;
        state.writable = false;
        if state.writing.error().is_some() {
            // A send had failed before, and now there is nothing more to read.
            state.reading = Reading::EndDelivered;
            return;
        }
        self.end_broken(leg, step, errno);
    }

    /// Handles the failure of one end of a socket pair: its handler reads no more, or has closed
    /// the other end, which is an end like any other.
    fn inner_broken(&mut self, step: &str) {
        if let Some(upstream) = &mut self.connection.upstream {
            upstream.left_unread = true;
        }
        if step == "send" {
            // What the client sends is given to the session, which throws it away.
            self.connection.client.delivery = Delivery::Session;
            let state = self.leg_mut(Leg::Upstream);
            state.writing = Writing::FinSent;
            state.writable = false;
            state.blocked = false;
        } else {
            // What the handler sent before is still to be read, and the end behind it.
            let state = self.leg_mut(Leg::Upstream);
            state.readable = !state.has_ended();
            state.drain_to_eagain = true;
        }
    }

    /// Goes on to read a leg on which a send failed, where the other leg takes what it has sent: a
    /// server that answers early and closes resets a client that still sends, and its answer came
    /// before that reset. Returns false where there is nothing to pass on.
    fn keep_reading(&mut self, leg: Leg, errno: i32) -> bool {
        let state = self.leg(leg);
        let reader = state.delivery.pipe_to().filter(|&to| to != leg);
        let reader = reader.and_then(|to| self.connection.leg(to));
        let useful = reader.is_some_and(|reader| reader.writing == Writing::Open);
        if !useful || state.has_ended() || self.connection.lingering {
            return false;
        }
        let Some(failure) = NonZeroI32::new(errno) else { return false };
        let state = self.leg_mut(leg);
        state.writing = Writing::Failed(failure);
        state.writable = false;
        // For good: the other leg is no longer read for this one.
        state.blocked = true;
        state.readable = true;
        state.drain_to_eagain = true;
        true
    }

    fn end_broken(&mut self, leg: Leg, step: &str, errno: i32) {
        if self.connection.lingering {
            // The peer was owed no more than an attempt; what ended the session stays the reason.
            let by = self.connection.closed_by();
            self.connection.end(by, None, true);
        } else if leg == Leg::Client
            && matches!(errno, libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED)
        {
            self.connection.end(ClosedBy::Reset, None, true);
        } else {
            // A reset of the upstream as well: the client is reset, so that a cut is not read as an
            // end.
            let mut text = strerror(errno);
            if let (Leg::Upstream, Some(account)) = (leg, self.connection.record.far()) {
                text = format!("{step} {}: {text}", account.remote());
            }
            self.connection.end(ClosedBy::Error, Some(text), true);
        }
    }

    /// Ends a connection on one of whose legs a send failed, once what that leg received has been
    /// passed on.
    fn settle_send_errors(&mut self) {
        for leg in [Leg::Client, Leg::Upstream] {
            let Some(state) = self.connection.leg(leg).filter(|state| state.has_ended()) else {
                continue;
            };
            let reader = state.delivery.pipe_to().and_then(|to| self.connection.leg(to));
            let passed_on = reader.is_none_or(|reader| reader.outbox.is_none());
            if let Some(errno) = state.writing.error().filter(|_| passed_on) {
                self.end_broken(leg, "send", errno.get());
            }
        }
    }

    /// Whether everything that has come on the client leg was passed on.
    fn input_is_delivered(&self) -> bool {
        let client = &self.connection.client;
        let stages = client.stages.as_ref();
        !client.readable
            && client.inbox.is_none()
            && stages.is_none_or(|stages| !stages.is_readable() && !stages.has_inbound())
    }

    /// Sends the FINs that are due, and ends the connection when it is complete.
    pub(super) fn settle(&mut self) {
        if self.connection.finishing_input && self.input_is_delivered() {
            self.connection.finishing_input = false;
            self.shut_write(Leg::Upstream);
        }
        self.settle_send_errors();
        if self.connection.gone.is_some() {
            return;
        }
        let alone = self.connection.upstream.is_none();
        let mut complete = true;
        let mut finished = false;
        for state in self.connection.legs_mut() {
            if state.writing == Writing::FinWanted
                && state.outbox.is_none()
                && !state.connecting
                && state.stages.as_ref().is_none_or(|stages| stages.end_has_passed())
            {
                state.writing = Writing::FinSent;
                // Where both directions are done, the close that follows sends the FIN.
                if !(alone && state.has_ended() && !state.can_receive()) {
                    // ENOTCONN after a reset, which the next read finds.
                    let _ = state.socket.shutdown(Shutdown::Write);
                    finished = true;
                }
            }
            // A stage may have ended the input of a peer that still sends.
            complete &= state.has_ended() && state.writing.is_over() && !state.can_receive();
        }
        if finished {
            // The limits of what follows count from here.
            self.progress();
            if self.connection.watch.is_some() {
                self.rearm();
            }
        }
        let early = !complete && self.connection.may_end_early();
        if complete || early && self.connection.is_acknowledged() {
            let by = self.connection.closed_by();
            self.connection.end(by, None, false);
        } else if early && self.connection.is_held_back() {
            let by = self.connection.closed_by();
            self.connection.end(by, None, true);
        }
    }
}
