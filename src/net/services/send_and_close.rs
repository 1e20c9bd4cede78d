//! The session of a service that says one thing and closes: Greeting, Quote, Daytime and Time. Owns
//! that the peer gets all of it, whatever it sends meanwhile; must never look at what comes in.

use std::sync::Arc;

use crate::net::service::service::{Drain, Heard, Io, Leg, Session};

/// Sends its text, then closes lingeringly.
pub(super) struct LastWord {
    text: Arc<[u8]>,
    said: usize,
}

impl LastWord {
    pub(super) fn new(text: Arc<[u8]>) -> Self {
        Self { text, said: 0 }
    }

    fn speak(&mut self, io: &mut dyn Io) {
        self.said += io.write(Leg::Near, &self.text[self.said..]);
        if self.said == self.text.len() {
            io.close();
        }
    }
}

impl Session for LastWord {
    fn open(&mut self, io: &mut dyn Io) -> Heard {
        self.speak(io);
        Ok(())
    }

    /// A peer that has nothing to say still hears the rest, and only then the end.
    fn eof(&mut self, _io: &mut dyn Io, _leg: Leg, _rest: &[u8]) -> Heard {
        Ok(())
    }

    fn low_water(&mut self, io: &mut dyn Io, _leg: Leg) -> Heard {
        self.speak(io);
        Ok(())
    }

    fn ignores_input(&self) -> bool {
        true
    }

    fn drain(&mut self, _io: &mut dyn Io) -> Heard<Drain> {
        Ok(Drain::Hold)
    }
}
