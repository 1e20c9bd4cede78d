//! LineEcho: Echo (RFC 862) by lines, with a line that closes the connection, as in the echo server
//! of the study notes. Owns the definition of a line; must never buffer input, which stays with
//! the engine.

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

/// Default maximum length of a line, including its ending.
const LIMIT: usize = 65_536;
/// Default line that closes a connection.
const QUIT: &[u8] = b"exit";

impl LineEcho {
    /// `quit` is the line, without its ending, that closes the connection; None disables it.
    /// `newline` is whether a line's ending is sent back. `limit` is the maximum length of a line
    /// in bytes, including its ending.
    ///
    /// `Error::Value` if `quit` can never be received.
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
    /// Only arguments that differ from the default: `LineEcho(quit=b'bye')`.
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

/// The position of a session in its input, whose unused rest the engine passes again.
struct Lines {
    rules: Arc<Rules>,
    limit: usize,
    /// Bytes after `sending` and `dropping` that contain no LF, so that each byte is searched once
    /// even if a line arrives slowly.
    searched: usize,
    /// Bytes at the start of the rest that belong to lines being sent back.
    sending: usize,
    /// Bytes after these that are a line ending, which is skipped.
    dropping: usize,
    /// Data still to send to a peer that has sent its FIN.
    tail: Option<Vec<u8>>,
}

impl Lines {
    /// A line without its LF or CR LF. A CR alone does not end a line.
    fn text(line: &[u8]) -> &[u8] {
        let Some(text) = line.strip_suffix(b"\n") else { return line };
        text.strip_suffix(b"\r").unwrap_or(text)
    }

    fn is_quit(&self, text: &[u8]) -> bool {
        self.rules.quit.as_deref() == Some(text)
    }

    /// The line at the start of `rest`, if its end has arrived.
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
            // Consecutive lines that are sent back unchanged are sent together.
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

    /// Input without an ending is a line too, because nothing can follow.
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
