//! The contract of a fault: what it does to one way of one connection. Must never name a socket, a
//! poller or a thread.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use super::draws::Draws;
use super::label::Label;
use crate::net::ledger::{ClosedBy, FaultEvent, Way};
use crate::net::stage::event::{Direction, Part};
use crate::net::stage::flow::{Flow, StageEnd};

/// What a fault does to connections that are not accepted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepting {
    /// The listener is shut: connects are refused.
    Refuse,
    /// The queue is full: connects are not answered.
    Full,
    /// Connections stay in the queue.
    Never,
    /// Connections stay in the queue for a time.
    Delay(Duration),
}

/// One way of one connection, for the making of a lane.
#[derive(Clone, Copy, Debug)]
pub struct LaneSite {
    /// The random numbers of this lane.
    pub draws: Draws,
    /// The way.
    pub way: Way,
    /// Whether each `Part::Bytes` is a datagram: it must not be split or joined.
    pub datagrams: bool,
    /// High water of the connection: bytes that are held beyond it keep the peer from being read.
    pub high_water: usize,
    /// Whether the fault ends by itself, at the end of its window.
    pub ends: bool,
}

/// A kind of fault with its parameters. Shared by all connections that it concerns.
pub trait Kind: Send + Sync + Debug {
    /// Whether it can act on streams.
    fn fits_streams(&self) -> bool {
        true
    }

    /// Whether it can act on datagrams.
    fn fits_datagrams(&self) -> bool {
        false
    }

    /// What it does to one way of one connection; None if it does nothing to this kind of traffic.
    fn lane(&self, _site: LaneSite) -> Option<Box<dyn Lane>> {
        None
    }

    /// What it does to the listener; None if it concerns connections only.
    fn accepting(&self) -> Option<Accepting> {
        None
    }
}

/// A fault on one way of one connection. It is given what goes this way, and passes it on, any part
/// of it now and the rest later, in order; what it does not pass on is lost.
///
/// None of its methods may block. By default everything passes.
pub trait Lane: Send {
    /// The fault begins to act: with the connection, with its window of time, or when it was added.
    /// The first call.
    fn start(&mut self, _flow: &mut LaneFlow<'_, '_>) {}

    /// Something goes this way.
    fn push(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        flow.pass(part);
    }

    /// The time of `next_call` has come. May come early, or without a reason.
    fn turn(&mut self, _flow: &mut LaneFlow<'_, '_>) {}

    /// When `turn` is next called. After `turn` it must be later than the `now` of that call.
    fn next_call(&self) -> Option<Instant> {
        None
    }

    /// Bytes that it holds.
    fn held(&self) -> usize {
        0
    }

    /// Bytes of `held` that do not count towards high water.
    fn capacity(&self) -> usize {
        0
    }

    /// Bytes that it takes now from the socket. With less than there are, the peer has to wait.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// How many parts it holds: datagrams, of which an empty one counts as well.
    fn parts(&self) -> usize {
        usize::from(self.is_owed())
    }

    /// Whether it holds something, an end included, that a draining server waits for.
    fn is_owed(&self) -> bool {
        self.held() > 0
    }

    /// Whether what is pushed now goes on only when the fault is removed. No stop waits for that.
    fn is_stuck(&self) -> bool {
        false
    }

    /// Passes on everything that it holds, in order: the fault does not act any more.
    fn release(&mut self, _flow: &mut LaneFlow<'_, '_>) {}
}

/// What a lane acts through.
pub struct LaneFlow<'a, 'b> {
    pub(super) flow: &'a mut Flow<'b>,
    pub(super) direction: Direction,
    pub(super) way: Way,
    pub(super) label: &'a Label,
    /// The start of the connection.
    pub(super) opened: Instant,
    /// When the fault began to act.
    pub(super) started: Instant,
    /// Bytes that were pushed before; of datagrams, their number.
    pub(super) offset: u64,
    /// The lane has ended the connection.
    pub(super) has_ended: bool,
}

impl LaneFlow<'_, '_> {
    /// The time of this call.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.flow.now()
    }

    /// When the fault began to act.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Bytes that were pushed into this lane before the current part; of datagrams, their number.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Passes something on.
    pub fn pass(&mut self, part: Part<'_>) {
        self.flow.pass(self.direction, part);
    }

    /// Notes that the fault has done something, for the record and for the counter of the fault.
    /// `offset` is where, as in `LaneFlow::offset`; `size` how many bytes it concerned, and 0 for
    /// everything that follows: it must not depend on how the peer chunks.
    pub fn note(&mut self, action: &'static str, offset: u64, size: usize) {
        self.label.count_event();
        let after = self.now().saturating_duration_since(self.opened);
        let fault = self.label.text.clone();
        let size = size as u64;
        self.flow.note(FaultEvent { fault, action, way: self.way, after, offset, size });
    }

    /// Ends the connection, by a reset or by a FIN. The record says "fault". `delivered` is whether
    /// that waits until what this lane has passed on before has reached the session, or the peer's
    /// system.
    pub fn end(&mut self, reset: bool, delivered: bool) {
        self.has_ended = true;
        let by = ClosedBy::Fault(self.label.name);
        let error = Some(self.label.text.to_string());
        self.flow.end(StageEnd { reset, delivered, cut: false, by, error });
    }
}
