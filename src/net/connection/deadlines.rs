//! The deadlines of a connection: which limit runs out when, and the timers behind them. Must never
//! set a timer for a connection that no limit concerns, nor set one anew with each byte.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::leg::Input;
use super::serve::Turn;
use super::watch::Watch;
use crate::net::base::Key;
use crate::net::ledger::ClosedBy;
use crate::net::service::{Session, WaitingCalls};
use crate::net::sys;

/// A lingering close gives up when nothing has moved for this long.
const LINGER: Duration = Duration::from_secs(2);

/// How long a target may take for its answer to a client that has finished, without an idle limit:
/// nginx's default for a connection without traffic (proxy_timeout).
const ANSWER: Duration = Duration::from_secs(600);

impl Connection {
    /// Whether nothing has come of the peer, or no more than a handshake that is not complete.
    fn awaits_first_byte(&self) -> bool {
        !self.record.has_received() || self.is_opening()
    }

    /// From when on that time counts.
    fn waits_since(&self) -> Instant {
        let stages = self.client.stages.as_ref().filter(|_| self.is_opening());
        stages.and_then(|stages| stages.since).unwrap_or_else(|| self.record.opened())
    }
}

impl Turn<'_> {
    /// Sets the engine's timer where a limit needs one. A connection that is not half closed, has
    /// nothing to send and no limit of its own never has one.
    pub(super) fn watch(&mut self) {
        let connection = &*self.connection;
        let half_closed = connection.is_half_closed();
        let limits = &self.resources.limits;
        let timed = limits.idle.is_some()
            || limits.lifetime.is_some()
            || limits.first_byte.is_some() && connection.awaits_first_byte();
        let owing = limits.write.is_some() && connection.owes();
        match &self.connection.watch {
            None if !(half_closed || timed || owing) => return,
            // The timer runs already; `overdue` computes the deadline again.
            Some(watch) if watch.half_closed.is_some() == half_closed && watch.owing == owing => {
                return;
            }
            _ => {}
        }
        let now = Instant::now();
        let fresh = || Watch {
            half_closed: None,
            progress: now,
            moved: now,
            owing: false,
            first_byte_arrived: false,
        };
        let watch = self.connection.watch.get_or_insert_with(|| Box::new(fresh()));
        let halves = half_closed && watch.half_closed.is_none();
        if halves {
            watch.half_closed = Some(now);
        }
        if halves || owing && !watch.owing {
            // What was sent before does not count.
            watch.progress = now;
        }
        watch.owing = owing;
        self.rearm();
    }

    /// When the next limit is reached, and its name. That of a lingering close is empty: it is no
    /// limit. Without `calls`, the limits that hold only while a call waits count as if one did.
    fn due_at(&self, calls: Option<WaitingCalls>) -> Option<(Instant, &'static str)> {
        let connection = &*self.connection;
        let watch = connection.watch.as_ref()?;
        let limits = &self.resources.limits;
        let after = |from: Instant, limit: Option<Duration>, name| {
            limit.and_then(|limit| from.checked_add(limit)).map(|at| (at, name))
        };
        let (progress, moved) = match connection.is_delayed() {
            true => (Instant::now(), Instant::now()),
            false => (watch.progress, watch.moved),
        };
        let finished = connection.legs().all(|state| state.writing.is_over());
        let half_closed = match watch.half_closed {
            // After its FIN a lingering close waits for progress, but no longer than the limit.
            Some(since) if connection.lingering && finished => {
                let quiet = after(progress, Some(LINGER), "");
                [quiet, after(since, limits.half_close, "")].into_iter().flatten().min()
            }
            // A handler may answer late, after its peer has finished.
            Some(_) if connection.has_inner() && !connection.lingering => None,
            // What a target still works on is not idle. The idle limit bounds it, if there is one.
            Some(_) if connection.waits_for_target() => {
                let most = limits.half_close.filter(|_| limits.idle.is_none());
                after(progress, most.map(|limit| limit.max(ANSWER)), "half_close")
            }
            Some(_) => after(progress, limits.half_close, "half_close"),
            None => None,
        };
        let write = limits.write.filter(|_| connection.owes());
        let first_byte = limits
            .first_byte
            .filter(|_| !connection.lingering && connection.awaits_first_byte())
            .filter(|_| !watch.first_byte_arrived)
            .filter(|_| calls.is_none_or(|calls| calls.reading));
        let idle = limits
            .idle
            .filter(|_| !connection.lingering)
            .filter(|_| calls.is_none_or(|calls| calls.any));
        // What a call takes may have come long before.
        let moved = match calls
            .and_then(|calls| connection.record.opened().checked_add(calls.last_traffic))
        {
            Some(by_call) => moved.max(by_call),
            None => moved,
        };
        [
            half_closed,
            after(watch.progress, write, "write"),
            after(connection.waits_since(), first_byte, "first_byte"),
            after(moved, idle, "idle"),
            after(
                connection.record.opened(),
                limits.lifetime,
                if connection.lingering { "" } else { "lifetime" },
            ),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn rearm(&mut self) {
        if let Some((at, _)) = self.due_at(None) {
            self.put_timer(Key::Engine, Some(at));
        }
    }

    /// A call may wait that `overdue` did not find.
    pub(super) fn rearm_for_call(&mut self) {
        let limits = &self.resources.limits;
        if (limits.idle.is_some() || limits.first_byte.is_some()) && self.connection.has_inner() {
            self.rearm();
        }
    }

    pub(super) fn overdue(&mut self, session: &mut dyn Session) {
        // No call can wait for a peer that the stages wait for.
        let calls = session.waiting_calls().filter(|_| !self.connection.is_opening());
        match self.due_at(calls) {
            Some((at, "")) if at <= Instant::now() => {
                // Everything is sent. The kernel delivers what it still holds after a close; a
                // reset would destroy it.
                let by = self.connection.closed_by();
                self.connection.end(by, None, false);
            }
            Some((at, "first_byte")) if at <= Instant::now() && self.has_unread_input() => {
                if let Some(watch) = &mut self.connection.watch {
                    watch.first_byte_arrived = true;
                }
                self.rearm();
            }
            Some((at, name)) if at <= Instant::now() => {
                // A peer that is owed nothing gets a FIN.
                let reset = !matches!(name, "idle" | "first_byte" | "lifetime")
                    || self.connection.has_unsent();
                if reset || !self.end_through_stages(session, name) {
                    self.connection.end(ClosedBy::Limit(name), None, reset);
                }
            }
            // There was progress in the meantime: the timer is set again only when it runs out, not
            // with each byte.
            Some((at, _)) => self.put_timer(Key::Engine, Some(at)),
            // The next call that waits sets the timer.
            None if calls.is_some() => {}
            None => self.connection.watch = None,
        }
    }

    /// Whether the peer's first bytes wait in the kernel for a session that does not take input
    /// yet, such as one that still connects to its target.
    fn has_unread_input(&self) -> bool {
        self.connection.client.input == Input::Paused
            && sys::unread(self.connection.client.socket.as_fd()) > 0
    }

    /// Forgets a timer that has run out. Returns false where it is not set, or set for later.
    pub(super) fn take_expired(&mut self, key: Key) -> bool {
        let Some(timers) = &mut self.connection.timers else { return false };
        let now = Instant::now();
        let expired = timers.iter().position(|&(set, at)| set == key && at <= now);
        expired.map(|index| timers.swap_remove(index)).is_some()
    }

    pub(super) fn put_timer(&mut self, key: Key, at: Option<Instant>) {
        if self.connection.timers.is_none() && at.is_none() {
            return;
        }
        let timers = self.connection.timers.get_or_insert_default();
        if let Some(index) = timers.iter().position(|&(set, _)| set == key) {
            let (_, before) = timers.swap_remove(index);
            self.resources.timers.remove(before, self.token, key);
        }
        if let Some(at) = at {
            timers.push((key, at));
            self.resources.timers.insert(at, self.token, key);
        }
    }

    pub(super) fn progress(&mut self) {
        if let Some(watch) = &mut self.connection.watch {
            watch.progress = Instant::now();
            watch.moved = watch.progress;
        }
    }

    /// Input came, which only the idle limit counts.
    pub(super) fn moved(&mut self) {
        if self.resources.limits.idle.is_some() {
            if let Some(watch) = &mut self.connection.watch {
                watch.moved = Instant::now();
            }
        }
    }
}
