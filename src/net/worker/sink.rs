//! What takes an accepted connection: the workers of a service, one worker, or the threads of the caller's.
//! Must never refuse one.

use std::sync::Arc;

use crate::net::base::EventFd;
use crate::net::ledger::{EntryId, Record};
use crate::net::socket::Socket;

/// An accepted connection.
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    pub(crate) record: Arc<Record>,
    pub(crate) entry_id: EntryId,
}

/// What takes accepted connections.
pub(crate) trait Sink: Send {
    /// Whether the descriptors are non-blocking: a worker must never wait in a read.
    fn nonblocking(&self) -> bool {
        true
    }

    /// Takes one. Must not block.
    fn take(&mut self, accepted: Accepted);

    /// Called before the listener is closed.
    fn begin_drain(&mut self) {}

    /// Called on the thread that accepted, after the listener was closed; may wait, on `notifier`, for
    /// connections to end.
    fn close(self, notifier: &EventFd);
}

/// Keeps what was accepted for the worker on whose thread it was.
impl Sink for Vec<Accepted> {
    fn take(&mut self, accepted: Accepted) {
        self.push(accepted);
    }

    fn close(self, _notifier: &EventFd) {}
}
