//! Discard, RFC 863: throws away its input. Must never answer.

use std::sync::Arc;

use crate::net::service::{Datagrams, Peer, Reply, Service, Session, SessionResult};

/// Reads and discards until the peer closes.
#[derive(PartialEq, Eq, Hash)]
pub struct Discard;

impl Service for Discard {
    fn name(&self) -> String {
        "Discard()".to_owned()
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Discard)
    }

    fn datagrams(self: Arc<Self>) -> Option<Arc<dyn Datagrams>> {
        Some(self)
    }
}

/// By default a session discards its input and ends when its peer closes.
impl Session for Discard {}

/// "When a datagram is received, it is thrown away. No response is sent."
impl Datagrams for Discard {
    fn on_datagram(&self, _data: &[u8], _from: &Peer, _reply: &mut dyn Reply) -> SessionResult {
        Ok(())
    }
}
