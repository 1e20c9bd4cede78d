//! The contract of a stage: the events it is given and the actions it may take. Must never name a
//! socket, a poller or a thread.

use std::time::Instant;

use super::event::{Direction, Inbound, Outbound};
use super::flow::Flow;
use crate::net::service::SessionError;

/// Why a stage cannot go on: the connection is reset, and its record has the text. A stage that
/// owes its peer an answer first, such as an alert of TLS, passes that out and calls `Flow::close`.
pub type StageError = SessionError;

/// What a stage returns from each event.
pub type StageResult = std::result::Result<(), StageError>;

/// One stage of one connection. The engine calls it from one thread at a time; nothing in it may
/// block. An error or a panic ends this connection and no other.
///
/// A stage passes on what it is given through `Flow`, any part of it now and the rest later, in
/// order. It may pass on what it makes itself, in either direction, from any of its methods.
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

    /// The time of `next_call` has come, or `Flow::waker` was used. May come early, or without a
    /// reason.
    fn turn(&mut self, _flow: &mut Flow<'_>) -> StageResult {
        Ok(())
    }

    /// When `turn` is next called; None for not until something happens. After `turn` it must be
    /// later than the `Flow::now` of that call.
    fn next_call(&self) -> Option<Instant> {
        None
    }

    /// Bytes it holds. They count as inbox or outbox: above high water the peer is not read, or the
    /// session finds no room to write.
    fn held(&self, _direction: Direction) -> usize {
        0
    }

    /// Bytes of `held` that do not count: what it must hold to do its work at all, such as a record
    /// of TLS that is not complete yet, or bytes that are delayed on purpose.
    fn capacity(&self, _direction: Direction) -> usize {
        0
    }

    /// Bytes that it takes now from the socket: no more are received. A stage that takes none has a
    /// time for its next call.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// How many datagrams it holds, empty ones too. Only of a fault.
    fn parts(&self, _direction: Direction) -> usize {
        0
    }

    /// Whether it has something left that a draining server waits for, until the deadline.
    fn is_owed(&self) -> bool {
        self.held(Direction::Inbound) > 0 || self.held(Direction::Outbound) > 0
    }

    /// Whether nothing that goes in a direction is passed on until the stage is removed. It is not
    /// owed either.
    fn is_stuck(&self, _direction: Direction) -> bool {
        false
    }

    /// Whether the session may be opened. Asked until it is true for every stage: a handshake, or a
    /// header in front of the session's bytes, comes before.
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether it tells the peer of an end by bytes of its own, and has not yet: without them, a
    /// FIN looks like a cut.
    fn owes_end(&self) -> bool {
        false
    }

    /// Passes on everything that it holds, in order: the stage is removed. Only of a fault.
    fn release(&mut self, _flow: &mut Flow<'_>) -> StageResult {
        Ok(())
    }

    /// The number of the fault that this is, in its set; None for any other stage.
    fn fault(&self) -> Option<u64> {
        None
    }
}
