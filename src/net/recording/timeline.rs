//! A recording in the order of time, read from its file moment by moment. Must never keep the bytes
//! of more than two events.
//!
//! The file is read twice. Its lines are in the order of time but for a few: several workers write
//! to it, and what may have to be redacted is written later than it came. The first pass remembers
//! where these late lines are, and the second one fetches each of them when its time has come.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Take};
use std::iter::Peekable;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::vec;

use super::line::Line;
use super::reader::{BUFFER, Item, Items, Source};
use super::recording::{Event, RecordedConnection, Recording};
use crate::net::error::{Error, Result};

/// Something that a recording says of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A connection was opened. Its events follow as moments of their own.
    Opened(RecordedConnection),
    /// Something crossed the connection of this number.
    Event(u64, Event),
}

/// The moments of a file in the order of time.
pub struct Timeline {
    /// What the file says besides: a recording without its connections.
    header: Recording,
    items: Items<BufReader<Take<File>>>,
    /// For the late lines; `items` has a duplicate of it.
    file: File,
    path: PathBuf,
    late: Peekable<vec::IntoIter<Late>>,
    /// The time of the latest line of the second pass.
    latest: Duration,
    /// It is read, and late lines come first.
    waiting: Option<Item>,
}

/// A line that is behind lines of later moments.
struct Late {
    /// The time of its moment, which may be later than the line says.
    at: Duration,
    offset: u64,
    length: usize,
    line: u64,
}

impl Timeline {
    /// Reads the file once. `Error::File` if it cannot be read, or cannot be read twice, as a pipe;
    /// `Error::Value` names the path and the line that is wrong.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |step| move |error: io::Error| Error::file(step, path, &error);
        let file = File::open(path).map_err(failed("open"))?;
        (&file).rewind().map_err(failed("rewind"))?;
        let items = |end: u64| {
            let file = file.try_clone().map_err(failed("duplicate"))?;
            let input = BufReader::with_capacity(BUFFER, file.take(end));
            Ok(Items::new(input, Source::File(path.to_owned())))
        };
        let mut first = items(u64::MAX)?;
        let mut late = Vec::new();
        let mut latest = Duration::ZERO;
        while let Some(item) = first.next()? {
            let at = item.at();
            if at < latest {
                let (offset, length, line) = first.line();
                late.push(Late { at, offset, length, line });
            }
            latest = latest.max(at);
        }
        // A file that is still written may be longer by now.
        let (end, ..) = first.line();
        let header = first.into_header();
        // Stable: lines of the same time stay in order.
        late.sort_by_key(|late| late.at);
        (&file).rewind().map_err(failed("rewind"))?;
        Ok(Self {
            header,
            items: items(end)?,
            path: path.to_owned(),
            file,
            late: late.into_iter().peekable(),
            latest: Duration::ZERO,
            waiting: None,
        })
    }

    /// What the file says besides its moments: a recording without connections.
    #[must_use]
    pub fn header(&self) -> &Recording {
        &self.header
    }

    /// The next moment; None behind the last one. The errors are those of `open`, where the file
    /// has been changed since.
    pub fn next_moment(&mut self) -> Result<Option<Moment>> {
        while self.waiting.is_none() {
            let Some(item) = self.items.next()? else {
                return self.late.next().map(|late| self.fetch(&late)).transpose();
            };
            // A late line has been returned already, or will be.
            if item.at() >= self.latest {
                self.latest = item.at();
                self.waiting = Some(item);
            }
        }
        let latest = self.latest;
        if let Some(late) = self.late.next_if(|late| late.at < latest) {
            return self.fetch(&late).map(Some);
        }
        Ok(self.waiting.take().map(|item| match item {
            Item::Opened(connection) => Moment::Opened(connection),
            Item::Event { number, event, .. } => Moment::Event(number, event),
        }))
    }

    /// Reads a late line again.
    fn fetch(&self, late: &Late) -> Result<Moment> {
        let mut text = vec![0; late.length];
        let failed = |error| Error::file("read", &self.path, &error);
        self.file.read_exact_at(&mut text, late.offset).map_err(failed)?;
        let transport = self.header.transport;
        let line = std::str::from_utf8(&text).map_err(|error| error.to_string());
        let moment = line.and_then(Line::parse).and_then(|line| match line {
            Line::Open { number, client, local, .. } => Ok(Moment::Opened(
                RecordedConnection::opened(transport, number, late.at, client, local),
            )),
            Line::Event { number, direction, body, .. } => {
                let what = body.what(transport.is_datagram())?;
                let event = Event { at: late.at, direction, what, line: late.line };
                Ok(Moment::Event(number, event))
            }
            Line::Stop { .. } => Err("a stop line where an event was".to_owned()),
        });
        moment.map_err(|wrong| Source::File(self.path.clone()).wrong(late.line, &wrong))
    }
}
