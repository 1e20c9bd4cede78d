//! Character Generator, RFC 864: sends the printing characters, line after line, until the peer
//! closes. Owns the pattern; must never buffer more of it for a peer than the engine takes.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use crate::net::service::{
    Datagrams, Drain, Io, Leg, Peer, Reply, Service, Session, SessionResult,
};

/// "There are 95 printing characters in the ASCII character set", from the space on.
const CHARACTERS: usize = 95;
/// Characters in a line.
const WIDTH: usize = 72;
/// Bytes in a line, with its carriage return and line feed.
pub const LINE: usize = WIDTH + 2;
/// Number of lines after which the pattern repeats.
pub const LINES: usize = CHARACTERS;
/// The whole pattern, once.
static PATTERN: [u8; LINE * LINES] = pattern();
/// Maximum number of characters in an answering datagram.
const MOST: usize = 512;

/// Sends lines without end; answers each datagram with up to 512 characters of them.
#[derive(PartialEq, Eq, Hash)]
pub struct Chargen;

/// "On line N, put characters (0+N mod 95) through (71+N mod 95). End each line with carriage
/// return and line feed."
#[must_use]
pub const fn line(number: usize) -> [u8; LINE] {
    let mut line = [b'\r'; LINE];
    let mut at = 0;
    while at < WIDTH {
        line[at] = b' ' + ((at + number % CHARACTERS) % CHARACTERS) as u8;
        at += 1;
    }
    line[LINE - 1] = b'\n';
    line
}

const fn pattern() -> [u8; LINE * LINES] {
    let mut pattern = [0; LINE * LINES];
    let mut number = 0;
    while number < LINES {
        let line = line(number);
        let mut at = 0;
        while at < LINE {
            pattern[number * LINE + at] = line[at];
            at += 1;
        }
        number += 1;
    }
    pattern
}

struct Generator {
    /// Offset of the next byte in the pattern.
    at: usize,
}

impl Generator {
    /// Writes until the engine takes no more, which bounds the loop.
    fn generate(&mut self, io: &mut dyn Io) {
        loop {
            let rest = &PATTERN[self.at..];
            let taken = io.write(Leg::Client, rest);
            self.at = (self.at + taken) % PATTERN.len();
            if taken < rest.len() {
                return;
            }
        }
    }
}

impl Service for Chargen {
    fn name(&self) -> String {
        "Chargen()".to_owned()
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Generator { at: 0 })
    }

    fn datagrams(self: Arc<Self>) -> Option<Arc<dyn Datagrams>> {
        Some(self)
    }
}

/// "Any data received is thrown away. This continues until the calling user terminates the
/// connection", by "either the careful close or the rude abort".
impl Session for Generator {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        self.generate(io);
        Ok(())
    }

    fn low_water(&mut self, io: &mut dyn Io, _leg: Leg) -> SessionResult {
        self.generate(io);
        Ok(())
    }

    fn ignores_input(&self) -> bool {
        true
    }

    /// Closes at once, because the output never ends.
    fn drain(&mut self, io: &mut dyn Io) -> SessionResult<Drain> {
        io.close();
        Ok(Drain::Finish)
    }
}

/// "When a datagram is received, an answering datagram is sent containing a random number (between
/// 0 and 512) of characters (the data in the received datagram is ignored)."
impl Datagrams for Chargen {
    fn on_datagram(&self, _data: &[u8], _from: &Peer, reply: &mut dyn Reply) -> SessionResult {
        // The quality of this number does not matter, and it needs neither a lock nor a system
        // call.
        let number = RandomState::new().hash_one(()) as usize % (MOST + 1);
        reply.send(&PATTERN[..number]);
        Ok(())
    }
}
