//! The session of a service that says one thing and closes: Greeting, Quote, Daytime and Time. Owns
//! that the peer gets all of it, whatever it sends meanwhile; must never look at what comes in.

use std::sync::Arc;

use crate::net::service::{Drain, Io, Leg, Session, SessionResult};

/// Sends its text, then closes lingeringly.
pub(super) struct SendAndClose {
    text: Arc<[u8]>,
    said: usize,
}

impl SendAndClose {
    pub(super) fn new(text: Arc<[u8]>) -> Self {
        Self { text, said: 0 }
    }

    fn speak(&mut self, io: &mut dyn Io) {
        self.said += io.write(Leg::Client, &self.text[self.said..]);
        if self.said == self.text.len() {
            io.close();
        }
    }
}

impl Session for SendAndClose {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        self.speak(io);
        Ok(())
    }

    /// A peer that has nothing to say still hears the rest, and only then the end.
    fn eof(&mut self, _io: &mut dyn Io, _leg: Leg, _rest: &[u8]) -> SessionResult {
        Ok(())
    }

    fn low_water(&mut self, io: &mut dyn Io, _leg: Leg) -> SessionResult {
        self.speak(io);
        Ok(())
    }

    fn ignores_input(&self) -> bool {
        true
    }

    fn drain(&mut self, _io: &mut dyn Io) -> SessionResult<Drain> {
        Ok(Drain::Hold)
    }
}
