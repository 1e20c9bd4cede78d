//! The reader of recordings: lines of a file into connections with events. Must never allocate by a
//! number that it has read, nor keep a line that is longer than any that is written.
//!
//! `Items` yields what the lines say one by one, for those that keep less than all of it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::line::{FIRST, Line, MOST_LINE, VERSION, number};
use super::recording::{Direction, Event, RecordedConnection, Recording, Torn, What};
use crate::net::address::{Address, Transport};
use crate::net::base::time_of_rfc3339;
use crate::net::error::{Error, Result};

/// How much of a file is read at once.
pub(super) const BUFFER: usize = 64 * 1024;
/// How much of a cut line is shown.
const SHOWN: usize = 60;

impl Recording {
    /// Reads a recording from memory. `Error::Value` names the line that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        read(bytes, Source::Memory)
    }

    /// Reads a file, to its end or to where it is cut. `Error::File` if it cannot be read;
    /// `Error::Value` names the path and the line that is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::file("open", path, &error))?;
        read(BufReader::with_capacity(BUFFER, file), Source::File(path.to_owned()))
    }
}

/// What is read, for messages.
pub(super) enum Source {
    Memory,
    File(PathBuf),
}

impl Source {
    fn failed(&self, error: &io::Error) -> Error {
        match self {
            Self::Memory => Error::os("read", "recording", error),
            Self::File(path) => Error::file("read", path, error),
        }
    }

    /// The error of a line.
    pub(super) fn wrong(&self, line: u64, what: &str) -> Error {
        let name = match self {
            Self::Memory => "recording".to_owned(),
            Self::File(path) => path.display().to_string(),
        };
        Error::Value(format!("{name}, line {line}: {what}"))
    }
}

fn read(input: impl BufRead, source: Source) -> Result<Recording> {
    let mut items = Items::new(input, source);
    let mut connections: Vec<RecordedConnection> = Vec::new();
    while let Some(item) = items.next()? {
        match item {
            Item::Opened(connection) => connections.push(connection),
            Item::Event { index, event, .. } => connections[index].events.push(event),
        }
    }
    // The workers of a server open connections in any order.
    connections.sort_by_key(|connection| connection.number);
    // Stable. What had to be held, to be redacted, was written later than it came.
    for connection in &mut connections {
        connection.events.sort_by_key(|event| event.at);
    }
    Ok(Recording { connections, ..items.into_header() })
}

/// What a line behind the header says.
#[derive(Debug)]
pub(super) enum Item {
    /// A connection was opened. It has no events yet.
    Opened(RecordedConnection),
    /// Something crossed the connection that was opened as the one of this index, from 0.
    Event { index: usize, number: u64, event: Event },
}

impl Item {
    pub(super) fn at(&self) -> Duration {
        match self {
            Self::Opened(connection) => connection.at,
            Self::Event { event, .. } => event.at,
        }
    }
}

/// What the lines of a recording say, in the order of the lines.
pub(super) struct Items<R> {
    lines: Lines<R>,
    reader: Reader,
    source: Source,
}

impl<R: BufRead> Items<R> {
    pub(super) fn new(input: R, source: Source) -> Self {
        let lines = Lines { input, line: Vec::new(), number: 0, offset: 0, next: 0 };
        Self { lines, reader: Reader::new(), source }
    }

    /// The next one; None at the end of the file, or where it is cut.
    pub(super) fn next(&mut self) -> Result<Option<Item>> {
        let Self { lines, reader, source } = self;
        loop {
            let found = lines.next().map_err(|error| source.failed(&error))?;
            let wrong = match found {
                Found::Line => {
                    match lines.text().and_then(|text| reader.line(text, lines.number)) {
                        Ok(None) => continue,
                        Ok(item) => return Ok(item),
                        Err(wrong) => wrong,
                    }
                }
                Found::End => match reader.end(lines) {
                    Ok(()) => return Ok(None),
                    Err(wrong) => wrong,
                },
                Found::TooLong => format!("has more than {MOST_LINE} bytes"),
                Found::Nul => "has a NUL byte".to_owned(),
            };
            return Err(source.wrong(lines.number, &wrong));
        }
    }

    /// Where the last line starts, its length and its number. At the end, it is the line that is
    /// missing or cut.
    pub(super) fn line(&self) -> (u64, usize, u64) {
        (self.lines.offset, self.lines.line.len(), self.lines.number)
    }

    /// The recording without its connections.
    pub(super) fn into_header(self) -> Recording {
        self.reader.recording
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
    /// Without its connections.
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
    fn line(&mut self, text: &str, number: u64) -> std::result::Result<Option<Item>, String> {
        // An empty line, or a comment. Not in front of the first line, by which a recording is
        // recognised.
        if self.expected != Expected::First && (text.is_empty() || text.starts_with('#')) {
            return Ok(None);
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
            Expected::Events => return self.item(Line::parse(text)?, number),
            Expected::Nothing => return Err("follows the stop line".to_owned()),
        };
        Ok(None)
    }

    fn item(&mut self, line: Line, file_line: u64) -> std::result::Result<Option<Item>, String> {
        let transport = self.recording.transport;
        match line {
            Line::Stop { at } => {
                self.recording.stopped = Some(at);
                self.expected = Expected::Nothing;
                Ok(None)
            }
            Line::Open { number, at, client, local } => {
                let is_other =
                    |address: &&Address| address.as_unix().is_some() != transport.is_unix();
                let sides = [("client", Some(&client)), ("server", local.as_ref())];
                for (side, address) in sides {
                    if let Some(address) = address.filter(is_other) {
                        let name = transport.name();
                        return Err(format!("{address} is no address of a {side} by {name}"));
                    }
                }
                let index = self.places.len();
                let place = Place { index, progress: [Progress::Open; 2], last: [at; 2] };
                if self.places.insert(number, place).is_some() {
                    return Err(format!("connection {number} is opened a second time"));
                }
                let opened = RecordedConnection::opened(transport, number, at, client, local);
                Ok(Some(Item::Opened(opened)))
            }
            Line::Event { number, at, direction, body } => {
                let Some(place) = self.places.get_mut(&number) else {
                    return Err(format!("connection {number} has not been opened"));
                };
                let side = usize::from(direction == Direction::Down);
                let progress = &mut place.progress[side];
                let what = body.what(transport.is_datagram())?;
                let after = match what {
                    What::End => Progress::Ended,
                    What::Reset => Progress::Reset,
                    What::Bytes(_) | What::Datagram(_) => Progress::Open,
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
                let event = Event { at, direction, what, line: file_line };
                Ok(Some(Item::Event { index: place.index, number, event }))
            }
        }
    }

    /// Takes the end of the file, behind a line that may be incomplete.
    fn end<R>(&mut self, lines: &Lines<R>) -> std::result::Result<(), String> {
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
