//! The receiver of accepted connections. It is the pool of a service's workers, one worker, or the
//! caller's threads. Owns the interface; must never refuse a connection.

use std::sync::Arc;
use std::time::Instant;

use crate::net::base::EventFd;
use crate::net::ledger::{EntryId, Record};
use crate::net::service::Session;
use crate::net::socket::Socket;
use crate::net::stage::Stage;
use crate::net::stage::faults::FaultSet;

/// An accepted connection.
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    pub(crate) record: Arc<Record>,
    pub(crate) entry_id: EntryId,
}

/// What an outer connection has from the start.
pub(crate) struct Inner {
    /// The worker's end of a socket pair.
    pub(crate) socket: Socket,
    /// Called even if the connection ends before its stages are ready.
    pub(crate) session: Box<dyn Session>,
    /// Its own faults; None for those of the server.
    pub(crate) faults: Option<Arc<FaultSet>>,
    /// Its own stages, from the socket up.
    pub(crate) stages: Vec<Box<dyn Stage>>,
}

/// A receiver of accepted connections.
pub(crate) trait Sink: Send {
    /// Whether the descriptors are non-blocking: a worker must never wait in a read.
    fn nonblocking(&self) -> bool {
        true
    }

    /// Takes a connection. Must not block.
    fn take(&mut self, accepted: Accepted);

    /// When `check` must be called next.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Called by the accept thread from time to time. Must not block.
    fn check(&mut self) {}

    /// Called before the listener closes.
    fn begin_drain(&mut self) {}

    /// Called on the thread that accepts, after the listener has closed. May wait on `notifier` for
    /// connections to end.
    fn close(self, notifier: &EventFd);
}

/// Collects connections for the worker whose thread runs the accept loop.
impl Sink for Vec<Accepted> {
    fn take(&mut self, accepted: Accepted) {
        self.push(accepted);
    }

    fn close(self, _notifier: &EventFd) {}
}
