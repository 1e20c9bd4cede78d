//! One leg of a connection: its socket and what the engine knows of it. Must never decide what is
//! done with it.

#![allow(
    clippy::box_collection,
    clippy::vec_box,
    reason = "an idle leg holds a null pointer, where an empty collection takes three words"
)]

use std::io;
use std::num::NonZeroI32;
use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::leg_stages::LegStages;
use super::outbox::Outbox;
use super::resources::WorkerResources;
use crate::net::address::Transport;
use crate::net::service::Leg;
use crate::net::socket::Socket;
use crate::net::stage::Direction;

/// How far the peer's side of a leg is: what it sends to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Open,
    /// The peer's FIN was read, and the session does not know of it yet.
    Ended,
    /// The session, or the pipe, knows of the end.
    EndDelivered,
}

/// How far our side of a leg is: what is sent to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    Open,
    /// A FIN follows what is in the outbox.
    FinWanted,
    FinSent,
    /// A send failed with this errno, while there may be something left to read and pass on.
    Failed(NonZeroI32),
}

impl Writing {
    /// Whether nothing more is sent, not even a FIN.
    pub(super) fn is_over(self) -> bool {
        matches!(self, Self::FinSent | Self::Failed(_))
    }

    /// The errno of a send that failed.
    pub(super) fn error(self) -> Option<NonZeroI32> {
        match self {
            Self::Failed(errno) => Some(errno),
            _ => None,
        }
    }
}

/// Whether the session takes input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    Flowing,
    /// The session may take what it left in the inbox: that is offered again.
    OfferAgain,
    /// The session does not want input.
    Paused,
}

/// Where input goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Session,
    /// To a leg's outbox, by copying.
    Copy(Leg),
    /// To a leg's outbox, through a pipe of the kernel's: too much comes for a copy to be worth it.
    Splice(Leg),
}

impl Delivery {
    /// The leg that input is passed on to, where the session has piped it.
    pub(super) fn pipe_to(self) -> Option<Leg> {
        match self {
            Self::Session => None,
            Self::Copy(to) | Self::Splice(to) => Some(to),
        }
    }
}

/// One leg of a connection, with what the engine knows of it.
pub(super) struct LegState {
    pub(super) socket: Socket,
    /// Readable and writable until the kernel says EAGAIN.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The last event said RDHUP, HUP, ERR or PRI: read until EAGAIN.
    pub(super) drain_to_eagain: bool,
    /// A Unix socket ends a read behind each message with descriptors: a short read never means an
    /// empty queue.
    pub(super) unix: bool,
    /// The event said ERR, and the error has not been looked for yet.
    pub(super) failed: bool,
    pub(super) connecting: bool,
    /// The outbox has reached high water and not yet low water again.
    pub(super) blocked: bool,
    /// `write` fell short: the session is owed a `low_water`.
    pub(super) owes_low_water: bool,
    pub(super) reading: Reading,
    pub(super) input: Input,
    pub(super) delivery: Delivery,
    pub(super) writing: Writing,
    /// What is between the socket and the session; None almost always.
    pub(super) stages: Option<Box<LegStages>>,
    pub(super) outbox: Option<Box<Outbox>>,
    pub(super) inbox: Option<Box<Vec<u8>>>,
}

impl LegState {
    pub(super) fn new(socket: Socket, transport: Transport) -> Self {
        Self {
            socket,
            // Tried at once: by the time a worker sees a connection its first bytes are often
            // there.
            readable: true,
            writable: true,
            drain_to_eagain: false,
            unix: transport == Transport::Unix,
            failed: false,
            connecting: false,
            blocked: false,
            owes_low_water: false,
            reading: Reading::Open,
            input: Input::Flowing,
            delivery: Delivery::Session,
            writing: Writing::Open,
            stages: None,
            outbox: None,
            inbox: None,
        }
    }

    /// Registers it with the worker's poller.
    pub(super) fn register(
        &self,
        resources: &WorkerResources,
        token: u64,
        leg: Leg,
    ) -> io::Result<()> {
        // Urgent data asks for PRIORITY: without it, data that ends at the urgent mark looks like a
        // short read of an empty queue.
        let interest = Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY;
        let token = Token(token as usize | usize::from(leg == Leg::Upstream));
        let number = self.socket.as_fd().as_raw_fd();
        let mut source = SourceFd(&number);
        resources.poll.registry().register(&mut source, token, interest)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.reading != Reading::Open
    }

    /// Whether the socket may have something that was not received. A stage may have ended the input
    /// before the peer does.
    pub(super) fn can_receive(&self) -> bool {
        match &self.stages {
            Some(stages) => !stages.has_received_all(),
            None => !self.has_ended(),
        }
    }

    pub(super) fn unsent(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.len())
    }

    pub(super) fn unused(&self) -> usize {
        self.inbox.as_ref().map_or(0, |inbox| inbox.len())
    }

    /// Whether a fault lets nothing through to the socket.
    pub(super) fn is_stuck(&self) -> bool {
        self.stages.as_ref().is_some_and(|stages| stages.chain.is_stuck(Direction::Outbound))
    }

    /// Takes over what events have said of the socket of a leg with stages.
    pub(super) fn absorb_readiness(&mut self) {
        if self.connecting {
            return;
        }
        let Some(stages) = &mut self.stages else { return };
        stages.readable |= std::mem::take(&mut self.readable);
        stages.writable |= std::mem::take(&mut self.writable);
        stages.drain_to_eagain |= std::mem::take(&mut self.drain_to_eagain);
        stages.failed |= std::mem::take(&mut self.failed);
    }
}
