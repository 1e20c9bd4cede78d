//! The shapes of a service: what a session hears and through what it acts, and how datagrams are
//! answered. Owns the contract between engine and services; must never name a socket, a poller or a
//! thread, so that a service is tested with bytes alone (`FakeIo` in tests/net).

use std::sync::Arc;

use super::datagrams::Datagrams;
use super::session::{Peer, Session};
use super::site::Site;
use crate::net::address::Endpoint;
use crate::net::base::Waiter;
use crate::net::error::Result;

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
