//! A service that does nothing: what a worker serves that only closes connections. Must never write.

use super::service::Service;
use super::session::{Peer, Session};

/// What a worker serves that only closes connections: input is discarded.
pub(crate) struct Null;

impl Session for Null {}

impl Service for Null {
    fn name(&self) -> String {
        "Null()".to_owned()
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Null)
    }
}
