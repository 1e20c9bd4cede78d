//! Greeting: sends a message, then closes. No RFC defines it; it is the server of the study notes
//! that sends "Hello, Client!". Must never wait for input.

use std::sync::Arc;

use crate::net::service::{Datagrams, Peer, Reply, Service, Session, SessionResult};
use crate::net::services::bytes_repr::bytes_repr;
use crate::net::services::send_and_close::SendAndClose;

/// Largest payload of an IPv4 datagram: 65 535 bytes less 20 of the IPv4 header and 8 of the UDP
/// header.
const LARGEST: usize = 65_535 - 20 - 8;

/// Sends a message and closes; answers each datagram with it.
#[derive(PartialEq, Eq, Hash)]
pub struct Greeting {
    message: Arc<[u8]>,
}

impl Greeting {
    /// Greets with exactly these bytes.
    #[must_use]
    pub fn new(message: &[u8]) -> Self {
        Self { message: message.into() }
    }
}

impl Service for Greeting {
    fn name(&self) -> String {
        format!("Greeting({})", bytes_repr(&self.message))
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(SendAndClose::new(Arc::clone(&self.message)))
    }

    fn datagrams(self: Arc<Self>) -> Option<Arc<dyn Datagrams>> {
        if self.message.len() > LARGEST { None } else { Some(self) }
    }
}

impl Datagrams for Greeting {
    fn on_datagram(&self, _data: &[u8], _from: &Peer, reply: &mut dyn Reply) -> SessionResult {
        reply.send(&self.message);
        Ok(())
    }
}
