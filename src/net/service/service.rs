//! The shapes of a service: what a session hears and through what it acts, and how datagrams are
//! answered. Owns the contract between engine and services; must never name a socket, a poller or a
//! thread, so that a service is tested with bytes alone (`FakeIo` in tests/net).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::time::Duration;

use crate::net::address::endpoint::Endpoint;
use crate::net::base::waiter::Waiter;
use crate::net::control::forward_loops::ForwarderId;
use crate::net::error::{Result, strerror};
use crate::net::ledger::record::ClosedBy;

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

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its own address, an unspecified one where it takes connections to all of the machine's.
    pub local: Endpoint,
    /// Whether "::" is for IPv4 too.
    pub dual_stack: bool,
}

/// What becomes of the connections of a server: the shapes that there are.
#[derive(Clone)]
pub enum Shape {
    /// Workers run a service.
    Stream(Arc<dyn Service>),
    /// Workers have a service answer datagrams.
    Datagram(Arc<dyn Datagrams>),
    /// Threads of the caller's are handed one after the other, as they come free.
    Handler,
    /// Whoever asks is handed the next one; nothing is accepted before.
    Accept,
}

/// What a server does with each connection.
pub trait Service: Send + Sync {
    /// The name users know it by: `Echo()`.
    fn name(&self) -> String;

    /// Opens the state for one connection. Runs on the worker that owns it; must not block.
    fn open(&self, peer: &Peer) -> Box<dyn Session>;

    /// The same service on datagrams; None where it has no such form.
    fn datagrams(self: Arc<Self>) -> Option<Arc<dyn Datagrams>> {
        None
    }

    /// Called on the thread that starts a server, before anything is served: may block, through
    /// `waiter` alone, and may refuse. What is returned serves that server in its place.
    fn prepare(&self, _site: &Site, _waiter: &mut dyn Waiter) -> Result<Option<Arc<dyn Service>>> {
        Ok(None)
    }

    /// Legs of a connection, which is to say descriptors, at the most.
    fn legs(&self) -> usize {
        1
    }

    /// Whether its sessions ever call `Io::pipe`, and bulk may need descriptors of its own.
    fn pipes(&self) -> bool {
        false
    }

    /// Where connections are passed on to, as far as that is known: what a server may not be part of.
    fn leads_to(&self) -> Vec<Endpoint> {
        Vec::new()
    }

    /// Lets the connections of a batch (at most `BATCH_CONNECTIONS`, about `BATCH_BYTES`) hear what
    /// is due to them. A service in another language overrides this to enter it once a batch.
    fn turn(&self, batch: &mut dyn Batch) {
        batch.run();
    }
}

/// Some connections of one worker that have something to do.
pub trait Batch {
    /// Moves bytes and tells the sessions, one by one. Never blocks.
    fn run(&mut self);
}

/// At most so many connections are in a batch.
pub const BATCH_CONNECTIONS: usize = 64;
/// After so many bytes a batch takes no further connection, and a connection's turn is over.
pub const BATCH_BYTES: usize = 256 * 1024;

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

/// Wakes a session from any thread. The message itself lies wherever the service keeps it.
#[derive(Clone)]
pub struct Waker {
    notifier: Arc<dyn Notifier>,
    token: u64,
    /// Set from a `wake` until it is heard, so that a thousand of them are one message.
    pending: Arc<AtomicBool>,
}

impl Waker {
    /// A waker that notifies `notifier` with `token`.
    #[must_use]
    pub fn new(notifier: Arc<dyn Notifier>, token: u64) -> Self {
        Self { notifier, token, pending: Arc::new(AtomicBool::new(false)) }
    }

    /// Makes the session hear `wake` soon. Nothing happens where it has ended. Never blocks.
    pub fn wake(&self) {
        if !self.pending.swap(true, AcqRel) {
            self.notifier.notify(self.token);
        }
    }

    /// Called by the engine just before the session hears `wake`: from here on a new one notifies.
    pub fn heard(&self) {
        self.pending.store(false, Release);
    }
}

/// The other end of a waker.
pub trait Notifier: Send + Sync {
    /// Never blocks.
    fn notify(&self, token: u64);
}

/// What a server does with each datagram. All of a server's workers share it; nothing in here may
/// block.
pub trait Datagrams: Send + Sync {
    /// A datagram of a peer's, which may be empty. It is answered, if at all, through `reply`. An error
    /// or a panic closes the account of this peer and of no other.
    fn on_datagram(&self, data: &[u8], from: &Peer, reply: &mut dyn Reply) -> SessionResult;

    /// As `Service::prepare`.
    fn prepare(
        &self,
        _site: &Site,
        _waiter: &mut dyn Waiter,
    ) -> Result<Option<Arc<dyn Datagrams>>> {
        Ok(None)
    }

    /// Where datagrams are passed on to in place of `on_datagram`; None where they are answered.
    fn onward(&self) -> Option<Arc<dyn Onward>> {
        None
    }
}

/// The way of datagrams that are passed on. Nothing in here may block.
pub trait Onward: Send + Sync {
    /// Whom the next peer's datagrams go to.
    fn target(&self) -> Endpoint;

    /// Every address that `target` may say.
    fn leads_to(&self) -> Vec<Endpoint>;

    /// The forwarder that this is, so that it is known where its datagrams come back.
    fn hop(&self) -> ForwarderId;

    /// Nobody is there. Another target may be better.
    fn refused(self: Arc<Self>, target: Endpoint);
}

/// What a datagram is answered through. Nothing here blocks, and nothing calls back into the service.
pub trait Reply {
    /// Sends a datagram to whom the present one came from, once it and a few others are dealt with. Part of
    /// the datagram itself is not copied.
    ///
    /// It may come to nothing, and is then counted: where the system has no room for it, and where
    /// the peer, not being on this machine, would get more than it has sent or than its share.
    fn send(&mut self, data: &[u8]);

    /// Whether the datagram was longer than `Limits.datagram`, and its end is lost.
    fn is_cut(&self) -> bool;
}
