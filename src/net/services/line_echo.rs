//! LineEcho: Echo (RFC 862) by the line, and a line that ends it, as the echo server of the notes has
//! it. Owns what a line is; must never keep input of its own, which stays with the engine.

use std::sync::Arc;

use crate::net::error::{Error, Result};
use crate::net::service::{Io, Leg, Peer, Service, Session, SessionResult};
use crate::net::services::bytes_repr::bytes_repr;

/// Sends whole lines back.
#[derive(PartialEq, Eq, Hash)]
pub struct LineEcho {
    rules: Arc<Rules>,
}

#[derive(PartialEq, Eq, Hash)]
struct Rules {
    quit: Option<Box<[u8]>>,
    newline: bool,
    limit: usize,
}

/// As much as the text of a line, its ending included, may have where nobody says anything else.
const LIMIT: usize = 65_536;
/// What ends a connection where nobody says anything else.
const QUIT: &[u8] = b"exit";

impl LineEcho {
    /// `quit` is the line, without its ending, that closes; None has no such line. `newline` sends a
    /// line's ending back. `limit` is for the whole line, ending included.
    ///
    /// `Value` where `quit` can never come.
    pub fn new(quit: Option<&[u8]>, newline: bool, limit: usize) -> Result<Self> {
        if let Some(quit) = quit {
            let never = |why: &str| {
                Err(Error::Value(format!("quit={}: can never come: {why}", bytes_repr(quit))))
            };
            if quit.contains(&b'\n') || quit.ends_with(b"\r") {
                return never("it is compared without the line's ending");
            }
            if quit.len() >= limit {
                return never(&format!("with its ending it is over limit={limit}"));
            }
        }
        let quit = quit.map(Into::into);
        Ok(Self { rules: Arc::new(Rules { quit, newline, limit }) })
    }
}

impl Service for LineEcho {
    /// Only what differs from the default: `LineEcho(quit=b'bye')`.
    fn name(&self) -> String {
        let Rules { quit, newline, limit } = &*self.rules;
        let mut arguments = Vec::new();
        match quit.as_deref() {
            Some(QUIT) => {}
            Some(quit) => arguments.push(format!("quit={}", bytes_repr(quit))),
            None => arguments.push("quit=None".to_owned()),
        }
        if !newline {
            arguments.push("newline=False".to_owned());
        }
        if *limit != LIMIT {
            arguments.push(format!("limit={limit}"));
        }
        format!("LineEcho({})", arguments.join(", "))
    }

    fn open(&self, peer: &Peer) -> Box<dyn Session> {
        Box::new(Lines {
            limit: self.rules.limit.min(peer.line),
            rules: Arc::clone(&self.rules),
            searched: 0,
            sending: 0,
            dropping: 0,
            tail: None,
        })
    }
}

/// Where a session stands in its input, whose unused rest the engine offers again.
struct Lines {
    rules: Arc<Rules>,
    limit: usize,
    /// In so much of what is not being sent there is no end of a line: looked for once, however slowly
    /// it comes.
    searched: usize,
    /// So much of the rest is of lines that are being sent back,
    sending: usize,
    /// and so much behind that is an ending, which is not.
    dropping: usize,
    /// What is owed to a peer that has finished.
    tail: Option<Vec<u8>>,
}

impl Lines {
    /// A line without its LF, or CR LF. A CR alone ends none.
    fn text(line: &[u8]) -> &[u8] {
        let Some(text) = line.strip_suffix(b"\n") else { return line };
        text.strip_suffix(b"\r").unwrap_or(text)
    }

    fn is_quit(&self, text: &[u8]) -> bool {
        self.rules.quit.as_deref() == Some(text)
    }

    /// The line that `rest` begins with, where its end has come.
    fn next_line<'a>(&mut self, rest: &'a [u8]) -> Option<&'a [u8]> {
        let new = &rest[self.searched..];
        let Some(end) = new.iter().position(|&byte| byte == b'\n') else {
            self.searched = rest.len();
            return None;
        };
        let line = &rest[..=self.searched + end];
        self.searched = 0;
        Some(line)
    }

    fn send_tail(&mut self, io: &mut dyn Io) {
        let Some(tail) = &mut self.tail else { return };
        let taken = io.write(Leg::Client, tail);
        tail.drain(..taken);
        if tail.is_empty() {
            io.close();
        }
    }
}

impl Session for Lines {
    fn bytes(&mut self, io: &mut dyn Io, leg: Leg, input: &[u8]) -> SessionResult<usize> {
        let mut used = 0;
        loop {
            let taken = io.write(leg, &input[used..used + self.sending]);
            used += taken;
            self.sending -= taken;
            if self.sending > 0 {
                return Ok(used);
            }
            used += std::mem::take(&mut self.dropping);
            let rest = &input[used..];
            // Whole lines that go back as they are go together.
            let mut run = 0;
            while let Some(line) = self.next_line(&rest[run..]) {
                let text = Self::text(line);
                if self.is_quit(text) {
                    if run == 0 {
                        io.close();
                        return Ok(input.len());
                    }
                    break;
                }
                run += line.len();
                if !self.rules.newline {
                    self.dropping = line.len() - text.len();
                    break;
                }
            }
            if run == 0 {
                return Ok(used);
            }
            self.sending = run - self.dropping;
        }
    }

    /// What has no ending is a line all the same when nothing can follow.
    fn eof(&mut self, io: &mut dyn Io, _leg: Leg, rest: &[u8]) -> SessionResult {
        let owed = if self.is_quit(rest) { &[] } else { rest };
        self.tail = Some(owed.to_vec());
        self.send_tail(io);
        Ok(())
    }

    fn low_water(&mut self, io: &mut dyn Io, _leg: Leg) -> SessionResult {
        self.send_tail(io);
        Ok(())
    }

    fn input_limit(&self) -> usize {
        self.limit
    }
}
