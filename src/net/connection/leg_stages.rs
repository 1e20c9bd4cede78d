//! The stages of one leg as the engine keeps them: their chain, and how far the socket below it and
//! the session above it are. Must never call either.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::service::SessionResult;
use crate::net::stage::faults::FaultSet;
use crate::net::stage::{Chain, Direction, Inbound, Stage, StageEnd};

/// How often a delivery is looked at, which takes a system call.
const DELIVERY_CHECK: Duration = Duration::from_millis(2);

/// A delivery that has not moved for this long is given up: the peer does not read.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(2);

/// Whether there is a session above the stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// The stages are not ready for one.
    Waiting,
    /// The worker makes it next.
    Asked,
    Made,
    /// There is one, which waits for the end of a handshake.
    Upgrading,
}

/// The end of our side, on its way through the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OurEnd {
    None,
    EndGiven,
    /// It has left the chain, and everything before it: the FIN may be sent.
    EndPassed,
    /// The session has aborted.
    ResetWanted,
    ResetGiven,
}

/// The end of the socket's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketEnd {
    None,
    /// A send failed with this errno; what the peer sent before is still read.
    SendFailed(i32),
    /// The chain was given the peer's end.
    End,
    /// The chain was given this error of this step, which has not left it yet.
    Failed(&'static str, i32),
    /// That error has left the chain.
    FailureDelivered,
}

/// A chain, with what is known of the socket below it.
pub(super) struct LegStages {
    pub(super) chain: Box<Chain>,
    /// The connection's own faults; None for those of the server.
    pub(super) faults: Option<Arc<FaultSet>>,
    pub(super) is_open: bool,
    pub(super) opening: Opening,
    /// Since when a connection that was in use before waits for its stages.
    pub(super) since: Option<Instant>,
    /// The stage that comes next to the socket, once nothing is on its way.
    pub(super) upgrade: Option<Box<dyn Stage>>,
    /// The server stops: the session gets that event once it is open.
    pub(super) drains: bool,
    pub(super) our_end: OurEnd,
    pub(super) socket_end: SocketEnd,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) drain_to_eagain: bool,
    pub(super) failed: bool,
    /// When the timer of the chain runs out.
    pub(super) timer: Option<Instant>,
    /// How a stage has ended the connection.
    pub(super) end: Option<StageEnd>,
    /// That end waits for what goes before it.
    pub(super) delivery: Option<PendingDelivery>,
}

/// What has yet to be delivered before a stage's end. No event announces that: it is looked at
/// again and again.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingDelivery {
    left: usize,
    progress: Instant,
    next: Instant,
}

impl LegStages {
    pub(super) fn new(chain: Box<Chain>) -> Self {
        Self {
            chain,
            faults: None,
            is_open: false,
            opening: Opening::Waiting,
            since: None,
            upgrade: None,
            drains: false,
            our_end: OurEnd::None,
            socket_end: SocketEnd::None,
            readable: false,
            writable: false,
            drain_to_eagain: false,
            failed: false,
            timer: None,
            end: None,
            delivery: None,
        }
    }

    /// Whether the chain has no stages, and no part in what is to come.
    pub(super) fn is_empty(&self) -> bool {
        self.chain.is_empty()
            && self.opening == Opening::Made
            && self.upgrade.is_none()
            && self.end.is_none()
            && matches!(self.our_end, OurEnd::None | OurEnd::EndPassed)
            && matches!(self.socket_end, SocketEnd::None | SocketEnd::End)
    }

    /// Whether a stage's end still waits for the delivery of `left` bytes before it: until they are
    /// gone, or nothing has moved for a while.
    pub(super) fn waits_for_delivery(&mut self, now: Instant, left: usize) -> bool {
        if left == 0 {
            self.delivery = None;
            return false;
        }
        let next = now + DELIVERY_CHECK;
        let progress = match self.delivery {
            Some(before) if before.left == left => before.progress,
            _ => now,
        };
        let waits = now < progress + DELIVERY_PATIENCE;
        self.delivery = waits.then_some(PendingDelivery { left, progress, next });
        waits
    }

    /// When the chain, or what waits for a delivery, is next looked at.
    pub(super) fn next_call(&self) -> Option<Instant> {
        let delivery = self.delivery.map(|pending| pending.next);
        [self.chain.next_call(), delivery].into_iter().flatten().min()
    }

    /// Whether the chain has something for the socket.
    pub(super) fn waits_for_socket(&self) -> bool {
        self.chain.next_outbound().is_some()
    }

    /// Whether nothing is unread or on its way through the chain, as far as anything gets through.
    pub(super) fn is_quiet(&self) -> bool {
        (!self.readable || self.chain.is_stuck(Direction::Inbound)) && !self.chain.is_owed()
    }

    /// Whether something is on its way to the session.
    pub(super) fn has_inbound(&self) -> bool {
        self.chain.held(Direction::Inbound) > 0
    }

    /// Whether the socket may have something to be read.
    pub(super) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Marks the socket readable, whatever the last event said.
    pub(super) fn recheck(&mut self) {
        self.readable = !self.has_received_all();
        self.drain_to_eagain = true;
    }

    /// Whether everything in front of our end, and that end, has left the chain.
    pub(super) fn end_has_passed(&self) -> bool {
        self.our_end == OurEnd::EndPassed
    }

    /// Whether the session has aborted.
    pub(super) fn is_aborting(&self) -> bool {
        matches!(self.our_end, OurEnd::ResetWanted | OurEnd::ResetGiven)
    }

    /// Bytes of a direction that count towards high water.
    pub(super) fn counted(&self, direction: Direction) -> usize {
        self.chain.held(direction).saturating_sub(self.chain.capacity(direction))
    }

    /// Whether the socket's side is over, and nothing comes from it any more.
    pub(super) fn has_received_all(&self) -> bool {
        !matches!(self.socket_end, SocketEnd::None | SocketEnd::SendFailed(_))
    }

    pub(super) fn can_send(&self) -> bool {
        matches!(self.socket_end, SocketEnd::None | SocketEnd::End)
    }

    /// Gives the chain the error that ends the socket's side.
    pub(super) fn fail(&mut self, now: Instant, step: &'static str, errno: i32) -> SessionResult {
        let (step, errno) = match self.socket_end {
            // The first failure is the reason.
            SocketEnd::SendFailed(before) => ("send", before),
            _ => (step, errno),
        };
        self.readable = false;
        self.failed = false;
        self.socket_end = SocketEnd::Failed(step, errno);
        self.chain.inbound(now, Inbound::Error(errno))
    }
}
