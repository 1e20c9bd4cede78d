//! A service that discards its input, for workers that only close connections. Must never write.

use super::service::Service;
use super::session::{Peer, Session};

/// Discards all input.
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
