//! Echo, RFC 862: sends its input back until the peer closes. Must never look at the bytes.

use std::sync::Arc;

use crate::net::service::{Datagrams, Io, Leg, Peer, Reply, Service, Session, SessionResult};

/// Sends back everything that is received.
#[derive(PartialEq, Eq, Hash)]
pub struct Echo;

impl Service for Echo {
    fn name(&self) -> String {
        "Echo()".to_owned()
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Echo)
    }

    fn pipes(&self) -> bool {
        true
    }

    fn datagrams(self: Arc<Self>) -> Option<Arc<dyn Datagrams>> {
        Some(self)
    }
}

impl Session for Echo {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        io.pipe(Leg::Client, Leg::Client);
        Ok(())
    }
}

/// "When a datagram is received, the data from it is sent back in an answering datagram."
impl Datagrams for Echo {
    fn on_datagram(&self, data: &[u8], _from: &Peer, reply: &mut dyn Reply) -> SessionResult {
        reply.send(data);
        Ok(())
    }
}
