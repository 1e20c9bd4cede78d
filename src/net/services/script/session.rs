//! The dialogue with one peer: which step is at hand, and what has come. Must never use input
//! beyond what its steps were met by.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::choice;
use super::cursor::Cursor;
use super::expectation::Expectation;
use super::mismatch::{Course, Head, report};
use super::position::{At, For, Position, listed};
use super::program::{Action, Block, Piece, Program, Slices, Step};
use super::verdict::{Capture, Verdict};
use crate::net::ledger::ClosedBy;
use crate::net::service::{Drain, Io, Leg, LegStages, Session, SessionError, SessionResult};
use crate::net::services::dialogue::{Entry, Results, ScriptResult, Tail, ahead_of_last};
use crate::net::stage::Chain;
use crate::net::stage::tls::TlsServer;

/// The timer of the step at hand.
const TIMER: u32 = 0;

/// The most steps that are begun in one event.
const MOST_AT_ONCE: usize = 1_000;

/// What the step at hand waits for.
enum Waiting {
    /// Nothing: the next step begins.
    Ready,
    /// Input, or an end.
    Input,
    /// The time of a wait, or between two slices, to pass.
    Time,
    /// Another turn, for other connections.
    Turn,
    /// Room to send the rest of these bytes.
    Room(Vec<u8>),
    /// The end of a handshake.
    Tls,
}

/// How the dialogue ends.
enum Ending {
    /// With FIN.
    Done,
    /// With RST, as the script says.
    Reset,
    Failed(String),
}

pub(super) struct Dialogue {
    program: Arc<Program>,
    tls: Option<Arc<TlsServer>>,
    cursor: Cursor,
    waiting: Waiting,
    /// A step has paused the reading: what arrives waits, as does what has arrived.
    is_paused: bool,
    /// A step has sent our FIN.
    is_shut: bool,
    /// Bytes of a send that is cut, behind those at hand.
    slices: VecDeque<u8>,
    /// The step at hand has seen this much input, and waits for more.
    seen: usize,
    /// The silence that a choice allows is over, and the rest of its time runs.
    is_late: bool,
    /// The number of the last step that was begun.
    step: usize,
    /// What other threads see of it, with what was captured.
    position: Arc<Position>,
    /// Shows it to them, until the dialogue ends, and then its result.
    entry: Entry,
    received: Tail,
    sent: Tail,
    /// Input that no step has used when the peer finished; the engine passes it no more.
    rest: Option<Vec<u8>>,
    ending: Option<Ending>,
    unused: Head,
}

impl Dialogue {
    pub(super) fn new(
        program: &Arc<Program>,
        tls: Option<&Arc<TlsServer>>,
        results: &Arc<Results>,
        connection: u64,
    ) -> Self {
        let position = Arc::new(Position::new(program, connection));
        let entry = Entry::new(results, connection, Arc::clone(&position) as _);
        Self {
            cursor: Cursor::new(&program.steps),
            program: Arc::clone(program),
            tls: tls.map(Arc::clone),
            waiting: Waiting::Ready,
            is_paused: false,
            is_shut: false,
            slices: VecDeque::new(),
            seen: 0,
            is_late: false,
            step: 0,
            position,
            entry,
            received: Tail::default(),
            sent: Tail::default(),
            rest: None,
            ending: None,
            unused: Head::default(),
        }
    }

    /// Keeps the result, unless one is kept.
    fn tell(&mut self, error: Option<String>) {
        self.tell_of(self.step, error);
    }

    fn tell_of(&mut self, step: usize, error: Option<String>) {
        if self.entry.is_told() {
            return;
        }
        let captures = self.position.with(|at| listed(&at.captures));
        self.entry.tell(ScriptResult {
            connection: self.entry.connection(),
            done: error.is_none(),
            step,
            steps: self.program.count,
            error,
            captures,
            unused: self.unused.bytes.clone(),
            position: None,
        });
    }

    /// Shows other threads where the dialogue is.
    fn show(&self) {
        let waits_for = match &self.waiting {
            Waiting::Input if self.is_paused => For::Paused,
            Waiting::Input => For::Input,
            Waiting::Room(bytes) => For::Room(bytes.len() + self.slices.len()),
            Waiting::Ready | Waiting::Time | Waiting::Turn | Waiting::Tls => For::Time,
        };
        let (step, unused) = (self.step, self.left());
        self.position.with(|at| {
            let captures = std::mem::take(&mut at.captures);
            *at = At { step, waits_for, unused, captures };
        });
    }

    /// Shows them the step at hand, before the client can notice what it does. `unused`: the input
    /// that no step has used, where it is known.
    fn show_action(&self, unused: Option<&[u8]>) {
        self.position.with(|at| {
            (at.step, at.waits_for) = (self.step, For::Time);
            if let Some(input) = unused {
                at.unused = Head::from(input);
            }
        });
    }

    /// Plays on, as far as the input allows: all that was not used, or None where the engine will
    /// offer it later. Returns how many bytes of it were used.
    fn play(&mut self, io: &mut dyn Io, offered: Option<&[u8]>) -> SessionResult<usize> {
        let input = offered.unwrap_or_default();
        let (mut used, mut begun) = (0, 0);
        while self.ending.is_none() {
            match &mut self.waiting {
                Waiting::Ready if begun == MOST_AT_ONCE => {
                    // Steps that never wait must not keep the thread from other connections.
                    self.waiting = Waiting::Turn;
                    io.set_timer(TIMER, Some(Duration::ZERO));
                }
                Waiting::Ready => {
                    begun += 1;
                    self.begin(io)?;
                }
                // Only silence is met while nothing is read.
                Waiting::Input if self.is_paused => break,
                Waiting::Input => match self.judge(&input[used..])? {
                    Some(count) => {
                        self.received.push(&input[used..used + count]);
                        used += count;
                        io.set_timer(TIMER, None);
                    }
                    None => break,
                },
                Waiting::Time | Waiting::Turn | Waiting::Tls => break,
                Waiting::Room(bytes) => {
                    let bytes = std::mem::take(bytes);
                    if !self.write(io, bytes, offered.map(|_| &input[used..])) {
                        break;
                    }
                }
            }
        }
        if let Some(ending) = &self.ending {
            let is_reset = matches!(ending, Ending::Reset);
            self.leave_unused(offered.map(|_| &input[used..]));
            used = input.len();
            // Before the client hears of it.
            self.tell(None);
            if is_reset { io.abort() } else { io.close() }
        }
        Ok(used)
    }

    /// Keeps the input that no step has used, for the result. None leaves what was kept before.
    fn leave_unused(&mut self, input: Option<&[u8]>) {
        if let Some(input) = input {
            self.unused = Head::from(input);
        }
    }

    /// Begins the next step, or ends the dialogue.
    fn begin(&mut self, io: &mut dyn Io) -> SessionResult {
        let Some(step) = self.cursor.held_step() else {
            if self.cursor.is_over() {
                self.ending = Some(Ending::Done);
            } else {
                self.cursor.end_block();
            }
            return Ok(());
        };
        self.step = step.number;
        (self.seen, self.is_late) = (0, false);
        let timeout = self.timeout(&step);
        match &step.action {
            Action::Expect(Expectation::Silence(time)) => self.wait_for_input(io, *time),
            Action::Expect(_) | Action::RepeatUntilEnd(_) => self.wait_for_input(io, timeout),
            Action::Either(parts) => {
                let silence = choice::shortest_silence(parts);
                let time = silence.map_or(timeout, |(_, silence)| silence.min(timeout));
                self.wait_for_input(io, time);
            }
            Action::AnyOrder(parts) => {
                self.cursor.begin_order(parts);
                self.wait_for_input(io, timeout);
            }
            Action::Send(pieces, slices) => self.begin_send(io, pieces, *slices, timeout)?,
            Action::Wait(time) => self.wait(io, *time),
            Action::Repeat(rounds, block) => self.cursor.repeat(block, *rounds),
            Action::ShutdownWrite => {
                if let Some(last) = self.cursor.ends_behind() {
                    self.tell_of(last, None);
                }
                self.show_action(None);
                self.cursor.advance();
                self.is_shut = true;
                io.shut_write(Leg::Client);
            }
            Action::PauseReading => {
                self.cursor.advance();
                self.is_paused = true;
                io.pause(Leg::Client);
            }
            Action::ResumeReading => {
                self.cursor.advance();
                self.is_paused = false;
                io.resume(Leg::Client);
            }
            Action::StartTls => self.start_tls(io, timeout)?,
            Action::Close => self.ending = Some(Ending::Done),
            Action::Reset => self.ending = Some(Ending::Reset),
        }
        Ok(())
    }

    /// Begins TLS. What the client has sent in clear text behind its request, and no step has used,
    /// is the first that TLS is given, and makes the handshake fail.
    fn start_tls(&mut self, io: &mut dyn Io, timeout: Duration) -> SessionResult {
        let Some(tls) = &self.tls else { return Ok(()) };
        let chain = Chain::new(vec![tls.stage()]);
        if let Err(error) = io.start_tls(LegStages::new(chain)) {
            return self.fail((&[], 0), &error.0);
        }
        self.waiting = Waiting::Tls;
        self.unused = Head::default();
        io.set_timer(TIMER, Some(timeout));
        Ok(())
    }

    /// Assembles what a step sends, and sends it or its first slice.
    fn begin_send(
        &mut self,
        io: &mut dyn Io,
        pieces: &[Piece],
        slices: Option<Slices>,
        timeout: Duration,
    ) -> SessionResult {
        if self.is_shut {
            return self.fail((&[], 0), "shutdown write came before it");
        }
        match self.assembled(pieces) {
            Ok(bytes) => {
                self.slices = bytes.into();
                self.send(io, slices, timeout);
                Ok(())
            }
            Err(name) => self.fail((&[], 0), &format!("no step before it has captured {name}")),
        }
    }

    /// Sends what is left of the step at hand, or the next slice of it.
    fn send(&mut self, io: &mut dyn Io, slices: Option<Slices>, timeout: Duration) {
        let all = self.slices.len();
        let count = slices.map_or(all, |slices| slices.size.min(all));
        let bytes: Vec<u8> = self.slices.drain(..count).collect();
        self.sent.push(&bytes);
        self.waiting = Waiting::Room(bytes);
        io.set_timer(TIMER, Some(timeout));
    }

    /// Writes bytes of a send. `unused`: the input that no step has used. Returns whether the
    /// dialogue goes on, rather than wait for room.
    fn write(&mut self, io: &mut dyn Io, mut bytes: Vec<u8>, unused: Option<&[u8]>) -> bool {
        let last = self.cursor.ends_behind().filter(|_| self.slices.is_empty());
        let count = if last.is_some() { ahead_of_last(bytes.len()) } else { bytes.len() };
        let last = last.filter(|_| count == bytes.len());
        // The client may look where the dialogue is, or for its result, once it has these bytes.
        self.show_action(unused);
        if let Some(last) = last {
            self.leave_unused(unused);
            self.tell_of(last, None);
        }
        let taken = io.write(Leg::Client, &bytes[..count]);
        bytes.drain(..taken);
        if bytes.is_empty() {
            self.sent_all(io);
            return true;
        }
        self.waiting = Waiting::Room(bytes);
        if last.is_some() {
            self.entry.take_back();
        }
        taken == count
    }

    /// A send, or one slice of it, is out of our hands.
    fn sent_all(&mut self, io: &mut dyn Io) {
        if self.slices.is_empty() {
            self.advance();
            io.set_timer(TIMER, None);
            return;
        }
        let delay = match self.cursor.step() {
            Some(Step { action: Action::Send(_, Some(slices)), .. }) => slices.delay,
            _ => Duration::ZERO,
        };
        self.wait(io, delay);
    }

    /// The step at hand is over.
    fn advance(&mut self) {
        self.cursor.advance();
        self.waiting = Waiting::Ready;
    }

    /// How long a step may take. A choice without a time of its own waits for the part that may take
    /// longest.
    fn timeout(&self, step: &Step) -> Duration {
        let longest = || match &step.action {
            Action::Either(parts) | Action::AnyOrder(parts) => self.longest(parts),
            // The last part is the end, which may come at any time.
            Action::RepeatUntilEnd(parts) => self.longest(&parts[..parts.len() - 1]),
            _ => None,
        };
        step.timeout.or_else(longest).unwrap_or(self.program.timeout)
    }

    /// The longest time that a first step of the parts may take, other than silence.
    fn longest(&self, parts: &[Block]) -> Option<Duration> {
        let firsts = parts.iter().map(|part| &part[0]);
        let is_silence =
            |step: &&Step| matches!(step.action, Action::Expect(Expectation::Silence(_)));
        firsts.filter(|step| !is_silence(step)).map(|step| self.timeout(step)).max()
    }

    fn wait_for_input(&mut self, io: &mut dyn Io, time: Duration) {
        self.waiting = Waiting::Input;
        io.set_timer(TIMER, Some(time));
    }

    fn wait(&mut self, io: &mut dyn Io, time: Duration) {
        self.waiting = Waiting::Time;
        io.set_timer(TIMER, Some(time));
    }

    /// What a send sends. The error is a name that was not captured.
    fn assembled(&self, pieces: &[Piece]) -> Result<Vec<u8>, Box<str>> {
        let mut bytes = Vec::new();
        self.position.with(|at| {
            for piece in pieces {
                bytes.extend_from_slice(match piece {
                    Piece::Bytes(bytes) => bytes,
                    Piece::Captured(name) => at.captures.get(name).ok_or_else(|| name.clone())?,
                });
            }
            Ok(bytes)
        })
    }

    /// Judges the input by the step at hand. Returns how many bytes met it; None while it is open.
    fn judge(&mut self, input: &[u8]) -> SessionResult<Option<usize>> {
        let Some(step) = self.cursor.held_step() else { return Ok(None) };
        let (ended, seen) = (self.rest.is_some(), self.seen);
        self.seen = seen.max(input.len());
        let (verdict, part) = match &step.action {
            Action::Expect(expectation) => (expectation.judge(input, ended, seen), None),
            _ => {
                let Some(parts) = self.cursor.choice() else { return Ok(None) };
                let (verdict, index) = choice::judge(&parts, input, ended, seen);
                (verdict, index.map(|index| (index, Arc::clone(&parts[index]))))
            }
        };
        match verdict {
            Verdict::Met { used, captures } => {
                self.capture(captures);
                match part {
                    Some((index, part)) => self.choose(index, &part),
                    None => self.advance(),
                }
                Ok(Some(used))
            }
            Verdict::Open => Ok(None),
            Verdict::Failed(why) => self.fail((input, input.len()), &why).map(|()| None),
        }
    }

    fn capture(&self, captures: Vec<Capture>) {
        if !captures.is_empty() {
            self.position.with(|at| at.captures.extend(captures));
        }
    }

    /// Goes on behind the first step of a part of a choice.
    fn choose(&mut self, index: usize, part: &Block) {
        self.step = part[0].number;
        self.waiting = Waiting::Ready;
        self.cursor.choose(index, part);
    }

    /// The report of a divergence at the step at hand. `input`: the first bytes that are left for
    /// it, and how many there are.
    fn reported(&self, input: (&[u8], usize), why: &str) -> String {
        let Some(step) = self.cursor.step() else { return format!("{why}, between two steps") };
        let course =
            Course { steps: self.program.count, received: &self.received, sent: &self.sent };
        report(step, input, why, &course)
    }

    /// Ends the dialogue with a report.
    fn fail(&mut self, input: (&[u8], usize), why: &str) -> SessionResult {
        let text = self.reported(input, why);
        self.unused = Head::from(input.0);
        self.ending = Some(Ending::Failed(text.clone()));
        self.tell(Some(text.clone()));
        Err(SessionError(text))
    }

    /// The input that no step has used.
    fn left(&self) -> Head {
        self.rest.as_deref().map_or_else(|| self.unused.clone(), Head::from)
    }

    /// The time of a step that waits for input is over.
    fn overdue(&mut self, io: &mut dyn Io) -> SessionResult {
        let Some(step) = self.cursor.held_step() else { return Ok(()) };
        let timeout = self.timeout(&step);
        let what = match &step.action {
            Action::Expect(Expectation::Silence(_)) => {
                self.advance();
                return self.go_on(io);
            }
            Action::Either(parts) => {
                if self.has_been_silent(io, parts, timeout)? {
                    return Ok(());
                }
                format!(": {}", choice::texts(parts))
            }
            Action::AnyOrder(_) => format!(": {}", choice::texts(self.cursor.order())),
            _ => String::new(),
        };
        let seconds = timeout.as_secs_f64();
        let paused = if self.is_paused { ", reading is paused" } else { "" };
        let had = self.left();
        let why = format!("not met within {seconds} s{paused}{what}");
        self.fail((&had.bytes, had.total), &why)
    }

    /// The first time of a choice is over, that of a silence it allows or its own. Goes on if the
    /// peer was silent; waits on if the first bytes of another part are here. Returns false if the
    /// choice is not met.
    fn has_been_silent(
        &mut self,
        io: &mut dyn Io,
        parts: &[Block],
        timeout: Duration,
    ) -> SessionResult<bool> {
        let Some((index, time)) = choice::shortest_silence(parts) else { return Ok(false) };
        if self.left().total == 0 || self.is_paused {
            if time > timeout {
                return Ok(false);
            }
            self.choose(index, &parts[index]);
            return self.go_on(io).map(|()| true);
        }
        if time >= timeout || std::mem::replace(&mut self.is_late, true) {
            return Ok(false);
        }
        // The other part has the rest of the time.
        io.set_timer(TIMER, Some(timeout.saturating_sub(time)));
        Ok(true)
    }

    /// Whether the last step is one that repeats until the end, and no round has begun.
    fn is_between_rounds(&self) -> bool {
        let at_hand = self.cursor.step().map(|step| &step.action);
        matches!(at_hand, Some(Action::RepeatUntilEnd(_)))
            && self.left().total == 0
            && self.waits_at_last()
    }

    /// Whether the reset of the peer is what the last step waits for.
    fn may_be_reset(&self) -> bool {
        let Some(step) = self.cursor.step() else { return false };
        let is_end =
            |action: &Action| matches!(action, Action::Expect(Expectation::End { or_reset: true }));
        let is_met = match &step.action {
            Action::Either(blocks) | Action::RepeatUntilEnd(blocks) => {
                blocks.iter().any(|block| block.len() == 1 && is_end(&block[0].action))
            }
            action => is_end(action),
        };
        is_met && self.waits_at_last()
    }

    /// Whether the step at hand waits for input, and no other follows.
    fn waits_at_last(&self) -> bool {
        matches!(self.waiting, Waiting::Input) && self.cursor.is_at_last()
    }

    /// Plays on without new input: the engine offers again what it has.
    fn go_on(&mut self, io: &mut dyn Io) -> SessionResult {
        match self.rest.take() {
            Some(mut rest) => {
                // That the peer has finished holds for the steps as well.
                self.rest = Some(Vec::new());
                let used = self.play(io, Some(&rest))?;
                rest.drain(..used);
                self.rest = Some(rest);
            }
            None => {
                self.play(io, None)?;
                if !self.is_paused {
                    io.resume(Leg::Client);
                }
            }
        }
        self.show();
        Ok(())
    }
}

impl Session for Dialogue {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        self.play(io, None)?;
        self.show();
        Ok(())
    }

    fn bytes(&mut self, io: &mut dyn Io, _leg: Leg, input: &[u8]) -> SessionResult<usize> {
        let used = self.play(io, Some(input))?;
        if self.ending.is_none() {
            let left = &input[used..];
            // For the report, if no more comes.
            self.unused = Head::from(left);
            if left.len() >= self.input_limit() && !matches!(self.waiting, Waiting::Input) {
                // Until a step asks for input, the peer waits.
                io.pause(Leg::Client);
            }
            self.show();
        }
        Ok(used)
    }

    fn eof(&mut self, io: &mut dyn Io, _leg: Leg, rest: &[u8]) -> SessionResult {
        self.rest = Some(rest.to_vec());
        self.go_on(io)
    }

    fn low_water(&mut self, io: &mut dyn Io, _leg: Leg) -> SessionResult {
        if matches!(self.waiting, Waiting::Room(_)) { self.go_on(io) } else { Ok(()) }
    }

    fn timer(&mut self, io: &mut dyn Io, _key: u32) -> SessionResult {
        match self.waiting {
            Waiting::Time => {
                let Some(step) = self.cursor.held_step() else { return Ok(()) };
                match &step.action {
                    Action::Send(_, slices) => self.send(io, *slices, self.timeout(&step)),
                    _ => self.advance(),
                }
                self.go_on(io)
            }
            Waiting::Turn => {
                self.waiting = Waiting::Ready;
                self.go_on(io)
            }
            Waiting::Room(_) => {
                let Some(step) = self.cursor.step() else { return Ok(()) };
                let seconds = self.timeout(step).as_secs_f64();
                let why = format!("the peer has not read it within {seconds} s");
                let had = self.left();
                self.fail((&had.bytes, had.total), &why)
            }
            Waiting::Input | Waiting::Tls => self.overdue(io),
            Waiting::Ready => Ok(()),
        }
    }

    fn upgraded(&mut self, io: &mut dyn Io) -> SessionResult {
        if !matches!(self.waiting, Waiting::Tls) {
            return Ok(());
        }
        io.set_timer(TIMER, None);
        self.advance();
        self.go_on(io)
    }

    fn ends(&mut self, _why: ClosedBy, error: Option<&str>) {
        if let (Waiting::Tls, None) = (&self.waiting, &self.ending) {
            let why = error.unwrap_or("the connection ended during the handshake");
            // The connection ends anyway.
            let _ = self.fail((&[], 0), why);
        }
    }

    fn drain(&mut self, _io: &mut dyn Io) -> SessionResult<Drain> {
        let is_over = self.ending.is_some() || self.is_between_rounds();
        Ok(if is_over { Drain::Finish } else { Drain::Hold })
    }

    fn explain(&self, by: ClosedBy, error: Option<String>) -> (ClosedBy, Option<String>) {
        match &self.ending {
            Some(Ending::Failed(text)) => (ClosedBy::Error, Some(text.clone())),
            _ => (by, error),
        }
    }

    fn closed(&mut self, why: ClosedBy) {
        if self.ending.is_some() {
            return;
        }
        let is_met = match why {
            ClosedBy::Reset => self.may_be_reset(),
            ClosedBy::Stop => self.is_between_rounds(),
            _ => false,
        };
        if is_met {
            return self.tell(None);
        }
        let before = format!("the connection ended before (closed by {})", why.name());
        let had = self.left();
        let error = self.reported((&had.bytes, had.total), &before);
        self.tell(Some(error));
    }

    fn input_limit(&self) -> usize {
        // One byte more than an expectation needs, so that it is judged before the engine gives up.
        self.program.most_input.max(64 * 1024) + 1
    }
}
