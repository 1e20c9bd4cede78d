//! A session: a service's state for one connection, the events it receives, the actions it may
//! take. Must never name a socket, a poller or a thread, so that a session is tested with bytes
//! alone.

use std::time::Duration;

use super::leg_stages::LegStages;
use super::waker::Waker;
use crate::net::address::Endpoint;
use crate::net::error::strerror;
use crate::net::ledger::ClosedBy;

/// One socket of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leg {
    /// The accepted connection.
    Client,
    /// The connection that the session opened with `Io::connect`.
    Upstream,
}

/// The peer of a session.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The connection's number in its server, from 1.
    pub id: u64,
    /// The address of our side.
    pub local: Endpoint,
    /// The peer's address; that which a proxy names, where one has passed the connection on.
    pub remote: Endpoint,
    /// The address of such a proxy.
    pub proxy: Option<Endpoint>,
    /// What else such a proxy has said: the TLVs of its header.
    pub tlvs: Vec<(u8, Vec<u8>)>,
    /// `Limits.line` of the server: maximum length of a line in bytes, including its ending. A
    /// session that reads lines returns it, or a smaller value, from `input_limit`.
    pub line: usize,
}

/// The error of a session that cannot continue: the connection is reset, and the record keeps the
/// message.
#[derive(Debug)]
pub struct SessionError(pub String);

impl<E: std::error::Error> From<E> for SessionError {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// The result of every event handler.
pub type SessionResult<T = ()> = std::result::Result<T, SessionError>;

/// The calls by which a program reads and writes a connection that wait for it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingCalls {
    /// Any of them.
    pub any: bool,
    /// One that wants input.
    pub reading: bool,
    /// When a call last moved a byte, since the connection was accepted.
    pub last_traffic: Duration,
}

/// A service's state for one connection. The engine calls it from one thread at a time. Its methods
/// must not block. An error or a panic ends this connection only.
pub trait Session: Send {
    /// The connection is open. A session that only pipes needs no other event.
    fn open(&mut self, _io: &mut dyn Io) -> SessionResult {
        Ok(())
    }

    /// Handles the input of a leg. Returns the number of bytes used. The rest is kept and passed
    /// again with the input that follows, after `low_water` of any leg, and after `resume`.
    ///
    /// If the rest reaches `input_limit` and the session uses none of it although it could write,
    /// the connection ends (`closed_by` limit, "line"). By default all input is discarded.
    fn bytes(&mut self, _io: &mut dyn Io, _leg: Leg, input: &[u8]) -> SessionResult<usize> {
        Ok(input.len())
    }

    /// The peer of a leg has sent its FIN; `rest` is the unused input. By default the session
    /// closes once its written data is delivered.
    fn eof(&mut self, io: &mut dyn Io, _leg: Leg, _rest: &[u8]) -> SessionResult {
        io.close();
        Ok(())
    }

    /// The result of `Io::connect`; the error is an errno(3). By default an error ends the session.
    fn connected(
        &mut self,
        _io: &mut dyn Io,
        result: std::result::Result<(), i32>,
    ) -> SessionResult {
        result.map_err(|errno| SessionError(format!("connect: {}", strerror(errno))))
    }

    /// The stages that `Io::put_stages` has put below the upstream leg are ready.
    fn staged(&mut self, _io: &mut dyn Io) -> SessionResult {
        Ok(())
    }

    /// TLS begins on the client leg by `Io::start_tls`, with the input that the session has not
    /// used. Returns bytes of the input in front of that, which the session has passed on, and which
    /// have come back.
    fn take_back(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// The handshake that `Io::start_tls` has begun is complete.
    fn upgraded(&mut self, _io: &mut dyn Io) -> SessionResult {
        Ok(())
    }

    /// There is room again on a leg on which `write` took less than all.
    fn low_water(&mut self, _io: &mut dyn Io, _leg: Leg) -> SessionResult {
        Ok(())
    }

    /// A timer of `Io::set_timer` has expired.
    fn timer(&mut self, _io: &mut dyn Io, _key: u32) -> SessionResult {
        Ok(())
    }

    /// Another thread has called `Waker::wake` at least once since the last `wake` event.
    fn wake(&mut self, _io: &mut dyn Io) -> SessionResult {
        Ok(())
    }

    /// The server is stopping. A session that still has to send or receive returns `Drain::Hold`
    /// and closes when it is done; the deadline of the stop applies in any case.
    fn drain(&mut self, _io: &mut dyn Io) -> SessionResult<Drain> {
        Ok(Drain::Finish)
    }

    /// Returns what ended the connection according to the session, for the record. Called once,
    /// before `closed`.
    fn explain(&self, by: ClosedBy, error: Option<String>) -> (ClosedBy, Option<String>) {
        (by, error)
    }

    /// The stages below the session begin to open. `waker` has `gives_up` asked, until they are
    /// ready and `open` follows.
    fn opening(&mut self, _waker: Waker) {}

    /// Whether nothing wants the connection any more, although its stages are not ready.
    fn gives_up(&self) -> bool {
        false
    }

    /// The calls of a program that wait for the connection now: `Limits.idle` holds only while there
    /// is one, `Limits.first_byte` only while one wants input. The next call that begins to wait
    /// wakes the session. None where these limits hold at any time.
    fn waiting_calls(&self) -> Option<WaitingCalls> {
        None
    }

    /// The engine ends the connection, as a stage or a limit wants it: what has been written is
    /// still sent, and only `explain` and `closed` follow, which may take a while. Not called for
    /// every end.
    fn ends(&mut self, _why: ClosedBy, _error: Option<&str>) {}

    /// The connection has ended. The last event, called once, without an `Io`.
    fn closed(&mut self, _why: ClosedBy) {}

    /// Maximum unused input, in bytes, that is kept for `bytes` before reading from the peer
    /// pauses.
    fn input_limit(&self) -> usize {
        64 * 1024
    }

    /// Whether output does not depend on input. Input is then read, including its end, even while
    /// the peer does not read, and before more is written. Only for a session that uses all of its
    /// input.
    fn ignores_input(&self) -> bool {
        false
    }
}

/// The result of `drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// The engine closes as soon as no input is unread and no output is unsent.
    Finish,
    /// As `Finish`, but after the upstream leg has answered what was sent on it, as far as byte
    /// counts show.
    Answered,
    /// The session closes by itself.
    Hold,
}

/// The actions of a session. They never block, and never call the session.
pub trait Io {
    /// Sends data, or buffers it until it can be sent. Returns the number of bytes taken. Fewer
    /// than all are taken above high water or when the turn's budget is spent, and `low_water`
    /// follows. None are taken after the connection has ended, and only `closed` follows.
    fn write(&mut self, leg: Leg, data: &[u8]) -> usize;

    /// Makes the engine forward all input of `from` to `to`, starting with the unused input, and
    /// then its end. `from` gets no further `bytes` or `eof`.
    fn pipe(&mut self, from: Leg, to: Leg);

    /// Stops reading from a leg.
    fn pause(&mut self, leg: Leg);

    /// Reads from a leg again.
    fn resume(&mut self, leg: Leg);

    /// Sends FIN after the written data; the other direction stays open.
    fn shut_write(&mut self, leg: Leg);

    /// Ends the session and delivers all written data: sends it, sends FIN, then reads and discards
    /// input until the peer's FIN.
    fn close(&mut self);

    /// Ends the session with RST on every leg. Unsent data is lost.
    fn abort(&mut self);

    /// Ends the input of the client leg, which is piped. Once everything that has arrived was
    /// passed on, FIN is sent on the upstream leg, although the peer may not have finished. Later
    /// input is discarded.
    fn finish_input(&mut self);

    /// The caller's end of a socket pair is closed for good: the connection ends with a reset where
    /// a stage holds back what is left, and no time ends that.
    fn abandon(&mut self);

    /// Whether input of the client leg has arrived that was not read from the upstream leg. Makes
    /// system calls.
    fn has_undelivered(&self) -> bool;

    /// Sets the timer of a key, replacing its previous setting; None removes it.
    fn set_timer(&mut self, key: u32, after: Option<Duration>);

    /// Connects the upstream leg; `connected` reports the result. An attempt in progress is
    /// abandoned without a report. If the leg is already connected it stays, and the result is
    /// EISCONN.
    fn connect(&mut self, target: Endpoint);

    /// Connects the upstream leg to another target as well: the first to answer becomes the leg,
    /// and the other attempts are abandoned without a report. Until then `connected` reports each
    /// that fails.
    fn connect_too(&mut self, target: Endpoint) {
        self.connect(target);
    }

    /// Puts a chain of stages between the upstream leg, which is connected, and the session. Nothing
    /// may have been written to that leg. Once they are ready, `staged` follows.
    fn put_stages(&mut self, _stages: LegStages) {}

    /// Begins TLS on the client leg by a chain of one stage, behind what was written, which goes out
    /// in clear text. All input that the session has not used is the first of what TLS is given;
    /// nothing may be written until `upgraded` follows. Fails where TLS is on.
    fn start_tls(&mut self, _stages: LegStages) -> SessionResult {
        Ok(())
    }

    /// Our side and the target of each connect in progress, oldest first.
    fn connecting(&self) -> Vec<(Endpoint, Endpoint)> {
        Vec::new()
    }

    /// The address of our side of a leg, for the upstream leg from `connect` on; None if there is
    /// no such leg.
    fn local(&self, leg: Leg) -> Option<Endpoint>;

    /// A handle by which other threads wake this session.
    fn waker(&mut self) -> Waker;
}
