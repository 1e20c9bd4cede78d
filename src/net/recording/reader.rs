//! The reader of recordings: lines of a file into connections with events. Must never allocate by a
//! number that it has read, nor keep a line that is longer than any that is written.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use super::line::{Body, FIRST, Line, MOST_LINE, VERSION, number};
use super::recording::{Direction, Event, RecordedConnection, Recording, Torn, What};
use crate::net::address::{Endpoint, Transport};
use crate::net::base::time_of_rfc3339;
use crate::net::error::{Error, Result};

/// How much of a cut line is shown.
const SHOWN: usize = 60;

impl Recording {
    /// Reads a recording from memory. `Error::Value` names the line that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        read(bytes, "recording")
    }

    /// Reads a file, to its end or to where it is cut. `Error::File` if it cannot be read;
    /// `Error::Value` names the path and the line that is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::file("open", path, &error))?;
        read(BufReader::with_capacity(64 * 1024, file), path)
    }
}

/// What is read, for messages.
trait Source: Copy {
    fn name(self) -> String;
    fn failed(self, error: &io::Error) -> Error;
}

impl Source for &str {
    fn name(self) -> String {
        self.to_owned()
    }

    fn failed(self, error: &io::Error) -> Error {
        Error::os("read", self, error)
    }
}

impl Source for &Path {
    fn name(self) -> String {
        self.display().to_string()
    }

    fn failed(self, error: &io::Error) -> Error {
        Error::file("read", self, error)
    }
}

fn read(input: impl BufRead, source: impl Source) -> Result<Recording> {
    let mut lines = Lines { input, line: Vec::new(), number: 0, offset: 0, next: 0 };
    let mut reader = Reader::new();
    loop {
        let found = lines.next().map_err(|error| source.failed(&error))?;
        let wrong = match found {
            Found::Line => match lines.text().and_then(|text| reader.line(text, lines.number)) {
                Ok(()) => continue,
                Err(wrong) => wrong,
            },
            Found::End => match reader.end(&lines) {
                Ok(()) => return Ok(reader.recording),
                Err(wrong) => wrong,
            },
            Found::TooLong => format!("has more than {MOST_LINE} bytes"),
            Found::Nul => "has a NUL byte".to_owned(),
        };
        let (name, number) = (source.name(), lines.number);
        return Err(Error::Value(format!("{name}, line {number}: {wrong}")));
    }
}

enum Found {
    /// A line with its end.
    Line,
    /// The end of the file, behind a line without an end, which may be empty.
    End,
    TooLong,
    Nul,
}

struct Lines<R> {
    input: R,
    /// The last line, without its end.
    line: Vec<u8>,
    /// The number of the last line.
    number: u64,
    /// Where the last line starts.
    offset: u64,
    /// Where the next line starts.
    next: u64,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> io::Result<Found> {
        self.number += 1;
        self.offset = self.next;
        self.line.clear();
        let has_end = loop {
            let (taken, is_over) = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
                Ok([]) => break false,
                Ok(bytes) => match bytes.iter().position(|&byte| byte == b'\n') {
                    Some(end) => (&bytes[..=end], true),
                    None => (bytes, false),
                },
            };
            if self.line.len() + taken.len() > MOST_LINE {
                return Ok(Found::TooLong);
            }
            self.line.extend_from_slice(taken);
            let count = taken.len();
            self.input.consume(count);
            if is_over {
                break true;
            }
        };
        self.next += self.line.len() as u64;
        if let Some(nul) = self.line.iter().position(|&byte| byte == 0) {
            return self.at_nul(nul);
        }
        if has_end {
            self.line.pop();
            // What an editor or a version control system of another system may have added.
            if self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
        }
        Ok(if has_end { Found::Line } else { Found::End })
    }

    /// After a crash of the system, a file may end in NUL bytes where its last lines were: the file
    /// is cut there.
    fn at_nul(&mut self, nul: usize) -> io::Result<Found> {
        let mut rest_is_nul = self.number > 1 && self.line[nul..].iter().all(|&byte| byte == 0);
        while rest_is_nul {
            match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
                Ok([]) => {
                    self.line.truncate(nul);
                    return Ok(Found::End);
                }
                Ok(bytes) => {
                    rest_is_nul = bytes.iter().all(|&byte| byte == 0);
                    let count = bytes.len();
                    self.input.consume(count);
                }
            }
        }
        Ok(Found::Nul)
    }

    fn text(&self) -> std::result::Result<&str, String> {
        std::str::from_utf8(&self.line).map_err(|_| "is no text in UTF-8".to_owned())
    }
}

/// What the next line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    First,
    Transport,
    Started,
    Target,
    Events,
    /// Nothing: the recording has stopped.
    Nothing,
}

/// How far a direction of a connection has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Open,
    Ended,
    Reset,
}

/// A connection that is being read.
struct Place {
    index: usize,
    /// Up and down.
    progress: [Progress; 2],
    /// When each direction had its last event.
    last: [Duration; 2],
}

struct Reader {
    recording: Recording,
    expected: Expected,
    /// By the number of the connection.
    places: HashMap<u64, Place>,
}

impl Reader {
    fn new() -> Self {
        Self {
            recording: Recording {
                transport: Transport::Tcp,
                started: None,
                target: String::new(),
                connections: Vec::new(),
                stopped: None,
                torn: None,
            },
            expected: Expected::First,
            places: HashMap::new(),
        }
    }

    /// Takes a line. An error says what is wrong with it.
    fn line(&mut self, text: &str, number: u64) -> std::result::Result<(), String> {
        // An empty line, or a comment. Not in front of the first line, by which a recording is
        // recognised.
        if self.expected != Expected::First && (text.is_empty() || text.starts_with('#')) {
            return Ok(());
        }
        self.expected = match self.expected {
            Expected::First => {
                first(text)?;
                Expected::Transport
            }
            Expected::Transport => {
                let name = field(text, "transport ")?;
                let known = [Transport::Tcp, Transport::Udp, Transport::Unix];
                let found = known.into_iter().find(|transport| transport.name() == name);
                self.recording.transport =
                    found.ok_or_else(|| format!("transport {name:?} is none of tcp, udp, unix"))?;
                Expected::Started
            }
            Expected::Started => {
                let time = field(text, "started ")?;
                let wrong = || format!("{time:?} is no time, such as 2026-11-28T09:05:00.000001Z");
                self.recording.started = Some(time_of_rfc3339(time).ok_or_else(wrong)?);
                Expected::Target
            }
            Expected::Target => {
                self.recording.target = field(text, "target ")?.to_owned();
                Expected::Events
            }
            Expected::Events => self.event(Line::parse(text)?, number)?,
            Expected::Nothing => return Err("follows the stop line".to_owned()),
        };
        Ok(())
    }

    fn event(&mut self, line: Line, file_line: u64) -> std::result::Result<Expected, String> {
        let recording = &mut self.recording;
        match line {
            Line::Stop { at } => {
                recording.stopped = Some(at);
                return Ok(Expected::Nothing);
            }
            Line::Open { number, at, client } => {
                let transport = recording.transport;
                if client.as_unix().is_some() != transport.is_unix() {
                    let name = transport.name();
                    return Err(format!("{client} is no address of a client by {name}"));
                }
                let index = recording.connections.len();
                let place = Place { index, progress: [Progress::Open; 2], last: [at; 2] };
                if self.places.insert(number, place).is_some() {
                    return Err(format!("connection {number} is opened a second time"));
                }
                let client = Endpoint { transport, address: client };
                let events = Vec::new();
                recording.connections.push(RecordedConnection { number, client, at, events });
            }
            Line::Event { number, at, direction, body } => {
                let Some(place) = self.places.get_mut(&number) else {
                    return Err(format!("connection {number} has not been opened"));
                };
                let side = usize::from(direction == Direction::Down);
                let progress = &mut place.progress[side];
                let is_datagram = recording.transport.is_datagram();
                let (what, after) = match body {
                    Body::End if is_datagram => {
                        return Err("a peer of UDP has no end".to_owned());
                    }
                    Body::End => (What::End, Progress::Ended),
                    Body::Reset => (What::Reset, Progress::Reset),
                    Body::Content(content) if is_datagram => {
                        (What::Datagram(content), Progress::Open)
                    }
                    Body::Content(content) if content.is_empty() => {
                        return Err("bytes of a stream are at least one".to_owned());
                    }
                    Body::Content(content) => (What::Bytes(content), Progress::Open),
                };
                let may_follow = match *progress {
                    Progress::Open => true,
                    Progress::Ended => after == Progress::Reset,
                    Progress::Reset => false,
                };
                if !may_follow {
                    return Err(format!("connection {number} has ended in this direction"));
                }
                *progress = after;
                // The lines of one direction are in order, whatever their times.
                let at = at.max(place.last[side]);
                place.last[side] = at;
                recording.connections[place.index].events.push(Event {
                    at,
                    direction,
                    what,
                    line: file_line,
                });
            }
        }
        Ok(Expected::Events)
    }

    /// Takes the end of the file, behind a line that may be incomplete.
    fn end<R>(&mut self, lines: &Lines<R>) -> std::result::Result<(), String> {
        // The workers of a server open connections in any order.
        self.recording.connections.sort_by_key(|connection| connection.number);
        // Stable. What had to be held, to be redacted, was written later than it came.
        for connection in &mut self.recording.connections {
            connection.events.sort_by_key(|event| event.at);
        }
        let cut = &lines.line;
        if self.expected == Expected::Nothing && cut.is_empty() {
            return Ok(());
        }
        if self.expected == Expected::Nothing {
            return Err("follows the stop line".to_owned());
        }
        let begins = format!("{FIRST}{VERSION}");
        if self.expected == Expected::First && !begins.as_bytes().starts_with(cut) {
            return Err(not_a_recording(&String::from_utf8_lossy(cut)));
        }
        let what = match (cut.is_empty(), self.expected) {
            (true, Expected::Events) => "no stop line".to_owned(),
            (true, _) => "no complete header".to_owned(),
            (false, _) => format!("a line that is cut: {}", shown(&String::from_utf8_lossy(cut))),
        };
        self.recording.torn = Some(Torn { line: lines.number, offset: lines.offset, what });
        Ok(())
    }
}

/// Checks the first line.
fn first(text: &str) -> std::result::Result<(), String> {
    let version = text.strip_prefix(FIRST).and_then(number);
    match version {
        Some(VERSION) => Ok(()),
        Some(later) if later > VERSION => Err(format!(
            "version {later} of the format, where this version of rsock reads {VERSION}"
        )),
        _ => Err(not_a_recording(text)),
    }
}

fn not_a_recording(text: &str) -> String {
    format!("{} is not how a recording begins: \"{FIRST}{VERSION}\"", shown(text))
}

/// The value of a line of the header.
fn field<'a>(text: &'a str, name: &str) -> std::result::Result<&'a str, String> {
    let value = text.strip_prefix(name).filter(|value| !value.is_empty());
    value.ok_or_else(|| format!("{} stands where {name}… must", shown(text)))
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
