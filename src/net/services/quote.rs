//! Quote of the Day, RFC 865: sends a short message, then closes. Owns the maximum length; must
//! never change the text.

use std::sync::Arc;

use crate::net::error::{Error, Result};
use crate::net::service::{Datagrams, Peer, Reply, Service, Session, SessionResult};
use crate::net::services::bytes_repr::bytes_repr;
use crate::net::services::send_and_close::SendAndClose;

/// "The quote may be just one or up to several lines, but it should be less than 512 characters."
const LESS_THAN: usize = 512;

/// Sends a quote and closes; answers each datagram with it.
#[derive(PartialEq, Eq, Hash)]
pub struct Quote {
    text: Arc<[u8]>,
}

impl Quote {
    /// Sends exactly these bytes. `Error::Value` if they are longer than the RFC allows.
    pub fn new(text: &[u8]) -> Result<Self> {
        if text.len() >= LESS_THAN {
            return Err(Error::Value(format!(
                "text of {} bytes: a quote must be shorter than {LESS_THAN} (RFC 865); Greeting() \
                 takes any length",
                text.len()
            )));
        }
        Ok(Self { text: text.into() })
    }
}

impl Service for Quote {
    fn name(&self) -> String {
        format!("Quote({})", bytes_repr(&self.text))
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(SendAndClose::new(Arc::clone(&self.text)))
    }

    fn datagrams(self: Arc<Self>) -> Option<Arc<dyn Datagrams>> {
        Some(self)
    }
}

/// "When a datagram is received, an answering datagram is sent containing a quote (the data in the
/// received datagram is ignored)."
impl Datagrams for Quote {
    fn on_datagram(&self, _data: &[u8], _from: &Peer, reply: &mut dyn Reply) -> SessionResult {
        reply.send(&self.text);
        Ok(())
    }
}
