//! The dialogue of a recording with one client of a stream. Must never go on behind a divergence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::player::{Next, Player};
use super::position::Position;
use crate::net::ledger::ClosedBy;
use crate::net::service::{Drain, Io, Leg, Session, SessionError, SessionResult};
use crate::net::services::dialogue::{Entry, Results, ScriptResult, ahead_of_last};

/// The timer of what is at hand.
const TIMER: u32 = 0;

/// What the timer is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// The next own event is due.
    Time,
    /// The client is expected to send, or to read.
    Client,
}

pub(super) struct Dialogue {
    player: Player,
    position: Arc<Position>,
    /// Shows the position to other threads, until the dialogue ends, and then its result.
    entry: Entry,
    /// How long the client may take to read.
    timeout: Duration,
    waiting: Waiting,
    /// Input that was not used.
    rest: Vec<u8>,
    /// The own side has played everything, or reset.
    is_over: bool,
    /// The report of a divergence.
    error: Option<String>,
}

impl Dialogue {
    pub(super) fn new(player: Player, results: &Arc<Results>, timeout: Duration) -> Self {
        let position = Arc::new(player.position());
        let entry = Entry::new(results, position.connection(), Arc::clone(&position) as _);
        Self {
            player,
            position,
            entry,
            timeout,
            waiting: Waiting::Client,
            rest: Vec::new(),
            is_over: false,
            error: None,
        }
    }

    /// Keeps the result, which replaces an earlier one.
    fn tell(&mut self, error: Option<String>) {
        self.entry.tell(self.player.result(error));
    }

    /// Keeps the result of a dialogue of which nothing but ends is left.
    fn tell_played(&mut self) {
        if !self.entry.is_told() {
            let torn = self.player.torn();
            self.tell(torn);
        }
    }

    /// How many of the unsent bytes to send now.
    fn at_once(&self, is_last: bool) -> usize {
        let size = self.player.unsent().len();
        if is_last && !self.player.keeps_pieces() { ahead_of_last(size) } else { size }
    }

    fn fail(&mut self, report: String) -> SessionError {
        self.tell(Some(report.clone()));
        self.error = Some(report.clone());
        SessionError(report)
    }

    /// Does what can be done now.
    fn go_on(&mut self, io: &mut dyn Io) {
        while !self.is_over {
            if self.player.has_ends_only() {
                self.tell_played();
            }
            match self.player.next(Instant::now()) {
                Next::Send => {
                    let is_last = self.player.sends_last();
                    let size = self.at_once(is_last);
                    let is_whole = size == self.player.unsent().len();
                    if is_last && is_whole {
                        // The client may look for the result as soon as it has these bytes.
                        self.tell_played();
                    }
                    self.position.set(self.player.spot());
                    let taken = io.write(Leg::Client, &self.player.unsent()[..size]);
                    self.player.sent(taken);
                    if taken < size {
                        if is_last && is_whole {
                            self.entry.take_back();
                        }
                        self.waiting = Waiting::Client;
                        io.set_timer(TIMER, Some(self.timeout));
                        break;
                    }
                    if is_whole && self.player.keeps_pieces() {
                        self.waiting = Waiting::Time;
                        io.set_timer(TIMER, Some(Duration::ZERO));
                        break;
                    }
                }
                Next::Finish => {
                    self.position.set(self.player.spot());
                    io.shut_write(Leg::Client);
                    self.player.did();
                }
                Next::Reset => {
                    self.player.did();
                    self.is_over = true;
                    io.abort();
                }
                Next::Wait(time) => {
                    self.waiting = Waiting::Time;
                    io.set_timer(TIMER, Some(time));
                    break;
                }
                Next::Peer(time) => {
                    self.waiting = Waiting::Client;
                    io.set_timer(TIMER, time);
                    break;
                }
                Next::Done => {
                    self.is_over = true;
                    io.close();
                }
            }
        }
        self.position.set(self.player.spot());
    }
}

impl Session for Dialogue {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        self.go_on(io);
        Ok(())
    }

    fn bytes(&mut self, io: &mut dyn Io, _leg: Leg, input: &[u8]) -> SessionResult<usize> {
        if self.is_over {
            return Ok(input.len());
        }
        let used = match self.player.receive(input, Instant::now()) {
            Ok(used) => used,
            Err(report) => return Err(self.fail(report)),
        };
        self.rest = input[used..].to_vec();
        self.go_on(io);
        Ok(used)
    }

    fn eof(&mut self, io: &mut dyn Io, _leg: Leg, rest: &[u8]) -> SessionResult {
        if self.is_over {
            return Ok(());
        }
        self.player.finished(rest, Instant::now()).map_err(|report| self.fail(report))?;
        self.go_on(io);
        Ok(())
    }

    fn low_water(&mut self, io: &mut dyn Io, _leg: Leg) -> SessionResult {
        self.go_on(io);
        Ok(())
    }

    fn timer(&mut self, io: &mut dyn Io, _key: u32) -> SessionResult {
        if self.is_over {
            return Ok(());
        }
        if self.waiting == Waiting::Client {
            let report = self.player.overdue(&std::mem::take(&mut self.rest));
            return Err(self.fail(report));
        }
        self.go_on(io);
        Ok(())
    }

    fn drain(&mut self, _io: &mut dyn Io) -> SessionResult<Drain> {
        let is_played = self.is_over || self.player.has_ends_only();
        Ok(if is_played { Drain::Finish } else { Drain::Hold })
    }

    fn explain(&self, by: ClosedBy, error: Option<String>) -> (ClosedBy, Option<String>) {
        match &self.error {
            Some(report) => (ClosedBy::Error, Some(report.clone())),
            None => (by, error),
        }
    }

    fn closed(&mut self, why: ClosedBy) {
        if self.error.is_some() {
            return;
        }
        let is_reset = why == ClosedBy::Reset;
        let error = self.player.closed(why.name(), is_reset, Instant::now());
        if !self.entry.is_told() || error.is_some() {
            self.tell(error);
        }
    }
}

/// The session of a client for which the recording has no connection. It is closed with FIN: a
/// reset could end the client's connect, whose error would not tell of the recording.
pub(super) struct Unrecorded {
    pub(super) connection: u64,
    pub(super) report: String,
    pub(super) results: Arc<Results>,
}

impl Session for Unrecorded {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        self.results.push(unrecorded(self.connection, &self.report));
        io.close();
        Ok(())
    }

    fn explain(&self, _by: ClosedBy, _error: Option<String>) -> (ClosedBy, Option<String>) {
        (ClosedBy::Error, Some(self.report.clone()))
    }
}

/// The result of a client for which the recording has no connection.
pub(super) fn unrecorded(connection: u64, report: &str) -> ScriptResult {
    ScriptResult {
        connection,
        done: false,
        step: 0,
        steps: 0,
        error: Some(report.to_owned()),
        captures: Vec::new(),
        unused: Vec::new(),
        position: None,
    }
}
