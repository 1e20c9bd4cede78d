//! Echo, RFC 862: what comes in goes out, until the peer has finished. Must never look at the bytes.

use crate::net::service::{Heard, Io, Leg, Peer, Service, Session};

/// Sends back whatever is received.
pub struct Echo;

impl Service for Echo {
    fn name(&self) -> String {
        "Echo()".to_owned()
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Echo)
    }
}

impl Session for Echo {
    fn open(&mut self, io: &mut dyn Io) -> Heard {
        io.pipe(Leg::Near, Leg::Near);
        Ok(())
    }
}
