//! Discard, RFC 863: what comes in is thrown away. Must never answer.

use std::sync::Arc;

use crate::net::service::{Datagrams, Peer, Reply, Service, Session, SessionResult};

/// Reads and forgets, until the peer has finished.
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

/// What a session does not answer is thrown away, and it ends when its peer does.
impl Session for Discard {}

/// "When a datagram is received, it is thrown away. No response is sent."
impl Datagrams for Discard {
    fn on_datagram(&self, _data: &[u8], _from: &Peer, _reply: &mut dyn Reply) -> SessionResult {
        Ok(())
    }
}
