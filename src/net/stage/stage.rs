//! The contract of a stage: the events it is given and the actions it may take. Must never name a socket, a
//! poller or a thread.

use std::time::Instant;

use super::chain::{Chain, Requests, StageEnd};
use super::queue::{Mark, Queue};
use crate::net::address::Endpoint;
use crate::net::ledger::ClosedBy;
use crate::net::service::{Peer, SessionError, Waker};

/// What comes from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound<'a> {
    /// Never empty.
    Bytes(&'a [u8]),
    /// The peer has finished. Only an error can follow.
    End,
    /// The socket failed, with this errno. Nothing follows.
    Error(i32),
}

/// What goes to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound<'a> {
    /// Never empty.
    Bytes(&'a [u8]),
    /// Our side has finished. Only a reset can follow.
    End,
    /// The connection is reset. Nothing follows.
    Reset,
}

/// From the socket to the session, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the socket to the session.
    Inbound,
    /// From the session to the socket.
    Outbound,
}

/// Why a stage cannot go on: the connection is reset, and its record has the text. A stage that owes its
/// peer an answer first, such as an alert of TLS, passes that out and calls `Flow::close`.
pub type StageError = SessionError;

/// What a stage returns from each event.
pub type StageResult = std::result::Result<(), StageError>;

/// One stage of one connection. The engine calls it from one thread at a time; nothing in it may block. An
/// error or a panic ends this connection and no other.
///
/// A stage passes on what it is given through `Flow`, any part of it now and the rest later, in order. It may
/// pass on what it makes itself, in either direction, from any of its methods.
pub trait Stage: Send {
    /// The connection is there. The first call, before any event.
    fn open(&mut self, _flow: &mut Flow<'_>) -> StageResult {
        Ok(())
    }

    /// Something came from the peer's side.
    fn inbound(&mut self, flow: &mut Flow<'_>, event: Inbound<'_>) -> StageResult {
        flow.pass_in(event);
        Ok(())
    }

    /// Something came from the session's side.
    fn outbound(&mut self, flow: &mut Flow<'_>, event: Outbound<'_>) -> StageResult {
        flow.pass_out(event);
        Ok(())
    }

    /// The time of `next_call` has come, or `Flow::waker` was used. May come early, or without a reason.
    fn turn(&mut self, _flow: &mut Flow<'_>) -> StageResult {
        Ok(())
    }

    /// When `turn` is next called; None for not until something happens. After `turn` it must be later than
    /// the `Flow::now` of that call.
    fn next_call(&self) -> Option<Instant> {
        None
    }

    /// Bytes it holds. They count as inbox or outbox: above high water the peer is not read, or the session
    /// finds no room to write.
    fn held(&self, _direction: Direction) -> usize {
        0
    }

    /// Bytes of `held` that do not count: what it must hold to do its work at all, such as a record of TLS
    /// that is not complete yet, or bytes that are delayed on purpose.
    fn capacity(&self, _direction: Direction) -> usize {
        0
    }

    /// Whether it has something left that a draining server waits for, until the deadline.
    fn is_owed(&self) -> bool {
        self.held(Direction::Inbound) > 0 || self.held(Direction::Outbound) > 0
    }

    /// Whether the session may be opened. Asked until it is true for every stage: a handshake, or a header in
    /// front of the session's bytes, comes before.
    fn is_ready(&self) -> bool {
        true
    }
}

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
        match event {
            Inbound::Bytes(bytes) => self.inbound.push_bytes(bytes),
            Inbound::End => self.inbound.push(Mark::End),
            Inbound::Error(errno) => self.inbound.push(Mark::Failure(errno)),
        }
    }

    /// Passes something on towards the socket. Each call stays a chunk of its own, down to the call that
    /// sends it.
    pub fn pass_out(&mut self, event: Outbound<'_>) {
        match event {
            Outbound::Bytes(bytes) => self.outbound.push_bytes(bytes),
            Outbound::End => self.outbound.push(Mark::End),
            Outbound::Reset => self.outbound.push(Mark::Failure(0)),
        }
    }

    /// Ends the connection: what this stage has passed out is sent, then FIN, and what it has passed in is
    /// delivered as far as the session takes it at once. `by` and `error` are for the record. This stage is
    /// called no more, those above it have no more turns, and the session is then given only `closed`.
    pub fn close(&mut self, by: ClosedBy, error: Option<String>) {
        self.pass_out(Outbound::End);
        self.requests.end(self.index, StageEnd { reset: false, by, error });
    }

    /// The same with a reset: what is unsent when that reaches the socket is lost.
    pub fn reset(&mut self, by: ClosedBy, error: Option<String>) {
        self.pass_out(Outbound::Reset);
        self.requests.end(self.index, StageEnd { reset: true, by, error });
    }

    /// Changes the remote endpoint that the session is opened with. Only before `is_ready`.
    pub fn set_remote(&mut self, remote: Endpoint) {
        self.requests.remote = Some(remote);
    }

    /// What another thread has `turn` called with; None in a chain that no worker serves.
    #[must_use]
    pub fn waker(&self) -> Option<Waker> {
        self.requests.waker.clone()
    }
}

/// Makes the stages of each connection of a server.
pub trait StageFactory: Send + Sync {
    /// The stages of one connection; None where it has none. Runs on the worker that owns the connection;
    /// must not block.
    fn stages(&self, connection: &Peer) -> Option<Box<Chain>>;
}

impl<F: Fn(&Peer) -> Option<Box<Chain>> + Send + Sync> StageFactory for F {
    fn stages(&self, connection: &Peer) -> Option<Box<Chain>> {
        self(connection)
    }
}
