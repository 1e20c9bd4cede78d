//! What a stream reports to its server, or to the worker of its stages. Owns the interface, with the
//! limits that each call reads; must never depend on their types.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use super::calls::Calls;
use crate::net::address::Target;
use crate::net::base::{EventFd, Origin};
use crate::net::control::Limits;
use crate::net::error::{Result, TlsError};
use crate::net::ledger::{ClosedBy, Record, SocketClose};
use crate::net::socket::{Socket, Until};
use crate::net::stage::Stage;

/// The server of an accepted stream, as the stream sees it.
pub(crate) trait Owner: Send + Sync + fmt::Debug {
    /// Counts an error of the service.
    fn count_error(&self);

    /// Closes the record. Only the first call has an effect; its reason is kept. `close` is what
    /// the caller does next, or has a worker do: an inner stream cannot reset by itself.
    fn settle(&self, by: ClosedBy, error: Option<String>, close: SocketClose<'_>);

    /// Whether the record is closed.
    fn is_settled(&self) -> bool;

    /// Ends the input of an inner stream, behind what has come; false where that is up to the
    /// stream.
    fn end_input(&self) -> bool {
        false
    }

    /// Whether a close may linger, and nothing has settled yet how the connection ends.
    /// By default never: a worker lingers for the connection.
    fn may_linger(&self) -> bool {
        false
    }

    /// Closes the record of a connection whose socket must linger. Only where `may_linger` is true.
    fn linger(
        &self,
        _socket: Socket,
        _record: Arc<Record>,
        _until: Until,
        _by: ClosedBy,
        _error: Option<String>,
    ) -> DeferredClose {
        unreachable!("may_linger is false")
    }

    /// Makes a place for the connection on a worker, which puts the stage into it, with the caller's
    /// end of a socket pair. May start a thread. Fails with EMFILE or EAGAIN, with nothing left
    /// open. Only where the connection has no stages.
    fn reserve(&self, _stage: Box<dyn Stage>) -> io::Result<(Socket, Box<dyn OuterPlace + '_>)> {
        unreachable!("the connection has stages")
    }

    /// No descriptor of the connection is left that a caller could use.
    fn abandon(&self) {}

    /// Called when the descriptor of the connection has been closed.
    fn socket_closed(&self);

    /// Called when a call of the stream ends while the server drains.
    fn call_ended(&self);
}

/// How the outer connection of an inner stream has ended, where that is more than an end of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OuterEnd {
    /// Reset, by the peer or by the server.
    Reset,
    /// By this error of the system: the peer does not answer, or there is no way to it.
    Failed(i32),
    /// By the limit of this name.
    Limit(&'static str),
    /// By TLS; `Outer::tls_error` has the text.
    Tls(TlsError),
}

/// The outer connection of an inner stream, which is one end of a socket pair.
pub(crate) trait Outer: Send + Sync + fmt::Debug {
    /// Calls `call` with the outer socket's number; EBADF where that is closed. `call` must not
    /// block.
    fn with_socket(&self, call: &mut dyn FnMut(RawFd) -> io::Result<()>) -> io::Result<()>;

    /// How it has ended; None where it has not, or in peace.
    fn end(&self) -> Option<OuterEnd>;

    /// What TLS says of the end.
    fn tls_error(&self) -> Option<&str> {
        None
    }

    /// The flag that is set when the stages are ready, or have ended the connection before that;
    /// None where the connection is used at once.
    fn opening(&self) -> Option<Arc<EventFd>> {
        None
    }

    /// Nothing waits for that flag any more.
    fn forget_opening(&self) {}

    /// Whether the stages are ready.
    fn is_open(&self) -> bool {
        true
    }

    /// The calls that wait, where a limit asks for them.
    fn calls(&self) -> Option<&Calls>;

    /// Tells the worker of a call that waits, as it has asked for.
    fn call_waits(&self);

    /// Has the worker put a stage of TLS next to the socket. `opening` tells of it from then on.
    fn start_tls(&self, stage: Box<dyn Stage>) -> io::Result<()>;
}

/// The caller's end of a socket pair, as the worker that has the other one sees it.
pub(crate) trait InnerEnd: Send + Sync {
    /// Sends a byte that is never read, so that the worker's end has unread data when it is closed:
    /// that is a reset to the caller's end.
    fn leave_unread(&self);

    /// Takes what the caller has not read.
    fn take_unread(&self) -> Vec<u8>;
}

/// What puts stages into the connections of a client.
pub(crate) trait Staging: Send + Sync + fmt::Debug {
    /// Prepares for a connection to `target`. Opens nothing.
    fn prepare(&self, _target: &Target) -> Result<()> {
        Ok(())
    }

    /// Makes a place for a connection, with the client's end of its socket pair. May start a
    /// thread. Fails with EMFILE or EAGAIN, with nothing left open.
    fn reserve(&self) -> io::Result<(Socket, Box<dyn Place>)>;
}

/// A place for one connection. Dropped, it is given back.
pub(crate) trait Place {
    /// Takes the connection.
    fn take(
        self: Box<Self>,
        outer: Socket,
        record: &Arc<Record>,
        inner: Weak<dyn InnerEnd>,
    ) -> Owned;
}

/// A place on a worker for the connection of an accepted stream. Dropped, it is given back.
pub(crate) trait OuterPlace {
    /// Takes the connection. None where its record is closed: the stream was closed meanwhile.
    fn take(
        self: Box<Self>,
        outer: Socket,
        record: &Arc<Record>,
        inner: Weak<dyn InnerEnd>,
    ) -> Option<Arc<dyn Outer>>;
}

/// The lingering close of one connection. Dropped, it begins, which may start a thread.
pub struct DeferredClose {
    _pending: Box<dyn Send + Sync>,
}

impl DeferredClose {
    pub(crate) fn new(pending: impl Send + Sync + 'static) -> Self {
        Self { _pending: Box::new(pending) }
    }
}

/// A stream's link to its server. Holds what each call reads, so that only a close calls the
/// server.
#[derive(Debug)]
pub(crate) struct Owned {
    pub(super) owner: Box<dyn Owner>,
    pub(super) origin: Origin,
    draining: Arc<AtomicBool>,
    pub(super) idle: Option<Duration>,
    pub(super) write: Option<Duration>,
    pub(super) first_byte: Option<Duration>,
    /// When a byte last went either way, in nanoseconds since it was accepted; kept only where the
    /// idle limit asks for it.
    pub(super) last_traffic: AtomicU64,
    /// The limit that has ended the connection while no call of the stream waited for it.
    pub(super) reached: OnceLock<&'static str>,
    /// Of an inner stream.
    outer: OnceLock<Arc<dyn Outer>>,
}

impl Owned {
    /// The link of an inner stream: its outer connection holds the limits.
    pub(crate) fn inner(
        owner: Box<dyn Owner>,
        origin: Origin,
        draining: Arc<AtomicBool>,
        limits: &Limits,
        outer: Arc<dyn Outer>,
    ) -> Self {
        Self { outer: OnceLock::from(outer), ..Self::new(owner, origin, draining, limits) }
    }

    /// `draining` is set from when the server is ending.
    pub(crate) fn new(
        owner: Box<dyn Owner>,
        origin: Origin,
        draining: Arc<AtomicBool>,
        limits: &Limits,
    ) -> Self {
        let &Limits { idle, write, first_byte, .. } = limits;
        Self {
            owner,
            origin,
            draining,
            idle,
            write,
            first_byte,
            last_traffic: AtomicU64::new(0),
            reached: OnceLock::new(),
            outer: OnceLock::new(),
        }
    }

    /// The outer connection of an inner stream.
    pub(super) fn outer(&self) -> Option<&dyn Outer> {
        self.outer.get().map(|outer| &**outer)
    }

    /// The stream is an inner one from here on: its outer connection holds the limits.
    pub(super) fn set_outer(&self, outer: Arc<dyn Outer>) {
        let _ = self.outer.set(outer);
    }

    /// Whether the server is draining or has ended.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    /// Whether the stop of the server closed the connection.
    pub(super) fn ended_by_stop(&self) -> bool {
        self.owner.is_settled() && self.is_draining()
    }

    pub(super) fn call_ended(&self) {
        // In a forked child the server is a copy without threads.
        if self.is_draining() && self.origin.is_here() {
            self.owner.call_ended();
        }
    }
}
