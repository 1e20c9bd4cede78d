//! The recorder of a server: what connections give it waits in a queue for the thread that writes.
//! Owns the bound of that queue; must never make a connection wait for the file.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use super::entry::{Entry, Plan, place};
use super::numbers::Numbers;
use super::recording::Direction;
use super::writer::Writer;
use crate::net::address::{Endpoint, Transport};
use crate::net::base::{Condvar, Mutex};
use crate::net::error::Result;

/// Bytes in the queue from which on connections are not read.
const MOST_QUEUED: usize = 1024 * 1024;
/// Bytes in the queue up to which they are read again.
const LOW_WATER: usize = MOST_QUEUED / 2;
/// The most bytes of one line: a longer chunk is recorded as several of the same time. A datagram
/// is never longer.
const MOST_CHUNK: usize = 65_536;

/// The recorder of one server, while that serves.
pub struct Recorder {
    path: PathBuf,
    transport: Transport,
    /// The time origin of the recording.
    epoch: Instant,
    state: Mutex<State>,
    /// The thread waits for something to write.
    changed: Condvar,
    /// The queue is full: connections are not read until it is at low water.
    is_full: AtomicBool,
}

struct State {
    queue: VecDeque<Entry>,
    /// Bytes in the queue, and of the batch that is being written.
    bytes: usize,
    numbers: Numbers,
    /// Called when there is room again.
    waiting: Vec<Box<dyn FnOnce() + Send>>,
    /// Nothing more comes.
    is_finished: bool,
    /// Nothing more is written, because of an error.
    has_failed: bool,
    /// Until the thread takes it.
    writer: Option<Writer>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recorder({})", self.path.display())
    }
}

impl Recorder {
    /// Opens the file and writes its header. Blocks for as long as the file system takes.
    /// `Error::File` if that fails, if the file is none of a recording, or if it is being recorded
    /// to already.
    pub fn open(plan: &Plan, transport: Transport, target: &str) -> Result<Arc<Self>> {
        let writer = Writer::open(plan, transport, SystemTime::now(), target)?;
        let state = State {
            queue: VecDeque::new(),
            bytes: 0,
            numbers: Numbers::default(),
            waiting: Vec::new(),
            is_finished: false,
            has_failed: false,
            writer: Some(writer),
        };
        Ok(Arc::new(Self {
            path: plan.path.clone(),
            transport,
            epoch: Instant::now(),
            state: Mutex::new(state),
            changed: Condvar::default(),
            is_full: AtomicBool::new(false),
        }))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The recorder's thread: writes until `finish`, then ends the recording and has the system
    /// write the file to the disk. `deadline` is the time of a stop from which on a pipe that is
    /// not read is given up. After an error nothing more is written, and everything is taken from
    /// the connections all the same.
    pub fn run(&self, deadline: &dyn Fn() -> Option<Instant>) -> Result<()> {
        let Some(mut writer) = self.state.lock().writer.take() else { return Ok(()) };
        loop {
            let (batch, is_last) = self.next_batch();
            let cost: usize = batch.iter().map(Entry::cost).sum();
            let now = || self.since_start(Instant::now());
            let end = is_last.then(now);
            if let Err(error) = writer.write(batch, end, deadline) {
                self.fail();
                return Err(error);
            }
            if is_last {
                return Ok(());
            }
            self.done(cost);
        }
    }

    /// Nothing more comes: the thread ends once it has written what is there.
    pub fn finish(&self) {
        self.state.lock().is_finished = true;
        self.changed.notify_one();
    }

    /// Nothing more is written: the thread has ended, or died.
    pub fn fail(&self) {
        let mut state = self.state.lock();
        state.has_failed = true;
        state.queue = VecDeque::new();
        state.bytes = 0;
        self.tell_room(&mut state);
    }

    /// A connection that is recorded from now on, with the number of its record. `local` is the
    /// server's side.
    #[must_use]
    pub fn track(
        self: &Arc<Self>,
        number: u64,
        client: &Endpoint,
        local: &Endpoint,
        now: Instant,
    ) -> Track {
        let at = self.since_start(now);
        let number = self.state.lock().numbers.of(number);
        let (client, local) = (client.address.clone(), local.address.clone());
        self.push(Entry::Open { number, at, client, local });
        let is_open = if self.transport.is_datagram() { [false; 2] } else { [true; 2] };
        Track { recorder: Arc::clone(self), number, is_open }
    }

    fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.epoch)
    }

    fn push(&self, entry: Entry) {
        let mut state = self.state.lock();
        if state.has_failed {
            return;
        }
        state.bytes += entry.cost();
        if state.bytes >= MOST_QUEUED {
            self.is_full.store(true, Relaxed);
        }
        let was_empty = state.queue.is_empty();
        state.queue.push_back(entry);
        drop(state);
        if was_empty {
            self.changed.notify_one();
        }
    }

    /// Waits for entries. Returns all there are, and whether nothing follows.
    fn next_batch(&self) -> (VecDeque<Entry>, bool) {
        let mut state = self.state.lock();
        while state.queue.is_empty() && !state.is_finished {
            state = self.changed.wait(state, None);
        }
        (std::mem::take(&mut state.queue), state.is_finished)
    }

    /// A batch has been written.
    fn done(&self, cost: usize) {
        let mut state = self.state.lock();
        state.bytes -= cost;
        if state.bytes <= LOW_WATER {
            self.tell_room(&mut state);
        }
    }

    fn tell_room(&self, state: &mut State) {
        self.is_full.store(false, Relaxed);
        // A waker only sets a flag.
        state.waiting.drain(..).for_each(|wake| wake());
    }
}

/// One connection on its way into a recording. Its drop ends the connection there.
pub struct Track {
    recorder: Arc<Recorder>,
    number: u64,
    /// Up and down, until an end.
    is_open: [bool; 2],
}

impl Track {
    /// Records bytes of a stream, or a datagram. Never blocks.
    pub fn bytes(&mut self, now: Instant, direction: Direction, bytes: &[u8]) {
        let (number, at) = (self.number, self.recorder.since_start(now));
        let entry = |bytes: &[u8]| Entry::Bytes { number, at, direction, bytes: bytes.to_vec() };
        if bytes.is_empty() {
            return self.recorder.push(entry(bytes));
        }
        bytes.chunks(MOST_CHUNK).for_each(|chunk| self.recorder.push(entry(chunk)));
    }

    /// Records that a side has finished.
    pub fn end(&mut self, now: Instant, direction: Direction) {
        let (number, at) = (self.number, self.recorder.since_start(now));
        if std::mem::take(&mut self.is_open[place(direction)]) {
            self.recorder.push(Entry::End { number, at, direction });
        }
    }

    /// Records that a side has reset the connection.
    pub fn reset(&mut self, now: Instant, direction: Direction) {
        let (number, at) = (self.number, self.recorder.since_start(now));
        self.is_open = [false; 2];
        self.recorder.push(Entry::Reset { number, at, direction });
    }

    /// Whether the connection may be read on.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.recorder.is_full.load(Relaxed)
    }

    /// Calls `wake` once there is room, which may be at once. Must not block.
    pub fn when_room(&self, wake: Box<dyn FnOnce() + Send>) {
        let mut state = self.recorder.state.lock();
        if self.recorder.is_full.load(Relaxed) {
            state.waiting.push(wake);
        } else {
            drop(state);
            wake();
        }
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        if self.is_open[place(Direction::Down)] {
            // The server has ended it without an end that the client could see.
            self.reset(Instant::now(), Direction::Down);
        }
        self.recorder.push(Entry::Closed { number: self.number });
    }
}
