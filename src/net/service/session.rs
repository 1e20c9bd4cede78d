//! A session: a service's state for one connection, with the events it is given and the actions it may take. Must
//! never name a socket, a poller or a thread, so that a session is tested with bytes alone.

use std::time::Duration;

use super::waker::Waker;
use crate::net::address::Endpoint;
use crate::net::error::strerror;
use crate::net::ledger::ClosedBy;

/// One socket of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leg {
    /// The connection that was accepted.
    Client,
    /// The connection that the session opened by `Io::connect`.
    Upstream,
}

/// Who a session is opened for.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The connection's number in its server, from 1.
    pub id: u64,
    /// Our side.
    pub local: Endpoint,
    /// Theirs.
    pub remote: Endpoint,
    /// `Limits.line` of the server: how long a line may be, its ending included. A session that reads
    /// lines takes it, or what is less, for its `input_limit`.
    pub line: usize,
}

/// What a session says when it cannot go on: the connection is reset, the record has the words.
#[derive(Debug)]
pub struct SessionError(pub String);

impl<E: std::error::Error> From<E> for SessionError {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// What every hearing of an event returns.
pub type SessionResult<T = ()> = std::result::Result<T, SessionError>;

/// A service's state for one connection. The engine calls, from one thread at a time; nothing in
/// here may block. An error or a panic ends this connection and no other.
pub trait Session: Send {
    /// The connection is there. Where a session only pipes, this is all it ever does.
    fn open(&mut self, _io: &mut dyn Io) -> SessionResult {
        Ok(())
    }

    /// Input of a leg. Returns how much of it was used; the rest stays, and is offered again with
    /// what comes after it, after `low_water` of any leg, and after `resume`.
    ///
    /// A rest of `input_limit` bytes of which nothing is used, though the session could write, ends
    /// the connection (`closed_by` limit, "line"). Without an answer of its own the session throws
    /// its input away.
    fn bytes(&mut self, _io: &mut dyn Io, _leg: Leg, input: &[u8]) -> SessionResult<usize> {
        Ok(input.len())
    }

    /// The peer of a leg has finished; `rest` is the input that was never used. Without an answer of
    /// its own the session ends as soon as what it has written is delivered.
    fn eof(&mut self, io: &mut dyn Io, _leg: Leg, _rest: &[u8]) -> SessionResult {
        io.close();
        Ok(())
    }

    /// How `Io::connect` ended; the error is an errno(3). Without an answer of its own the session
    /// fails with it.
    fn connected(
        &mut self,
        _io: &mut dyn Io,
        result: std::result::Result<(), i32>,
    ) -> SessionResult {
        result.map_err(|errno| SessionError(format!("connect: {}", strerror(errno))))
    }

    /// There is room again on a leg on which `write` fell short.
    fn low_water(&mut self, _io: &mut dyn Io, _leg: Leg) -> SessionResult {
        Ok(())
    }

    /// A timer of `Io::set_timer` has run out.
    fn timer(&mut self, _io: &mut dyn Io, _key: u32) -> SessionResult {
        Ok(())
    }

    /// Another thread has called `Waker::wake`, once or several times since the last `wake`.
    fn wake(&mut self, _io: &mut dyn Io) -> SessionResult {
        Ok(())
    }

    /// The server is stopping. A session that still owes something returns `Drain::Hold` and closes
    /// when it is done; the deadline holds either way.
    fn drain(&mut self, _io: &mut dyn Io) -> SessionResult<Drain> {
        Ok(Drain::Finish)
    }

    /// What the record says ended the connection, where the session knows better than the engine. Called once,
    /// before `closed`.
    fn explain(&self, by: ClosedBy, error: Option<String>) -> (ClosedBy, Option<String>) {
        (by, error)
    }

    /// The connection is over. Called once, last, with nothing to act through.
    fn closed(&mut self, _why: ClosedBy) {}

    /// How much unused input is kept for `bytes` before the peer is no longer read.
    fn input_limit(&self) -> usize {
        64 * 1024
    }

    /// Whether what comes in has no bearing on what is written, so that it is read, and its end seen,
    /// even while the peer does not read, and before more is written. Only for who uses all of it.
    fn ignores_input(&self) -> bool {
        false
    }
}

/// A session's answer to `drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// The engine closes as soon as nothing is unread and nothing unsent.
    Finish,
    /// As `Finish`, once the far leg has had the last word: where what went out on it has been answered,
    /// as far as bytes can tell.
    Answered,
    /// The session closes by itself.
    Hold,
}

/// What a session acts through. Nothing here blocks, and nothing calls back into the session.
pub trait Io {
    /// Sends, or keeps until it can be sent. Returns how much was taken: less than all of it above
    /// high water or when the turn's budget is spent, and then `low_water` follows; nothing when the
    /// connection is over, and then only `closed` does.
    fn write(&mut self, leg: Leg, data: &[u8]) -> usize;

    /// From now on the engine moves what comes in on `from` out on `to` by itself, and hands on its
    /// end as well, whatever is in its inbox first. `bytes` and `eof` of `from` are not heard any more.
    fn pipe(&mut self, from: Leg, to: Leg);

    /// Stops reading a leg.
    fn pause(&mut self, leg: Leg);

    /// Reads a leg again.
    fn resume(&mut self, leg: Leg);

    /// Sends FIN behind what was written; the other direction stays open.
    fn shut_write(&mut self, leg: Leg);

    /// Ends the session so that the peer gets all that was written: sends it, sends FIN, reads and
    /// throws away until the peer's FIN.
    fn close(&mut self);

    /// Ends the session with RST on every leg. What is unsent is lost.
    fn abort(&mut self);

    /// Ends the input of the client leg, which is piped: once nothing more is there of what has come, FIN goes
    /// out on the upstream leg, although the peer may not have finished. What comes later is thrown away.
    fn finish_input(&mut self);

    /// Whether something of the client leg has come that was not sent on the upstream leg. System calls.
    fn has_undelivered(&self) -> bool;

    /// Sets the timer of a key, replacing its earlier setting; None takes it away.
    fn set_timer(&mut self, key: u32, after: Option<Duration>);

    /// Opens the far leg; `connected` is heard when it is there, or not. One that is still being
    /// opened is given up for it, unheard; one that is there stays (EISCONN).
    fn connect(&mut self, target: Endpoint);

    /// Our own end of a leg, the far one's from `connect` on; None where there is no such leg.
    fn local(&self, leg: Leg) -> Option<Endpoint>;

    /// What another thread wakes this session with.
    fn waker(&mut self) -> Waker;
}
