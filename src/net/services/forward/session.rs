//! The session of one forwarded connection. Owns the choice among the target's addresses, and the
//! connect time-out; must never look at the bytes, which the engine moves.
//!
//! The addresses of a name are tried as RFC 8305 says: the next one as well if the one before has
//! not answered for a moment, and the first that answers is taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::prepared::PreparedForward;
use crate::net::address::{Address, Endpoint, STAGGER, resolve};
use crate::net::control::{Opened, Opening, forward_loops};
use crate::net::error::strerror;
use crate::net::ledger::ClosedBy;
use crate::net::service::{
    Drain, ForwarderId, Io, Leg, LegStages, Peer, Session, SessionError, SessionResult,
};
use crate::net::stage::Chain;

/// The timer of one address, or of the resolver.
const TIMER: u32 = 0;
/// The timer of a retry after EAGAIN: no event announces that a Unix socket's queue has room again.
const RETRY: u32 = 1;
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// The session of one forwarded connection.
pub(super) struct ForwardSession {
    forward: Arc<PreparedForward>,
    /// Registers the upstream connection, and those in progress, by our side of each, so that they
    /// are recognised if they come back.
    opened: Vec<(Endpoint, Opened)>,
    /// Present until the target is connected.
    attempts: Option<Box<Attempts>>,
    /// The target is connected, and TLS is not agreed on yet.
    shakes_hands: bool,
}

/// The progress of connecting to the target.
struct Attempts {
    id: u64,
    /// The forwarders of this process that the connection has passed; None if it cannot come back.
    trail: Option<Arc<[ForwarderId]>>,
    /// The header that the target gets first.
    preface: Option<Vec<u8>>,
    /// Addresses not yet tried, the next one last.
    left: Vec<Address>,
    tried: Vec<Address>,
    /// Those of them whose failure is recorded.
    failed: Vec<Address>,
    until: Instant,
    /// Whether the resolver was queried again.
    asked: bool,
    /// The first error, which concerns the address that the system prefers.
    error: Option<String>,
}

impl Attempts {
    fn new(forward: &PreparedForward, peer: &Peer) -> Self {
        let (addresses, ours) = forward.addresses();
        let own = peer.proxy.as_ref().unwrap_or(&peer.remote);
        Self {
            id: peer.id,
            trail: ours.then(|| forward_loops::trail(peer.local.clone(), own.clone())),
            preface: forward.preface(peer),
            left: resolve::interleaved(&addresses).into_iter().rev().collect(),
            tried: Vec::new(),
            failed: Vec::new(),
            until: Instant::now() + forward.connect_timeout,
            asked: false,
            error: None,
        }
    }
}

impl ForwardSession {
    pub(super) fn new(forward: &Arc<PreparedForward>, peer: &Peer) -> Self {
        Self {
            forward: Arc::clone(forward),
            opened: Vec::new(),
            attempts: Some(Box::new(Attempts::new(forward, peer))),
            shakes_hands: false,
        }
    }

    /// Tries the next address, or queries the resolver again, or gives up.
    fn connect_next(&mut self, io: &mut dyn Io) -> SessionResult {
        let Some(attempts) = &mut self.attempts else { return Ok(()) };
        let going_on = io.connecting();
        // First, because the port of a socket that was closed may be reused at once.
        self.opened.retain(|(local, _)| going_on.iter().any(|(ours, _)| ours == local));
        let rest = attempts.until.saturating_duration_since(Instant::now());
        if let Some(address) = attempts.left.pop().filter(|_| !rest.is_zero()) {
            attempts.tried.push(address.clone());
            // The last address has all the time that is left, as the others have had since their
            // turn.
            let share = match attempts.left.len() as u32 {
                0 => rest,
                left => STAGGER.min(rest / (left + 1)),
            };
            io.set_timer(TIMER, Some(share));
            let target = self.forward.endpoint(address);
            let opening = attempts.trail.as_ref().map(|trail| (trail, Opening::begin()));
            if going_on.is_empty() {
                io.connect(target.clone());
            } else {
                io.connect_too(target.clone());
            }
            if let (Some((trail, opening)), Some(local)) = (opening, io.local(Leg::Upstream)) {
                if !self.opened.iter().any(|(ours, _)| *ours == local) {
                    let opened = opening.done(local.clone(), target, trail, self.forward.id);
                    self.opened.push((local, opened));
                }
            }
            return Ok(());
        }
        if !going_on.is_empty() && !rest.is_zero() {
            return Ok(());
        }
        if self.forward.name.is_some() && !attempts.asked && !rest.is_zero() {
            attempts.asked = true;
            io.set_timer(TIMER, Some(rest));
            self.forward.ask(Some((attempts.id, io.waker())));
            return Ok(());
        }
        let error = attempts.error.take();
        Err(SessionError(error.unwrap_or_else(|| format!("{}: timed out", self.forward.shown))))
    }

    /// Records the failure of an address, and tries the next.
    fn failed(&mut self, io: &mut dyn Io, why: &str) -> SessionResult {
        let going_on = io.connecting();
        if let Some(attempts) = &mut self.attempts {
            let has_failed = |address: &&Address| {
                !going_on.iter().any(|(_, target)| target.address == **address)
                    && !attempts.failed.contains(address)
            };
            // The last one, if a time-out ends all that are left.
            let which = attempts.tried.iter().find(has_failed).or(attempts.tried.last());
            if let Some(address) = which.cloned() {
                let text = format!("connect {address}: {why}");
                attempts.error.get_or_insert(text);
                attempts.failed.push(address);
            }
        }
        self.connect_next(io)
    }
}

impl Session for ForwardSession {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        let trail = self.attempts.as_ref().and_then(|attempts| attempts.trail.as_ref());
        if trail.is_some_and(|trail| trail.contains(&self.forward.id)) {
            let text = format!("{}: a connection of its own came back to it", self.forward.shown);
            return Err(SessionError(text));
        }
        // No input is read before it can be sent.
        io.pause(Leg::Client);
        self.connect_next(io)
    }

    fn connected(
        &mut self,
        io: &mut dyn Io,
        result: std::result::Result<(), i32>,
    ) -> SessionResult {
        if let Err(errno) = result {
            let tried = self.attempts.as_mut().and_then(|attempts| attempts.tried.last());
            if errno == libc::EAGAIN && tried.is_some_and(|address| address.as_unix().is_some()) {
                io.set_timer(RETRY, Some(RETRY_AFTER));
                return Ok(());
            }
            if errno == libc::ELOOP {
                return Err(SessionError(forward_loops::too_many_hops(&self.forward.shown)));
            }
            return self.failed(io, &strerror(errno));
        }
        let attempts = self.attempts.take();
        let until = attempts.as_ref().map_or_else(Instant::now, |attempts| attempts.until);
        if let Some(preface) = attempts.and_then(|attempts| attempts.preface) {
            // In front of TLS.
            let taken = io.write(Leg::Upstream, &preface);
            debug_assert_eq!(taken, preface.len(), "an empty outbox takes it");
        }
        let own = io.local(Leg::Upstream);
        self.opened.retain(|(local, _)| own.as_ref() == Some(local));
        if let Some((tls, name)) = &self.forward.tls {
            self.shakes_hands = true;
            io.set_timer(TIMER, Some(until.saturating_duration_since(Instant::now())));
            io.put_stages(LegStages::new(Chain::new(vec![tls.stage(name.clone())])));
            return Ok(());
        }
        self.staged(io)
    }

    fn staged(&mut self, io: &mut dyn Io) -> SessionResult {
        self.shakes_hands = false;
        io.set_timer(TIMER, None);
        io.pipe(Leg::Client, Leg::Upstream);
        io.pipe(Leg::Upstream, Leg::Client);
        io.resume(Leg::Client);
        Ok(())
    }

    fn timer(&mut self, io: &mut dyn Io, key: u32) -> SessionResult {
        if self.shakes_hands {
            let text = format!("{}: the handshake of TLS timed out", self.forward.shown);
            return Err(SessionError(text));
        }
        if key == RETRY {
            let Some(attempts) = &mut self.attempts else { return Ok(()) };
            attempts.left.extend(attempts.tried.pop());
            return self.connect_next(io);
        }
        let left = self.attempts.as_ref().map_or(0, |attempts| attempts.left.len());
        if left > 0 && !io.connecting().is_empty() {
            // The attempts so far have not failed. The next address is tried beside them.
            return self.connect_next(io);
        }
        io.set_timer(RETRY, None);
        // The time-out of an address, or of the resolver, whose failure is never the first.
        self.failed(io, "timed out")
    }

    fn wake(&mut self, io: &mut dyn Io) -> SessionResult {
        let Some(attempts) = &mut self.attempts else { return Ok(()) };
        let (fresh, _) = self.forward.addresses();
        attempts.left = resolve::interleaved(&fresh)
            .iter()
            .rev()
            .filter(|address| !attempts.tried.contains(address))
            .cloned()
            .collect();
        self.connect_next(io)
    }

    fn drain(&mut self, _io: &mut dyn Io) -> SessionResult<Drain> {
        Ok(Drain::Answered)
    }

    fn closed(&mut self, _why: ClosedBy) {
        if let Some(attempts) = self.attempts.as_ref().filter(|attempts| attempts.asked) {
            self.forward.forget(attempts.id);
        }
    }
}
