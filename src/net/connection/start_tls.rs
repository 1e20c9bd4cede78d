//! TLS that begins on a connection in use. Owns when its stage comes into the chain; must never let
//! a byte that came before pass it by.
//!
//! Everything that was written goes ahead in clear text, so the stage waits until no other stage
//! holds anything. What came from the peer, and was not used, is the first that it is given:
//! wherever it waits, it goes back to the beginning of the chain.

use std::os::fd::AsFd;
use std::time::Instant;

use super::leg_stages::Opening;
use super::outbox::Outbox;
use super::serve::Turn;
use crate::net::service::{Leg, Session, SessionError, SessionResult};
use crate::net::stage::{Chain, Inbound};
use crate::net::sys;

impl Turn<'_> {
    /// Has TLS begin on the client leg by a chain of one stage.
    pub(super) fn plan_upgrade(&mut self, chain: Box<Chain>) -> SessionResult {
        if self.connection.record.tls().is_some() {
            return Err(SessionError("the connection has TLS already".to_owned()));
        }
        // The totals count one that is not completed.
        self.connection.record.begin_handshake();
        if self.connection.client.stages.is_none() && !self.put_stages_between() {
            // It is about to end.
            return Ok(());
        }
        // From here on, nothing passes the chain by.
        self.connection.client.absorb_readiness();
        if let Some(stages) = &mut self.connection.client.stages {
            stages.upgrade = chain.into_stages().pop();
        }
        Ok(())
    }

    /// Puts the stage into the chain, once nothing is on its way. Returns whether it did, or has to
    /// be asked again in this turn.
    pub(super) fn begin_upgrade(
        &mut self,
        session: &mut dyn Session,
        leg: Leg,
        now: Instant,
    ) -> SessionResult<bool> {
        let Some(stages) = &self.leg(leg).stages else { return Ok(false) };
        if stages.upgrade.is_none() || leg == Leg::Upstream || self.connection.lingering {
            return Ok(false);
        }
        if !stages.chain.takes_stages() || !stages.chain.is_at_rest() {
            return Ok(false);
        }
        if let Some(upstream) = self.connection.leg_mut(Leg::Upstream) {
            // What the caller has written to its end of the socket pair comes first.
            if sys::unread(upstream.socket.as_fd()) > 0 && !upstream.has_ended() {
                let acted = !std::mem::replace(&mut upstream.readable, true);
                return Ok(acted);
            }
        }
        let early = self.take_back_input(session);
        let client = &mut self.connection.client;
        let mut ended = client.has_ended();
        let Some(stages) = &mut client.stages else { return Ok(false) };
        let Some(stage) = stages.upgrade.take() else { return Ok(false) };
        let mut rest = Vec::new();
        loop {
            match stages.chain.next_inbound() {
                Some(Inbound::Bytes(chunk)) => {
                    rest.extend_from_slice(chunk);
                    let count = chunk.len();
                    stages.chain.consume_inbound(count);
                }
                Some(Inbound::End) => {
                    ended = true;
                    stages.chain.consume_inbound(0);
                }
                // The connection ends by it.
                Some(Inbound::Error(_)) | None => break,
            }
        }
        stages.opening = Opening::Upgrading;
        stages.since = Some(now);
        stages.chain.push_below(now, stage)?;
        for bytes in [early, rest] {
            if !bytes.is_empty() {
                stages.chain.inbound(now, Inbound::Bytes(&bytes))?;
            }
        }
        if ended {
            stages.chain.inbound(now, Inbound::End)?;
        }
        if let Some(watch) = &mut self.connection.watch {
            // The timer may be that of a later limit.
            watch.first_byte_arrived = false;
            self.rearm();
        }
        Ok(true)
    }

    /// The input that has left the chain, in order: what the session has passed on comes first.
    fn take_back_input(&mut self, session: &mut dyn Session) -> Vec<u8> {
        let mut early = session.take_back();
        let upstream = self.connection.leg_mut(Leg::Upstream);
        if let Some(outbox) = upstream.and_then(|upstream| upstream.outbox.take()) {
            match *outbox {
                Outbox::Ring(ring) | Outbox::Staged { ring, .. } => early.extend(ring),
                Outbox::Pipe(pipe) => {
                    early.extend(self.take_back(Leg::Upstream, pipe).into_iter().flatten());
                }
            }
            if let Some(upstream) = self.connection.leg_mut(Leg::Upstream) {
                upstream.blocked = upstream.writing.error().is_some();
            }
        }
        if let Some(inbox) = self.connection.client.inbox.take() {
            early.extend(*inbox);
        }
        early
    }
}
