//! The contract of a service: its name, its sessions, its form for datagrams. Owns the default of
//! each optional part; must never name a socket, a poller or a thread, so that a service is tested
//! with bytes alone (`FakeIo` in tests/net).

use std::sync::Arc;

use super::datagrams::Datagrams;
use super::session::{Peer, Session};
use super::site::Site;
use crate::net::address::Endpoint;
use crate::net::base::Waiter;
use crate::net::error::Result;
use crate::net::recording::Recorder;

/// The behaviour of a server on each connection.
pub trait Service: Send + Sync {
    /// The name as users write it: `Echo()`.
    fn name(&self) -> String;

    /// Creates the session of one connection. Called on the worker that owns the connection; must
    /// not block.
    fn open(&self, peer: &Peer) -> Box<dyn Session>;

    /// The same service for datagrams; None if it has no such form.
    fn datagrams(self: Arc<Self>) -> Option<Arc<dyn Datagrams>> {
        None
    }

    /// Called on the thread that starts a server, before anything is served. May block, through
    /// `waiter` only, and may refuse the start with an error. A returned service replaces this one
    /// for that server.
    fn prepare(&self, _site: &Site, _waiter: &mut dyn Waiter) -> Result<Option<Arc<dyn Service>>> {
        Ok(None)
    }

    /// Maximum number of legs of a connection, each of which uses one descriptor.
    fn legs(&self) -> usize {
        1
    }

    /// Whether its sessions call `Io::pipe`, so that descriptors for splicing may be needed.
    fn pipes(&self) -> bool {
        false
    }

    /// What records the connection with a number; None for none.
    fn recorder(&self, _connection: u64) -> Option<Arc<Recorder>> {
        None
    }

    /// Everything that records one of its connections.
    fn recorders(&self) -> Vec<Arc<Recorder>> {
        Vec::new()
    }

    /// Where connections are forwarded to, as far as known. Used to detect forwarding loops.
    fn leads_to(&self) -> Vec<Endpoint> {
        Vec::new()
    }

    /// Delivers the pending events of a batch of connections (at most `BATCH_CONNECTIONS`, about
    /// `BATCH_BYTES`). A service in another language overrides this to enter that language once per
    /// batch.
    fn turn(&self, batch: &mut dyn Batch) {
        batch.run();
    }
}

/// Connections of one worker that have pending events.
pub trait Batch {
    /// Moves bytes and calls the sessions, one by one. Never blocks.
    fn run(&mut self);
}

/// Maximum number of connections in a batch.
pub const BATCH_CONNECTIONS: usize = 64;
/// Bytes after which a batch takes no further connection, and after which a connection's turn ends.
pub const BATCH_BYTES: usize = 256 * 1024;
