//! What a stage acts through: it passes on to its neighbours, and asks the engine for the rest.
//! Must never block, nor call a stage.

use std::sync::Arc;
use std::time::Instant;

use super::event::{Direction, Inbound, Outbound, Part};
use super::gate::{Gate, Place};
use super::queue::{Chunk, Queue};
use crate::net::ledger::{ClosedBy, FaultEvent, ProxyHeader, TlsInfo};
use crate::net::service::Waker;

/// What a stage acts through. Nothing in it blocks, or calls back into a stage.
pub struct Flow<'a> {
    pub(super) now: Instant,
    pub(super) inbound: &'a mut Queue,
    pub(super) outbound: &'a mut Queue,
    pub(super) requests: &'a mut Requests,
    /// The number of the stage in its chain.
    pub(super) index: usize,
}

impl Flow<'_> {
    /// The time of this call.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Passes something on towards the session. Each call stays a chunk of its own.
    pub fn pass_in(&mut self, event: Inbound<'_>) {
        self.inbound.push(event.into());
    }

    /// Passes something on towards the socket. Each call stays a chunk of its own, down to the call
    /// that sends it.
    pub fn pass_out(&mut self, event: Outbound<'_>) {
        self.outbound.push(event.into());
    }

    /// Passes bytes on towards the socket as one chunk, which the caller writes in place.
    pub(super) fn chunk_out(&mut self) -> Chunk<'_> {
        self.outbound.chunk()
    }

    /// Passes something on in a direction: `pass_in` or `pass_out`.
    pub fn pass(&mut self, direction: Direction, part: Part<'_>) {
        match direction {
            Direction::Inbound => self.inbound.push(part),
            Direction::Outbound => self.outbound.push(part),
        }
    }

    /// Notes for the record that a fault has struck.
    pub fn note(&mut self, event: FaultEvent) {
        self.requests.notes.push(event);
    }

    /// Ends the connection: what this stage has passed out is sent, then FIN, and what it has
    /// passed in is delivered as far as the session takes it at once. `by` and `error` are for the
    /// record. This stage is called no more, those above it have no more turns, and the session is
    /// then given only `closed`.
    pub fn close(&mut self, by: ClosedBy, error: Option<String>) {
        self.end(StageEnd { reset: false, delivered: false, cut: false, by, error });
    }

    /// The same with a reset: what is unsent when that reaches the socket is lost.
    pub fn reset(&mut self, by: ClosedBy, error: Option<String>) {
        self.end(StageEnd { reset: true, delivered: false, cut: false, by, error });
    }

    /// Ends the connection: `close` or `reset`.
    pub fn end(&mut self, end: StageEnd) {
        self.pass_out(if end.reset { Outbound::Reset } else { Outbound::End });
        self.requests.end(self.index, end);
    }

    /// Notes for the record what TLS has agreed on.
    pub fn note_tls(&mut self, info: TlsInfo) {
        self.requests.tls = Some(Box::new(info));
    }

    /// Says whose connection a proxy has passed on. Only before `is_ready`.
    pub fn set_proxy(&mut self, header: ProxyHeader) {
        self.requests.proxy = Some(Box::new(header));
    }

    /// A place among the handshakes that the server makes at once; None without a bound. One that
    /// has to wait gets a `turn` when it may be made.
    pub(super) fn enter_gate(&self) -> Option<Place> {
        self.requests.gate.as_ref().map(|gate| gate.enter(self.waker()))
    }

    /// What another thread has `turn` called with; None in a chain that no worker serves.
    #[must_use]
    pub fn waker(&self) -> Option<Waker> {
        self.requests.waker.clone()
    }
}

/// What stages have asked of the engine.
#[derive(Default)]
pub(super) struct Requests {
    pub(super) ended: Option<StageEnd>,
    /// The stages that have ended the connection: they are called no more.
    pub(super) enders: Vec<usize>,
    /// Until the engine has asked.
    pub(super) proxy: Option<Box<ProxyHeader>>,
    pub(super) waker: Option<Waker>,
    /// Bounds the handshakes of the server.
    pub(super) gate: Option<Arc<Gate>>,
    /// What faults have done since the engine has last asked.
    pub(super) notes: Vec<FaultEvent>,
    /// What TLS has agreed on, until the engine has asked.
    pub(super) tls: Option<Box<TlsInfo>>,
}

impl Requests {
    /// Notes that a stage ends the connection. Of several, the one next to the socket decides: an
    /// end that a stage above it has passed out does not get through.
    pub(super) fn end(&mut self, index: usize, end: StageEnd) {
        if self.enders.iter().all(|&other| index < other) {
            self.ended = Some(end);
        }
        self.enders.push(index);
    }
}

/// How a stage ends its connection.
#[derive(Debug, PartialEq, Eq)]
pub struct StageEnd {
    /// By a reset, where otherwise by an end behind what was passed out.
    pub reset: bool,
    /// Only when the session has taken what was passed in before, and the peer's system what was
    /// passed out, unless they take nothing for a while.
    pub delivered: bool,
    /// The peer has ended its side as it must not. That does not matter once the session has
    /// closed: the connection then ends as if the peer had ended properly.
    pub cut: bool,
    /// For the record.
    pub by: ClosedBy,
    /// For the record.
    pub error: Option<String>,
}
