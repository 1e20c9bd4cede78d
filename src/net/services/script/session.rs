//! The dialogue with one peer: which step is at hand, and what has come. Must never use input
//! beyond what its steps were met by.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::expectation::Expectation;
use super::mismatch::{Course, Head, report};
use super::position::{At, For, Position, listed};
use super::program::{Action, Block, Piece, Program, Slices, Step};
use super::verdict::{Capture, Verdict};
use crate::net::ledger::ClosedBy;
use crate::net::service::{Drain, Io, Leg, LegStages, Session, SessionError, SessionResult};
use crate::net::services::dialogue::{Entry, MOST_LAST, Results, ScriptResult, Tail};
use crate::net::stage::Chain;
use crate::net::stage::tls::TlsServer;

/// The timer of the step at hand.
const TIMER: u32 = 0;

/// The most parts of a choice that a report names.
const MOST_CHOICES: usize = 8;

/// The most steps that are begun in one event.
const MOST_AT_ONCE: usize = 1_000;

/// Where a dialogue is in a block.
struct Frame {
    block: Block,
    next: usize,
    /// How often the block is begun again.
    rounds: u64,
}

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
    results: Arc<Results>,
    connection: u64,
    frames: Vec<Frame>,
    /// The parts of an `AnyOrder` that are not done yet, of the innermost one last.
    open_orders: Vec<(usize, Vec<Block>)>,
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
    /// Shows it to them, until the dialogue ends.
    entry: Option<Entry>,
    received: Tail,
    sent: Tail,
    /// Input that no step has used when the peer finished; the engine passes it no more.
    rest: Option<Vec<u8>>,
    ending: Option<Ending>,
    unused: Head,
    is_told: bool,
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
            frames: vec![Frame { block: Arc::clone(&program.steps), next: 0, rounds: 0 }],
            program: Arc::clone(program),
            tls: tls.map(Arc::clone),
            results: Arc::clone(results),
            connection,
            open_orders: Vec::new(),
            waiting: Waiting::Ready,
            is_paused: false,
            is_shut: false,
            slices: VecDeque::new(),
            seen: 0,
            is_late: false,
            step: 0,
            position,
            entry: Some(entry),
            received: Tail::default(),
            sent: Tail::default(),
            rest: None,
            ending: None,
            unused: Head::default(),
            is_told: false,
        }
    }

    /// Keeps the result. It has to be there before the client gets the last bytes or the end.
    fn tell(&mut self, error: Option<String>) {
        self.tell_of(self.step, error);
    }

    fn tell_of(&mut self, step: usize, error: Option<String>) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let captures = self.position.with(|at| listed(&at.captures));
        self.results.push(ScriptResult {
            connection: self.connection,
            done: error.is_none(),
            step,
            steps: self.program.count,
            error,
            captures,
            unused: self.unused.bytes.clone(),
            position: None,
        });
        self.entry = None;
    }

    /// Takes the result back: the dialogue goes on.
    fn begin_again(&mut self) {
        let position = Arc::clone(&self.position) as _;
        self.entry = Some(Entry::new(&self.results, self.connection, position));
        self.results.take_back(self.connection);
        self.is_told = false;
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
                    let mut bytes = std::mem::take(bytes);
                    let last = self.ends_behind().filter(|_| self.slices.is_empty());
                    // The last bytes apart: they are most likely taken whole.
                    let apart = bytes.len().saturating_sub(MOST_LAST);
                    let count = if last.is_some() && apart > 0 { apart } else { bytes.len() };
                    let last = last.filter(|_| count == bytes.len());
                    if let Some(last) = last {
                        if offered.is_some() {
                            self.unused = Head::from(&input[used..]);
                        }
                        // The client may look for the result as soon as it has these bytes.
                        self.tell_of(last, None);
                    }
                    let taken = io.write(Leg::Client, &bytes[..count]);
                    bytes.drain(..taken);
                    if bytes.is_empty() {
                        self.sent_all(io);
                        continue;
                    }
                    self.waiting = Waiting::Room(bytes);
                    if last.is_some() {
                        self.begin_again();
                    }
                    if taken < count {
                        break;
                    }
                }
            }
        }
        if let Some(ending) = &self.ending {
            let is_reset = matches!(ending, Ending::Reset);
            if offered.is_some() {
                self.unused = Head::from(&input[used..]);
            }
            used = input.len();
            // Before the client hears of it.
            self.tell(None);
            if is_reset { io.abort() } else { io.close() }
        }
        Ok(used)
    }

    /// The step at hand.
    fn at_hand(&self) -> Option<(&Frame, &Step)> {
        let frame = self.frames.last()?;
        Some((frame, frame.block.get(frame.next)?))
    }

    /// Begins the next step, or ends the dialogue.
    fn begin(&mut self, io: &mut dyn Io) -> SessionResult {
        let Some(frame) = self.frames.last_mut() else {
            self.ending = Some(Ending::Done);
            return Ok(());
        };
        let block = Arc::clone(&frame.block);
        let Some(step) = block.get(frame.next) else {
            self.end_block();
            return Ok(());
        };
        self.step = step.number;
        (self.seen, self.is_late) = (0, false);
        match &step.action {
            Action::Expect(Expectation::Silence(time)) => {
                self.waiting = Waiting::Input;
                io.set_timer(TIMER, Some(*time));
            }
            Action::Expect(_) | Action::RepeatUntilEnd(_) => {
                self.wait_for_input(io, self.timeout(step));
            }
            Action::Either(blocks) => {
                let time = self.timeout(step);
                let time = shortest_silence(blocks).map_or(time, |(_, silence)| silence.min(time));
                self.wait_for_input(io, time);
            }
            Action::AnyOrder(blocks) => {
                let depth = self.frames.len();
                if self.open_orders.last().is_none_or(|(at, _)| *at != depth) {
                    self.open_orders.push((depth, blocks.clone()));
                }
                self.wait_for_input(io, self.timeout(step));
            }
            Action::Send(..) if self.is_shut => {
                return self.fail(step, (&[], 0), "shutdown write came before it");
            }
            Action::Send(pieces, slices) => match self.assembled(pieces) {
                Ok(bytes) => {
                    self.slices = bytes.into();
                    self.send(io, *slices, self.timeout(step));
                }
                Err(name) => {
                    let why = format!("no step before it has captured {name}");
                    return self.fail(step, (&[], 0), &why);
                }
            },
            Action::Wait(time) => {
                self.waiting = Waiting::Time;
                io.set_timer(TIMER, Some(*time));
            }
            Action::Repeat(count, inner) => {
                frame_of(&mut self.frames).next += 1;
                let frame = Frame { block: Arc::clone(inner), next: 0, rounds: count - 1 };
                self.frames.push(frame);
            }
            Action::ShutdownWrite => {
                if let Some(last) = self.ends_behind() {
                    self.tell_of(last, None);
                }
                frame_of(&mut self.frames).next += 1;
                self.is_shut = true;
                io.shut_write(Leg::Client);
            }
            Action::PauseReading => {
                frame_of(&mut self.frames).next += 1;
                self.is_paused = true;
                io.pause(Leg::Client);
            }
            Action::ResumeReading => {
                frame_of(&mut self.frames).next += 1;
                self.is_paused = false;
                io.resume(Leg::Client);
            }
            Action::StartTls => self.start_tls(io, step)?,
            Action::Close => self.ending = Some(Ending::Done),
            Action::Reset => self.ending = Some(Ending::Reset),
        }
        Ok(())
    }

    /// Begins TLS. What the client has sent in clear text behind its request, and no step has used,
    /// is the first that TLS is given, and makes the handshake fail.
    fn start_tls(&mut self, io: &mut dyn Io, step: &Step) -> SessionResult {
        let Some(tls) = &self.tls else { return Ok(()) };
        let chain = Chain::new(vec![tls.stage()]);
        if let Err(error) = io.start_tls(LegStages::new(chain)) {
            return self.fail(step, (&[], 0), &error.0);
        }
        self.waiting = Waiting::Tls;
        self.unused = Head::default();
        io.set_timer(TIMER, Some(self.timeout(step)));
        Ok(())
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

    /// A send, or one slice of it, is out of our hands.
    fn sent_all(&mut self, io: &mut dyn Io) {
        let delay = match self.at_hand() {
            Some((_, Step { action: Action::Send(_, Some(slices)), .. })) => slices.delay,
            _ => Duration::ZERO,
        };
        if self.slices.is_empty() {
            self.advance();
            io.set_timer(TIMER, None);
        } else {
            self.waiting = Waiting::Time;
            io.set_timer(TIMER, Some(delay));
        }
    }

    /// The number of the last step, if nothing but the end of the dialogue follows the step at hand.
    fn ends_behind(&self) -> Option<usize> {
        let mut last = self.step;
        let mut skipped = 1;
        for frame in self.frames.iter().rev() {
            for step in frame.block.iter().skip(frame.next + skipped) {
                if !matches!(step.action, Action::ShutdownWrite | Action::Close | Action::Reset) {
                    return None;
                }
                last = step.number;
            }
            if frame.rounds > 0 {
                return None;
            }
            skipped = 0;
        }
        Some(last)
    }

    /// The step at hand is over.
    fn advance(&mut self) {
        frame_of(&mut self.frames).next += 1;
        self.waiting = Waiting::Ready;
    }

    /// The innermost block is over: it begins again, or what is around it goes on.
    fn end_block(&mut self) {
        let Some(frame) = self.frames.last_mut() else { return };
        if frame.rounds > 0 {
            frame.rounds -= 1;
            frame.next = 0;
            return;
        }
        self.frames.pop();
    }

    fn timeout(&self, step: &Step) -> Duration {
        step.timeout.unwrap_or(self.program.timeout)
    }

    fn wait_for_input(&mut self, io: &mut dyn Io, time: Duration) {
        self.waiting = Waiting::Input;
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
        let ended = self.rest.is_some();
        let Some((frame, _)) = self.at_hand() else { return Ok(None) };
        let block = Arc::clone(&frame.block);
        let step = &block[frame.next];
        let seen = self.seen;
        self.seen = seen.max(input.len());
        let blocks = match &step.action {
            Action::Expect(expectation) => {
                return match expectation.judge(input, ended, seen) {
                    Verdict::Met { used, captures } => {
                        self.capture(captures);
                        self.advance();
                        Ok(Some(used))
                    }
                    Verdict::Open => Ok(None),
                    Verdict::Failed(why) => {
                        self.fail(step, (input, input.len()), &why).map(|()| None)
                    }
                };
            }
            Action::Either(blocks) | Action::RepeatUntilEnd(blocks) => blocks.clone(),
            Action::AnyOrder(_) => {
                self.open_orders.last().map(|(_, left)| left.clone()).unwrap_or_default()
            }
            _ => return Ok(None),
        };
        let mut is_open = false;
        // The one that is met by the fewest bytes: how the peer's bytes are cut must not matter.
        let mut best: Option<(usize, usize, Vec<Capture>)> = None;
        for (index, block) in blocks.iter().enumerate() {
            let Action::Expect(first) = &block[0].action else { continue };
            match first.judge(input, ended, seen) {
                Verdict::Met { used, captures } => {
                    if best.as_ref().is_none_or(|(least, ..)| used < *least) {
                        best = Some((used, index, captures));
                    }
                }
                Verdict::Open => is_open = true,
                Verdict::Failed(_) => {}
            }
        }
        if let Some((used, index, captures)) = best {
            self.capture(captures);
            self.choose(step, index, &blocks[index]);
            return Ok(Some(used));
        }
        if is_open {
            return Ok(None);
        }
        let why = format!("none of: {}", texts(&blocks));
        self.fail(step, (input, input.len()), &why).map(|()| None)
    }

    fn capture(&self, captures: Vec<Capture>) {
        if !captures.is_empty() {
            self.position.with(|at| at.captures.extend(captures));
        }
    }

    /// Goes on behind the first step of a block of a choice.
    fn choose(&mut self, step: &Step, index: usize, block: &Block) {
        self.step = block[0].number;
        self.waiting = Waiting::Ready;
        let is_last = match (&step.action, self.open_orders.last_mut()) {
            (Action::AnyOrder(_), Some((_, left))) => {
                left.remove(index);
                left.is_empty()
            }
            (Action::RepeatUntilEnd(blocks), _) => index + 1 == blocks.len(),
            _ => true,
        };
        if is_last {
            frame_of(&mut self.frames).next += 1;
            if matches!(step.action, Action::AnyOrder(_)) {
                self.open_orders.pop();
            }
        }
        self.frames.push(Frame { block: Arc::clone(block), next: 1, rounds: 0 });
    }

    fn reported(&self, step: &Step, input: (&[u8], usize), why: &str) -> String {
        let course =
            Course { steps: self.program.count, received: &self.received, sent: &self.sent };
        report(step, input, why, &course)
    }

    /// Ends the dialogue with a report. `input`: its first bytes, and how many there are.
    fn fail(&mut self, step: &Step, input: (&[u8], usize), why: &str) -> SessionResult {
        let text = self.reported(step, input, why);
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
        let Some((frame, _)) = self.at_hand() else { return Ok(()) };
        let block = Arc::clone(&frame.block);
        let step = &block[frame.next];
        let had = self.left();
        let mut what = String::new();
        match &step.action {
            Action::Expect(Expectation::Silence(_)) => {
                self.advance();
                return self.go_on(io);
            }
            Action::Either(blocks) => {
                match shortest_silence(blocks) {
                    Some((index, time))
                        if time <= self.timeout(step) && (had.total == 0 || self.is_paused) =>
                    {
                        let block = Arc::clone(&blocks[index]);
                        self.choose(step, index, &block);
                        return self.go_on(io);
                    }
                    Some((_, time)) if time < self.timeout(step) && had.total > 0 => {
                        // The first bytes of another part are here: it has the rest of the time.
                        let rest = self.timeout(step).saturating_sub(time);
                        if !std::mem::replace(&mut self.is_late, true) {
                            io.set_timer(TIMER, Some(rest));
                            return Ok(());
                        }
                    }
                    _ => {}
                }
                what = format!(": {}", texts(blocks));
            }
            Action::AnyOrder(_) => {
                if let Some((_, blocks)) = self.open_orders.last() {
                    what = format!(": {}", texts(blocks));
                }
            }
            _ => {}
        }
        let seconds = self.timeout(step).as_secs_f64();
        let paused = if self.is_paused { ", reading is paused" } else { "" };
        let why = format!("not met within {seconds} s{paused}{what}");
        self.fail(step, (&had.bytes, had.total), &why)
    }

    /// Whether the last step is one that repeats until the end, and no round has begun.
    fn is_between_rounds(&self) -> bool {
        let at_hand = self.at_hand().map(|(_, step)| &step.action);
        matches!(at_hand, Some(Action::RepeatUntilEnd(_)))
            && self.left().total == 0
            && self.waits_at_last()
    }

    /// Whether the reset of the peer is what the last step waits for.
    fn may_be_reset(&self) -> bool {
        let Some((_, step)) = self.at_hand() else { return false };
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
        let is_last = |frame: &Frame| frame.rounds == 0 && frame.next == frame.block.len();
        let (inner, outer) = match self.frames.split_last() {
            Some((inner, outer)) => (inner, outer),
            None => return false,
        };
        matches!(self.waiting, Waiting::Input)
            && inner.rounds == 0
            && inner.next + 1 == inner.block.len()
            && outer.iter().all(is_last)
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

fn frame_of(frames: &mut [Frame]) -> &mut Frame {
    frames.last_mut().expect("a step is in a block")
}

/// The block of a choice that begins with the shortest silence, and how long that is.
fn shortest_silence(blocks: &[Block]) -> Option<(usize, Duration)> {
    let silence = |(index, block): (usize, &Block)| match &block[0].action {
        Action::Expect(Expectation::Silence(time)) => Some((index, *time)),
        _ => None,
    };
    blocks.iter().enumerate().filter_map(silence).min_by_key(|(_, time)| *time)
}

/// The first steps of the parts of a choice, for a report.
fn texts(blocks: &[Block]) -> String {
    let mut texts: Vec<_> = blocks.iter().take(MOST_CHOICES).map(|block| &*block[0].text).collect();
    if blocks.len() > MOST_CHOICES {
        texts.push("…");
    }
    texts.join("; ")
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
                let Some((frame, _)) = self.at_hand() else { return Ok(()) };
                let block = Arc::clone(&frame.block);
                let step = &block[frame.next];
                match &step.action {
                    Action::Send(_, slices) => self.send(io, *slices, self.timeout(step)),
                    _ => self.advance(),
                }
                self.go_on(io)
            }
            Waiting::Turn => {
                self.waiting = Waiting::Ready;
                self.go_on(io)
            }
            Waiting::Room(_) => {
                let Some((frame, _)) = self.at_hand() else { return Ok(()) };
                let block = Arc::clone(&frame.block);
                let step = &block[frame.next];
                let seconds = self.timeout(step).as_secs_f64();
                let why = format!("the peer has not read it within {seconds} s");
                let had = self.left();
                self.fail(step, (&had.bytes, had.total), &why)
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
        if let (Waiting::Tls, Some((frame, _)), None) =
            (&self.waiting, self.at_hand(), &self.ending)
        {
            let block = Arc::clone(&frame.block);
            let why = error.unwrap_or("the connection ended during the handshake");
            // The connection ends anyway.
            let _ = self.fail(&block[frame.next], (&[], 0), why);
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
        let error = match self.at_hand() {
            Some((_, step)) => {
                let had = self.left();
                self.reported(step, (&had.bytes, had.total), &before)
            }
            None => format!("{before}, between two steps"),
        };
        self.tell(Some(error));
    }

    fn input_limit(&self) -> usize {
        // One byte more than an expectation needs, so that it is judged before the engine gives up.
        self.program.most_input.max(64 * 1024) + 1
    }
}
