//! The file of a recording, as the recorder's thread writes it. Owns the order of its lines, with
//! what is held of each connection; must never write a byte before it is redacted.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::content::{Content, Piece};
use super::entry::{Entry, Plan, place};
use super::lane::{Caches, Lane};
use super::line::{FIRST, MOST_LINE, push_event, push_header, push_open, push_stop};
use super::recording::{Direction, Event, What};
use super::redaction::{REDACTED, Redaction};
use crate::net::address::Transport;
use crate::net::base::Listed;
use crate::net::error::{Error, Result};
use crate::net::sys::{self, PollFd};

/// Bytes that are collected before a write, unless nothing more is there.
const WRITE: usize = 64 * 1024;
/// How often a pipe that is not read is looked at, for the end of a stop.
const PIPE_CHECK: Duration = Duration::from_millis(20);
/// The longest line of an event without its number and its time.
const MOST_CONTENT: usize = MOST_LINE - 100;

/// The file, with what waits for a decision before it is written.
pub(super) struct Writer {
    // Before the file, so that the number leaves the fork table before it is closed.
    _listed: Listed,
    /// Some until the drop.
    file: Option<File>,
    /// Device and inode of the file.
    id: (u64, u64),
    is_regular: bool,
    path: PathBuf,
    text: String,
    is_datagram: bool,
    redaction: Redaction,
    caches: Caches,
    /// By the number of the connection. Only where something is redacted.
    held: HashMap<u64, Held>,
}

/// Both directions of a connection.
struct Held {
    lanes: [Lane; 2],
    /// The time of the last event, in microseconds.
    last: u64,
}

impl Writer {
    /// Opens the file and writes its header.
    pub(super) fn open(
        plan: &Plan,
        transport: Transport,
        started: SystemTime,
        target: &str,
    ) -> Result<Self> {
        let path = &plan.path;
        let failed = |step| move |error: io::Error| Error::file(step, path, &error);
        let mut file = opened(path).map_err(failed("open"))?;
        let data = file.metadata().map_err(failed("open"))?;
        let listed = Listed::new(&file);
        if data.is_file() {
            take(&mut file, data.len()).map_err(|(step, error)| failed(step)(error))?;
        }
        let mut writer = Self {
            _listed: listed,
            file: Some(file),
            id: (data.dev(), data.ino()),
            is_regular: data.is_file(),
            path: path.clone(),
            text: String::new(),
            is_datagram: transport.is_datagram(),
            caches: Caches::new(&plan.redaction),
            redaction: plan.redaction.clone(),
            held: HashMap::new(),
        };
        push_header(&mut writer.text, transport, Some(started), target);
        writer.flush(&|| Some(Instant::now()))?;
        Ok(writer)
    }

    /// Writes a batch, and with `end` everything that is held, the last line at that time, and all
    /// of it to the disk. A pipe that is not read is given up after the deadline.
    pub(super) fn write(
        &mut self,
        batch: VecDeque<Entry>,
        end: Option<Duration>,
        deadline: &dyn Fn() -> Option<Instant>,
    ) -> Result<()> {
        for entry in batch {
            self.take(entry);
            if self.text.len() >= WRITE {
                self.flush(deadline)?;
            }
        }
        if let Some(at) = end {
            // Every connection has been closed; this is for one that was not.
            let left: Vec<u64> = self.held.keys().copied().collect();
            left.into_iter().for_each(|number| self.take(Entry::Closed { number }));
            push_stop(&mut self.text, at);
        }
        self.flush(deadline)?;
        if end.is_some() && self.is_regular && self.is_intact() {
            let synced = self.file().sync_all();
            synced.map_err(|error| Error::file("fsync", &self.path, &error))?;
        }
        Ok(())
    }

    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Open { number, at, client, local } => {
                push_open(&mut self.text, number, at, &client, Some(&local));
            }
            Entry::Bytes { number, at, direction, bytes } => {
                self.take_bytes(number, at, direction, bytes);
            }
            Entry::End { number, at, direction } => {
                self.take_end(number, at, direction, What::End);
            }
            Entry::Reset { number, at, direction } => {
                self.take_end(number, at, direction, What::Reset);
            }
            Entry::Closed { number } => {
                if let Some(mut held) = self.held.remove(&number) {
                    for direction in [Direction::Up, Direction::Down] {
                        self.finish(number, &mut held, direction);
                    }
                }
            }
        }
    }

    fn take_bytes(&mut self, number: u64, at: Duration, direction: Direction, bytes: Vec<u8>) {
        if self.redaction.rules().is_empty() {
            let what = of_bytes(self.is_datagram, bytes.into());
            return push(&mut self.text, number, Event { at, direction, what, line: 0 });
        }
        let is_datagram = self.is_datagram;
        let Self { redaction, caches, text, .. } = self;
        if is_datagram {
            // Each is decided by itself.
            let mut lane = Lane::new(redaction);
            let mut pass = |at, content| {
                let what = What::Datagram(content);
                push(text, number, Event { at, direction, what, line: 0 });
            };
            lane.push(redaction, caches, &bytes, at, &mut pass);
            return lane.finish(redaction, caches, &mut pass);
        }
        let held = self.held.entry(number).or_insert_with(|| Held::new(redaction));
        let at = held.time(at, direction);
        held.lanes[place(direction)].push(redaction, caches, &bytes, at, &mut |at, content| {
            push(text, number, Event { at, direction, what: What::Bytes(content), line: 0 });
        });
    }

    /// Writes an end behind what is held in front of it. A reset ends both directions.
    fn take_end(&mut self, number: u64, at: Duration, direction: Direction, what: What) {
        let mut at = at;
        if let Some(mut held) = self.held.remove(&number) {
            at = held.time(at, direction);
            self.finish(number, &mut held, direction);
            if what == What::End {
                self.held.insert(number, held);
            } else {
                let other = match direction {
                    Direction::Up => Direction::Down,
                    Direction::Down => Direction::Up,
                };
                self.finish(number, &mut held, other);
            }
        }
        push_event(&mut self.text, number, &Event { at, direction, what, line: 0 });
    }

    fn finish(&mut self, number: u64, held: &mut Held, direction: Direction) {
        let Self { redaction, caches, text, .. } = self;
        held.lanes[place(direction)].finish(redaction, caches, &mut |at, content| {
            push(text, number, Event { at, direction, what: What::Bytes(content), line: 0 });
        });
    }

    /// Writes the text that is there.
    fn flush(&mut self, deadline: &dyn Fn() -> Option<Instant>) -> Result<()> {
        let text = std::mem::take(&mut self.text);
        let result = self.write_all(text.as_bytes(), deadline);
        self.text = text;
        self.text.clear();
        result.map_err(|error| Error::file("write", &self.path, &error))
    }

    fn write_all(
        &self,
        mut bytes: &[u8],
        deadline: &dyn Fn() -> Option<Instant>,
    ) -> io::Result<()> {
        if !bytes.is_empty() && !self.is_intact() {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        while !bytes.is_empty() {
            match self.file().write(bytes) {
                Ok(0) => return Err(io::Error::from_raw_os_error(libc::EIO)),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                        return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
                    }
                    let soon = Some(Instant::now() + PIPE_CHECK);
                    // An error is found by the next write.
                    let _ = sys::poll(&mut [PollFd::writable(self.file().as_fd())], soon);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("there until the drop")
    }

    /// Whether the number is still that of the file. The program may have closed it, and it may be
    /// that of another file, which must not be written.
    fn is_intact(&self) -> bool {
        self.file().metadata().is_ok_and(|data| (data.dev(), data.ino()) == self.id)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.is_intact() {
            self.file.take().map(IntoRawFd::into_raw_fd);
        }
    }
}

impl Held {
    fn new(redaction: &Redaction) -> Self {
        Self { lanes: [Lane::new(redaction), Lane::new(redaction)], last: 0 }
    }

    /// The time to write for an event. An event of the other direction that is held is written
    /// later, and has to be the earlier one of the two.
    fn time(&mut self, at: Duration, direction: Direction) -> Duration {
        let [up, down] = &self.lanes;
        let is_held = match direction {
            Direction::Up => down.is_holding(),
            Direction::Down => up.is_holding(),
        };
        let at = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        self.last = at.max(self.last + u64::from(is_held));
        Duration::from_micros(self.last)
    }
}

fn of_bytes(is_datagram: bool, content: Content) -> What {
    if is_datagram { What::Datagram(content) } else { What::Bytes(content) }
}

/// Appends an event of bytes. One that is too long for a line, because of the replacements in it,
/// is redacted as a whole.
fn push(text: &mut String, number: u64, mut event: Event) {
    let start = text.len();
    push_event(text, number, &event);
    if text.len() - start > MOST_CONTENT {
        text.truncate(start);
        let mut content = Content::default();
        content.push(Piece::Any(REDACTED));
        event.what = of_bytes(matches!(event.what, What::Datagram(_)), content);
        push_event(text, number, &event);
    }
}

/// Opens the path for writing. What is no regular file, such as a pipe, never blocks.
fn opened(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    match path.metadata() {
        Ok(data) if !data.is_file() && !data.is_dir() => {
            options.write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
        }
        _ => options.read(true).write(true).create(true).truncate(false).open(path),
    }
}

/// Takes a regular file for a new recording: another recorder must not have it, and only an older
/// recording is replaced. An error comes with its step.
fn take(file: &mut File, length: u64) -> std::result::Result<(), (&'static str, io::Error)> {
    // Some file systems have no locks, some sandboxes refuse the call.
    let locked = flock(&*file, FlockOperation::NonBlockingLockExclusive);
    if locked == Err(rustix::io::Errno::WOULDBLOCK) {
        let busy = io::Error::from_raw_os_error(libc::EBUSY);
        return Err(("record to a file that another server records to", busy));
    }
    if length == 0 {
        return Ok(());
    }
    if !is_recording(file).map_err(|error| ("read", error))? {
        let exists = io::Error::from_raw_os_error(libc::EEXIST);
        return Err(("record over a file that is no recording", exists));
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(|error| ("truncate", error))
}

/// Whether a file begins as a recording does, as far as it goes.
fn is_recording(file: &mut File) -> io::Result<bool> {
    let mut first = Vec::new();
    file.take(FIRST.len() as u64).read_to_end(&mut first)?;
    Ok(FIRST.as_bytes().starts_with(&first))
}
