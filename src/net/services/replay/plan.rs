//! One side of a recorded connection, as it is played: the events in the order of the recording.
//! Must never change while it is played.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;

use super::no_connection;

use crate::net::error::{Error, Result};
use crate::net::recording::{self, Content, Direction, Piece, RecordedConnection, Recording};

/// The side of a recording that is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// To clients.
    Server,
    /// To a server.
    Client,
}

impl Side {
    /// What the other side is called.
    pub(super) fn peer(self) -> &'static str {
        match self {
            Self::Server => "client",
            Self::Client => "server",
        }
    }
}

/// How the pieces matter in which the peer's bytes arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Chunks {
    /// Not at all: the bytes are one stream.
    Lenient,
    /// They must be those of the recording, as far as TCP can show.
    Exact,
}

/// How a recording is played.
#[derive(Clone, Debug, PartialEq)]
pub struct Playing {
    /// How the pieces of the peer's bytes matter.
    pub chunks: Chunks,
    /// How fast the own side is, in terms of the recording; None for at once.
    pub speed: Option<f64>,
    /// How much longer than in the recording the peer may take for its bytes.
    pub timeout: Duration,
    /// Bytes of each datagram of the peer that are not compared, and that the answers take over.
    pub carry: Vec<Range<usize>>,
}

impl Playing {
    /// Checks the values. `Error::Value` names the one that is wrong.
    pub fn check(&self) -> Result<()> {
        match self.speed {
            Some(speed) if !(speed.is_finite() && speed > 0.0) => {
                Err(Error::Value(format!("speed {speed}: must be a number above 0, or None")))
            }
            _ => Ok(()),
        }
    }

    /// A time of the recording, as long as it is when it is played.
    pub(super) fn scaled(&self, time: Duration) -> Duration {
        let Some(speed) = self.speed else { return Duration::ZERO };
        Duration::try_from_secs_f64(time.as_secs_f64() / speed).unwrap_or(Duration::MAX)
    }
}

/// A part of what is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(Box<[u8]>),
    /// Any bytes: these were not recorded.
    Any,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Bytes of a stream, or a datagram.
    Bytes(Box<[Part]>),
    End,
    Reset,
}

impl What {
    /// How many bytes it has, as far as they were recorded.
    pub(super) fn size(&self) -> usize {
        let Self::Bytes(parts) = self else { return 0 };
        parts.iter().map(|part| if let Part::Literal(bytes) = part { bytes.len() } else { 0 }).sum()
    }
}

/// One event of the connection.
#[derive(Clone, Debug)]
pub(super) struct PlanEvent {
    /// The line of the recording.
    pub(super) line: u64,
    /// When it was, counted from the beginning of the connection.
    pub(super) at: Duration,
    /// Whether the side that is played did it.
    pub(super) is_ours: bool,
    pub(super) what: What,
}

/// One side of a recorded connection.
#[derive(Debug)]
pub struct Plan {
    /// The recording's file.
    pub(super) file: Box<str>,
    /// The connection's number in the recording.
    pub(super) connection: u64,
    pub(super) side: Side,
    pub(super) is_datagram: bool,
    pub(super) events: Box<[PlanEvent]>,
    /// Where the recording is cut within this connection.
    pub(super) torn: Option<Box<str>>,
    /// The line from which on the connection is encrypted.
    pub(super) tls: Option<u64>,
}

impl Plan {
    /// A side of each connection of a recording. `Error::Value` for what does not fit it.
    pub(super) fn all(
        path: &Path,
        recording: &Recording,
        side: Side,
        ignored: &[Regex],
        playing: &Playing,
    ) -> Result<Vec<Arc<Self>>> {
        let is_datagram = recording.transport.is_datagram();
        let file = path.display().to_string();
        if is_datagram && playing.speed.is_some() {
            return Err(Error::Value(format!(
                "speed: {file} is of datagrams, which are answered at once"
            )));
        }
        if !is_datagram && !playing.carry.is_empty() {
            return Err(Error::Value(format!("carry: {file} is of streams, not of datagrams")));
        }
        let connections = recording.connections.iter();
        let plan = |connection| Self::of(&file, recording, connection, side, ignored);
        Ok(connections.map(|connection| Arc::new(plan(connection))).collect())
    }

    /// The client's side of the connection with a number. `Error::Value` if there is none.
    pub fn of_client(
        path: &Path,
        recording: &Recording,
        connection: u64,
        ignored: &[Regex],
        playing: &Playing,
    ) -> Result<Arc<Self>> {
        let all = Self::all(path, recording, Side::Client, ignored, playing)?;
        let found = all.iter().find(|plan| plan.connection == connection).cloned();
        let found = found
            .ok_or_else(|| Error::Value(no_connection("connection", connection, path, &all)))?;
        found.check_clear()?;
        Ok(found)
    }

    /// What the event with an index is.
    pub(super) fn what(&self, event: usize) -> Option<&What> {
        self.events.get(event).map(|event| &event.what)
    }

    /// Refuses a connection that was recorded outside its TLS: in no other handshake are the bytes
    /// the same.
    pub(super) fn check_clear(&self) -> Result<()> {
        let Some(line) = self.tls else { return Ok(()) };
        let (file, connection) = (&self.file, self.connection);
        let is_upgraded = self.events.first().is_some_and(|event| event.line < line);
        let instead = if is_upgraded {
            "a Script has the step start_tls for such a dialogue"
        } else {
            "Server(tls=…, service=Forward(…, tls=…, recording=…)) records the clear text"
        };
        Err(Error::Value(format!(
            "{file}, line {line}: connection {connection} begins TLS here, and what is encrypted \
             cannot be replayed; {instead}"
        )))
    }

    fn of(
        file: &str,
        recording: &Recording,
        connection: &RecordedConnection,
        side: Side,
        ignored: &[Regex],
    ) -> Self {
        let is_datagram = recording.transport.is_datagram();
        let mut is_over = false;
        let events = connection.events.iter().filter_map(|event| {
            let is_ours = (event.direction == Direction::Up) == (side == Side::Client);
            let what = match &event.what {
                recording::What::Bytes(content) | recording::What::Datagram(content) => {
                    What::Bytes(parts(content, is_ours, ignored))
                }
                recording::What::End => What::End,
                recording::What::Reset => What::Reset,
            };
            let is_nothing = what == What::Bytes(Box::default());
            // A peer that has finished may reset the connection or not, as its reads were.
            let is_late = what == What::Reset && !is_ours && std::mem::replace(&mut is_over, true);
            is_over |= what == What::End && !is_ours;
            if is_late || is_nothing && !is_datagram {
                return None;
            }
            let at = event.at.saturating_sub(connection.at);
            Some(PlanEvent { line: event.line, at, is_ours, what })
        });
        let events: Box<[PlanEvent]> = events.collect();
        let ends = |is_ours| {
            let mut ends = events.iter().filter(|event| !matches!(event.what, What::Bytes(_)));
            ends.any(|event| event.is_ours == is_ours || event.what == What::Reset)
        };
        let is_whole = ends(true) && ends(false);
        let torn = recording.torn.as_ref().filter(|_| !is_whole);
        let torn =
            torn.map(|torn| format!("at line {}, byte {}: {}", torn.line, torn.offset, torn.what));
        Self {
            file: file.into(),
            connection: connection.number,
            side,
            is_datagram,
            torn: torn.map(Into::into),
            events,
            tls: if is_datagram { None } else { begin_of_tls(connection) },
        }
    }

    /// Whether its bytes are datagrams.
    pub(in crate::net) fn is_datagram(&self) -> bool {
        self.is_datagram
    }

    /// The connection's number in the recording.
    pub(in crate::net) fn connection(&self) -> u64 {
        self.connection
    }

    /// The index of the next event of a side, from `from` on; the number of events if there is
    /// none.
    pub(super) fn next_of(&self, is_ours: bool, from: usize) -> usize {
        let found = self.events.iter().skip(from).position(|event| event.is_ours == is_ours);
        found.map_or(self.events.len(), |at| from + at)
    }

    /// How long after the event before it an event was.
    pub(super) fn gap(&self, index: usize) -> Duration {
        let before = index.checked_sub(1).map_or(Duration::ZERO, |before| self.events[before].at);
        self.events[index].at.saturating_sub(before)
    }
}

/// The line of the ClientHello that begins TLS, where the server has answered it by a ServerHello.
/// Both are the first of what their side says in its turn, whatever the dialogue was before.
fn begin_of_tls(connection: &RecordedConnection) -> Option<u64> {
    let mut hello = None;
    let mut turn: Option<(Direction, u64, Vec<u8>)> = None;
    for event in &connection.events {
        let recording::What::Bytes(content) = &event.what else { continue };
        let bytes = content.bytes();
        match &mut turn {
            Some((direction, _, head)) if *direction == event.direction => {
                let left = HEAD.saturating_sub(head.len());
                head.extend_from_slice(&bytes[..bytes.len().min(left)]);
            }
            _ => {
                let head = bytes[..bytes.len().min(HEAD)].to_vec();
                turn = Some((event.direction, event.line, head));
            }
        }
        match &turn {
            Some((Direction::Up, line, head)) => {
                hello = is_handshake(head, CLIENT_HELLO).then_some(*line);
            }
            Some((Direction::Down, _, head))
                if hello.is_some() && is_handshake(head, SERVER_HELLO) =>
            {
                return hello;
            }
            _ => {}
        }
    }
    None
}

/// The bytes of a record up to the type of the message in it.
const HEAD: usize = 6;
/// Types of messages of the handshake (RFC 8446, section 4).
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// Whether a record of TLS begins with a message of the handshake (RFC 8446, section 5.1).
fn is_handshake(head: &[u8], message: u8) -> bool {
    matches!(head, [22, 3, 0..=4, _, _, kind, ..] if *kind == message)
}

/// What was sent, without what the patterns match in what the peer has sent.
fn parts(content: &Content, is_ours: bool, ignored: &[Regex]) -> Box<[Part]> {
    if is_ours {
        let bytes = content.bytes();
        return if bytes.is_empty() {
            Box::default()
        } else {
            [Part::Literal(bytes.into())].into()
        };
    }
    let mut parts = Vec::new();
    for piece in content.pieces() {
        match piece {
            Piece::Exactly(bytes) => split(bytes, ignored, &mut parts),
            Piece::Any(_) => parts.push(Part::Any),
        }
    }
    // Two of them would have no end in between.
    parts.dedup_by(|one, other| *one == Part::Any && *other == Part::Any);
    parts.into()
}

/// A literal, without what the patterns match in it.
fn split(bytes: &[u8], ignored: &[Regex], parts: &mut Vec<Part>) {
    let mut found: Vec<Range<usize>> = ignored
        .iter()
        .flat_map(|pattern| pattern.find_iter(bytes))
        .map(|found| found.range())
        .filter(|range| !range.is_empty())
        .collect();
    found.sort_unstable_by_key(|range| range.start);
    let mut at = 0;
    for range in found {
        if range.end <= at {
            continue;
        }
        if range.start > at {
            parts.push(Part::Literal(bytes[at..range.start].into()));
        }
        parts.push(Part::Any);
        at = range.end;
    }
    if at < bytes.len() {
        parts.push(Part::Literal(bytes[at..].into()));
    }
}
