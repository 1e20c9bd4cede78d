//! The session that sends one text, then closes: used by Greeting, Quote, Daytime, Time. Owns the
//! delivery of the whole text, whatever the peer sends meanwhile; must never look at the input.

use std::sync::Arc;

use crate::net::service::{Drain, Io, Leg, Session, SessionResult};

/// Sends its text, then performs a lingering close.
pub(super) struct SendAndClose {
    text: Arc<[u8]>,
    sent: usize,
}

impl SendAndClose {
    pub(super) fn new(text: Arc<[u8]>) -> Self {
        Self { text, sent: 0 }
    }

    fn send_rest(&mut self, io: &mut dyn Io) {
        self.sent += io.write(Leg::Client, &self.text[self.sent..]);
        if self.sent == self.text.len() {
            io.close();
        }
    }
}

impl Session for SendAndClose {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        self.send_rest(io);
        Ok(())
    }

    /// A peer that has closed its side still receives the rest of the text, then the FIN.
    fn eof(&mut self, _io: &mut dyn Io, _leg: Leg, _rest: &[u8]) -> SessionResult {
        Ok(())
    }

    fn low_water(&mut self, io: &mut dyn Io, _leg: Leg) -> SessionResult {
        self.send_rest(io);
        Ok(())
    }

    fn ignores_input(&self) -> bool {
        true
    }

    fn drain(&mut self, _io: &mut dyn Io) -> SessionResult<Drain> {
        Ok(Drain::Hold)
    }
}
