//! Where the stages of a server's connections come from. Must never block.

use super::chain::Chain;
use crate::net::service::Peer;

/// Makes the stages of each connection of a server.
pub trait StageFactory: Send + Sync {
    /// The stages of one connection; None where it has none. Runs on the worker that owns the
    /// connection; must not block.
    fn stages(&self, connection: &Peer) -> Option<Box<Chain>>;
}

impl<F: Fn(&Peer) -> Option<Box<Chain>> + Send + Sync> StageFactory for F {
    fn stages(&self, connection: &Peer) -> Option<Box<Chain>> {
        self(connection)
    }
}
