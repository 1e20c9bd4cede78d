//! What a session does through `Io`, carried out on its connection. Must never call back into the
//! session.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Ending;
use super::leg::{Delivery, Input, Writing};
use super::outbox::Outbox;
use super::serve::Turn;
use crate::net::address::Endpoint;
use crate::net::base::Key;
use crate::net::ledger::Role;
use crate::net::service::{Io, Leg, LegStages, SessionResult, Waker};
use crate::net::stage::Chain;
use crate::net::sys;

impl Io for Turn<'_> {
    fn write(&mut self, leg: Leg, data: &[u8]) -> usize {
        let Some(state) = self.connection.leg(leg) else { return 0 };
        if self.connection.gone.is_some() {
            // Takes nothing, or a session that writes for as long as it can would never stop.
            return 0;
        }
        if state.writing != Writing::Open {
            // What a session writes after its own end goes nowhere, and is no error.
            let Some(stages) = &state.stages else { return data.len() };
            if stages.is_aborting() {
                return 0;
            }
            // A stage may have ended this side, which the session does not know: one that writes
            // for as long as it can has to let others have their turns.
            if self.resources.budget == 0 {
                self.leg_mut(leg).owes_low_water = true;
                return 0;
            }
            self.resources.budget = self.resources.budget.saturating_sub(data.len());
            return data.len();
        }
        let mut taken = 0;
        if state.outbox.is_none() && state.writable && !state.connecting {
            match self.send(leg, data) {
                Some(count) => taken = count,
                None => return 0,
            }
        }
        if taken == data.len() {
            return taken;
        }
        let mut outbox =
            self.leg_mut(leg).outbox.take().unwrap_or_else(|| self.resources.take_buffer());
        let room = self.resources.high_water.saturating_sub(outbox.len());
        let full = match &mut *outbox {
            Outbox::Ring(ring) | Outbox::Staged { ring, .. } => {
                let kept = (data.len() - taken).min(room);
                if ring.try_reserve(kept).is_err() {
                    let error = io::Error::from_raw_os_error(libc::ENOMEM);
                    self.broken(leg, "keep", &error);
                    return 0;
                }
                ring.extend(&data[taken..taken + kept]);
                taken += kept;
                kept == room
            }
            // Nothing can be kept behind a pipe, whose bytes go first.
            Outbox::Pipe(_) => true,
        };
        let state = self.connection.leg_mut(leg).expect("the leg is there");
        state.blocked |= full;
        state.owes_low_water |= taken < data.len();
        state.outbox = Some(outbox);
        taken
    }

    fn pipe(&mut self, from: Leg, to: Leg) {
        if let Some(state) = self.connection.leg_mut(from) {
            state.delivery = Delivery::Copy(to);
        }
    }

    fn pause(&mut self, leg: Leg) {
        if let Some(state) = self.connection.leg_mut(leg) {
            state.input = Input::Paused;
        }
    }

    fn resume(&mut self, leg: Leg) {
        if let Some(state) = self.connection.leg_mut(leg) {
            state.input = Input::OfferAgain;
        }
    }

    fn shut_write(&mut self, leg: Leg) {
        if let Some(state) = self.connection.leg_mut(leg) {
            if state.writing == Writing::Open {
                state.writing = Writing::FinWanted;
            }
        }
    }

    fn close(&mut self) {
        self.connection.ending.get_or_insert(Ending::Service);
        // A server that stops does not wait for the peer of a handler that has closed. A client's
        // close never waits for the peer.
        let at_once = self.connection.drains || self.connection.record.role() == Role::Client;
        self.connection.until_acknowledged |= at_once && self.connection.has_inner();
        self.connection.linger();
        // The timer may already count a half-close, whose limit is longer.
        if self.connection.watch.is_some() {
            self.progress();
            self.rearm();
        }
    }

    fn abort(&mut self) {
        if self.connection.abort_through_stages() {
            return;
        }
        let by = self.connection.closed_by();
        self.connection.end(by, None, true);
    }

    fn finish_input(&mut self) {
        self.connection.finishing_input = true;
        // The last event may have said nothing of what is there.
        let client = &mut self.connection.client;
        match &mut client.stages {
            Some(stages) => stages.recheck(),
            None => {
                client.readable = !client.has_ended();
                client.drain_to_eagain = true;
            }
        }
    }

    fn abandon(&mut self) {
        self.connection.abandoned = true;
    }

    fn has_undelivered(&self) -> bool {
        let client = &self.connection.client;
        let upstream = self.connection.leg(Leg::Upstream);
        sys::unread(client.socket.as_fd()) > 0
            || client.unused() > 0
            || client.stages.as_ref().is_some_and(|stages| stages.has_inbound())
            || upstream.is_some_and(|upstream| upstream.unsent() > 0)
            || self.connection.upstream.as_ref().is_some_and(|upstream| upstream.left_unread)
    }

    fn set_timer(&mut self, key: u32, after: Option<Duration>) {
        let at = after.and_then(|after| Instant::now().checked_add(after));
        self.put_timer(Key::Session(key), at);
    }

    fn connect(&mut self, target: Endpoint) {
        self.begin_connect(target);
    }

    fn connect_too(&mut self, target: Endpoint) {
        self.begin_another_connect(target);
    }

    fn put_stages(&mut self, stages: LegStages) {
        let chain = stages.into_chain::<Chain>().expect("a chain");
        self.put_stages_upstream(chain);
    }

    fn start_tls(&mut self, stages: LegStages) -> SessionResult {
        let chain = stages.into_chain::<Chain>().expect("a chain");
        self.plan_upgrade(chain)
    }

    fn connecting(&self) -> Vec<(Endpoint, Endpoint)> {
        self.connection.upstream.as_ref().map_or_else(Vec::new, |upstream| upstream.attempts())
    }

    fn local(&self, leg: Leg) -> Option<Endpoint> {
        match leg {
            Leg::Client => Some(self.connection.record.local()),
            Leg::Upstream => self.upstream_local(),
        }
    }

    fn waker(&mut self) -> Waker {
        let Self { connection, resources, token } = self;
        let make = || Box::new(Waker::new(Arc::clone(&resources.notifier), *token));
        (**connection.waker.get_or_insert_with(make)).clone()
    }
}
