//! What a session does through `Io`, carried out on its connection. Must never call back into the session.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::leg::Fin;
use super::outbox::Outbox;
use super::serve::Turn;
use crate::net::address::endpoint::Endpoint;
use crate::net::base::timers::Key;
use crate::net::ledger::closed_by::ClosedBy;
use crate::net::service::session::{Io, Leg};
use crate::net::service::waker::Waker;

impl Io for Turn<'_> {
    fn write(&mut self, leg: Leg, data: &[u8]) -> usize {
        let Some(wire) = self.connection.wire(leg) else { return 0 };
        if self.connection.gone.is_some() {
            // Nothing is taken any more, or one that writes for as long as it may never stopped.
            return 0;
        }
        if wire.fin != Fin::Open {
            // Behind its own end a session's words go nowhere, and it need not care.
            return data.len();
        }
        let mut taken = 0;
        if wire.outbox.is_none() && wire.writable && !wire.connecting {
            match self.send(leg, data) {
                Some(count) => taken = count,
                None => return 0,
            }
        }
        if taken == data.len() {
            return taken;
        }
        let mut outbox =
            self.wire_mut(leg).outbox.take().unwrap_or_else(|| self.resources.take_buffer());
        let full = match &mut *outbox {
            Outbox::Ring(ring) => {
                let kept = (data.len() - taken).min(self.resources.high_water - ring.len());
                if ring.try_reserve(kept).is_err() {
                    let error = io::Error::from_raw_os_error(libc::ENOMEM);
                    self.broken(leg, "keep", &error);
                    return 0;
                }
                ring.extend(&data[taken..taken + kept]);
                taken += kept;
                ring.len() == self.resources.high_water
            }
            // Behind a pipe nothing can be kept: what is in there goes first.
            Outbox::Pipe(_) => true,
        };
        let wire = self.connection.wire_mut(leg).expect("seen above");
        wire.blocked |= full;
        wire.short |= taken < data.len();
        wire.outbox = Some(outbox);
        taken
    }

    fn pipe(&mut self, from: Leg, to: Leg) {
        if let Some(wire) = self.connection.wire_mut(from) {
            wire.pipe_to = Some(to);
        }
    }

    fn pause(&mut self, leg: Leg) {
        if let Some(wire) = self.connection.wire_mut(leg) {
            wire.paused = true;
        }
    }

    fn resume(&mut self, leg: Leg) {
        if let Some(wire) = self.connection.wire_mut(leg) {
            wire.paused = false;
            wire.offer = true;
        }
    }

    fn shut_write(&mut self, leg: Leg) {
        if let Some(wire) = self.connection.wire_mut(leg) {
            if wire.fin == Fin::Open {
                wire.fin = Fin::Wanted;
            }
        }
    }

    fn close(&mut self) {
        self.connection.ending.get_or_insert(ClosedBy::Service);
        self.connection.linger();
        // A half-close may already be watched under the longer limit.
        if self.connection.watch.is_some() {
            self.progress();
            self.rearm();
        }
    }

    fn abort(&mut self) {
        let by = self.connection.ending.unwrap_or(ClosedBy::Service);
        self.connection.end(by, None, true);
    }

    fn set_timer(&mut self, key: u32, after: Option<Duration>) {
        let at = after.and_then(|after| Instant::now().checked_add(after));
        self.put_timer(Key::Session(key), at);
    }

    fn connect(&mut self, target: Endpoint) {
        self.begin_connect(target);
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
