//! A service that does nothing: what a worker serves that only closes connections. Must never write.

use crate::net::service::service::Service;
use crate::net::service::session::{Peer, Session};

/// What a worker serves that has nothing to serve: all it hears is thrown away.
pub(crate) struct Nothing;

impl Session for Nothing {}

impl Service for Nothing {
    fn name(&self) -> String {
        "Nothing()".to_owned()
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Nothing)
    }
}
