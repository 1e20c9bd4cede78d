//! The dialogue with one peer: which step is at hand, and what has come. Must never use input
//! beyond what its steps were met by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::expectation::{Expectation, Verdict};
use super::mismatch::{Course, report};
use super::program::{Action, Block, Piece, Program, Step};
use crate::net::ledger::ClosedBy;
use crate::net::service::{Drain, Io, Leg, Session, SessionError, SessionResult};
use crate::net::services::dialogue::{Results, ScriptResult, Tail};

/// The timer of the step at hand.
const TIMER: u32 = 0;

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
    /// A time to pass.
    Time,
    /// Room to send the rest of these bytes.
    Room(Vec<u8>),
}

/// How the dialogue ends.
enum Ending {
    Done,
    Failed(String),
}

pub(super) struct Dialogue {
    program: Arc<Program>,
    results: Arc<Results>,
    connection: u64,
    frames: Vec<Frame>,
    /// The parts of an `AnyOrder` that are not done yet, of the innermost one last.
    open_orders: Vec<(usize, Vec<Block>)>,
    waiting: Waiting,
    /// A step has paused the reading.
    is_paused: bool,
    /// The number of the last step that was begun.
    step: usize,
    captures: BTreeMap<Box<str>, Vec<u8>>,
    received: Tail,
    sent: Tail,
    /// Input that no step has used when the peer finished; the engine passes it no more.
    rest: Option<Vec<u8>>,
    ending: Option<Ending>,
    unused: Vec<u8>,
    is_told: bool,
}

/// Bytes of unused input that a result keeps.
const MOST_UNUSED: usize = 1024;

impl Dialogue {
    pub(super) fn new(program: &Arc<Program>, results: &Arc<Results>, connection: u64) -> Self {
        Self {
            frames: vec![Frame { block: Arc::clone(&program.steps), next: 0, rounds: 0 }],
            program: Arc::clone(program),
            results: Arc::clone(results),
            connection,
            open_orders: Vec::new(),
            waiting: Waiting::Ready,
            is_paused: false,
            step: 0,
            captures: BTreeMap::new(),
            received: Tail::default(),
            sent: Tail::default(),
            rest: None,
            ending: None,
            unused: Vec::new(),
            is_told: false,
        }
    }

    /// Keeps the result. It is there before the client gets the last bytes, which leave after the
    /// event that is being handled.
    fn tell(&mut self, error: Option<String>) {
        if std::mem::replace(&mut self.is_told, true) {
            return;
        }
        let captures = std::mem::take(&mut self.captures);
        self.results.push(ScriptResult {
            connection: self.connection,
            done: error.is_none(),
            step: self.step,
            steps: self.program.count,
            error,
            captures: captures.into_iter().map(|(name, part)| (name.into(), part)).collect(),
            unused: std::mem::take(&mut self.unused),
        });
    }

    /// Plays on, as far as the input allows. Returns how many bytes of it were used.
    fn play(&mut self, io: &mut dyn Io, input: &[u8]) -> SessionResult<usize> {
        let (mut used, mut begun) = (0, 0);
        while self.ending.is_none() {
            match &mut self.waiting {
                Waiting::Ready if begun == MOST_AT_ONCE => {
                    // Steps that never wait must not keep the thread from other connections.
                    self.waiting = Waiting::Time;
                    io.set_timer(TIMER, Some(Duration::ZERO));
                }
                Waiting::Ready => {
                    begun += 1;
                    self.begin(io);
                }
                Waiting::Input => match self.judge(&input[used..])? {
                    Some(count) => {
                        self.received.push(&input[used..used + count]);
                        used += count;
                        io.set_timer(TIMER, None);
                    }
                    None => break,
                },
                Waiting::Time => break,
                Waiting::Room(bytes) => {
                    let taken = io.write(Leg::Client, bytes);
                    bytes.drain(..taken);
                    if !bytes.is_empty() {
                        break;
                    }
                    self.waiting = Waiting::Ready;
                    io.set_timer(TIMER, None);
                }
            }
        }
        if self.ending.is_some() {
            let left = &input[used..];
            let room = MOST_UNUSED.saturating_sub(self.unused.len()).min(left.len());
            self.unused.extend_from_slice(&left[..room]);
            used = input.len();
            self.tell(None);
        }
        Ok(used)
    }

    /// The step at hand.
    fn at_hand(&self) -> Option<(&Frame, &Step)> {
        let frame = self.frames.last()?;
        Some((frame, frame.block.get(frame.next)?))
    }

    /// Begins the next step, or ends the dialogue.
    fn begin(&mut self, io: &mut dyn Io) {
        let Some(frame) = self.frames.last_mut() else {
            self.ending = Some(Ending::Done);
            return io.close();
        };
        let block = Arc::clone(&frame.block);
        let Some(step) = block.get(frame.next) else {
            return self.end_block();
        };
        self.step = step.number;
        match &step.action {
            Action::Expect(Expectation::Silence(time)) => {
                self.waiting = Waiting::Input;
                io.set_timer(TIMER, Some(*time));
            }
            Action::Expect(_) | Action::Either(_) => self.wait_for_input(io, step),
            Action::AnyOrder(blocks) => {
                let depth = self.frames.len();
                if self.open_orders.last().is_none_or(|(at, _)| *at != depth) {
                    self.open_orders.push((depth, blocks.clone()));
                }
                self.wait_for_input(io, step);
            }
            Action::Send(pieces) => {
                let bytes = self.assembled(pieces);
                self.sent.push(&bytes);
                frame_of(&mut self.frames).next += 1;
                self.waiting = Waiting::Room(bytes);
                io.set_timer(TIMER, Some(self.timeout(step)));
            }
            Action::Wait(time) => {
                frame_of(&mut self.frames).next += 1;
                self.waiting = Waiting::Time;
                io.set_timer(TIMER, Some(*time));
            }
            Action::Repeat(count, inner) => {
                frame_of(&mut self.frames).next += 1;
                let frame = Frame { block: Arc::clone(inner), next: 0, rounds: count - 1 };
                self.frames.push(frame);
            }
            Action::ShutdownWrite => {
                frame_of(&mut self.frames).next += 1;
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
            Action::Close => {
                self.ending = Some(Ending::Done);
                io.close();
            }
            Action::Reset => {
                self.ending = Some(Ending::Done);
                io.abort();
            }
        }
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

    fn wait_for_input(&mut self, io: &mut dyn Io, step: &Step) {
        self.waiting = Waiting::Input;
        io.set_timer(TIMER, Some(self.timeout(step)));
    }

    fn assembled(&self, pieces: &[Piece]) -> Vec<u8> {
        let part = |piece: &Piece| match piece {
            Piece::Bytes(bytes) => bytes.to_vec(),
            Piece::Captured(name) => self.captures.get(name).cloned().unwrap_or_default(),
        };
        pieces.iter().flat_map(part).collect()
    }

    /// Judges the input by the step at hand. Returns how many bytes met it; None while it is open.
    fn judge(&mut self, input: &[u8]) -> SessionResult<Option<usize>> {
        let ended = self.rest.is_some();
        let Some((frame, step)) = self.at_hand() else { return Ok(None) };
        let block = Arc::clone(&frame.block);
        let at = frame.next;
        debug_assert_eq!(step.number, block[at].number);
        let step = &block[at];
        let blocks = match &step.action {
            Action::Expect(expectation) => {
                return match expectation.judge(input, ended) {
                    Verdict::Met { used, captures } => {
                        self.captures.extend(captures);
                        frame_of(&mut self.frames).next += 1;
                        self.waiting = Waiting::Ready;
                        Ok(Some(used))
                    }
                    Verdict::Open => Ok(None),
                    Verdict::Failed(why) => self.fail(step, input, &why).map(|()| None),
                };
            }
            Action::Either(blocks) => blocks.clone(),
            Action::AnyOrder(_) => {
                self.open_orders.last().map(|(_, left)| left.clone()).unwrap_or_default()
            }
            _ => return Ok(None),
        };
        let mut is_open = false;
        for (index, block) in blocks.iter().enumerate() {
            let Action::Expect(first) = &block[0].action else { continue };
            match first.judge(input, ended) {
                Verdict::Met { used, captures } => {
                    self.captures.extend(captures);
                    self.step = block[0].number;
                    self.choose(step, index, block);
                    return Ok(Some(used));
                }
                Verdict::Open => is_open = true,
                Verdict::Failed(_) => {}
            }
        }
        if is_open {
            return Ok(None);
        }
        let choices: Vec<_> = blocks.iter().map(|block| &*block[0].text).collect();
        let why = format!("none of: {}", choices.join("; "));
        self.fail(step, input, &why).map(|()| None)
    }

    /// Goes on behind the first step of a block of a choice.
    fn choose(&mut self, step: &Step, index: usize, block: &Block) {
        self.waiting = Waiting::Ready;
        let is_last = match (&step.action, self.open_orders.last_mut()) {
            (Action::AnyOrder(_), Some((_, left))) => {
                left.remove(index);
                left.is_empty()
            }
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

    fn fail(&mut self, step: &Step, input: &[u8], why: &str) -> SessionResult {
        let course =
            Course { steps: self.program.count, received: &self.received, sent: &self.sent };
        let text = report(step, input, why, &course);
        self.unused = input[..input.len().min(MOST_UNUSED)].to_vec();
        self.ending = Some(Ending::Failed(text.clone()));
        self.tell(Some(text.clone()));
        Err(SessionError(text))
    }

    /// The time of the step at hand is over.
    fn overdue(&mut self, io: &mut dyn Io) -> SessionResult {
        let Some((frame, step)) = self.at_hand() else { return Ok(()) };
        let (block, at) = (Arc::clone(&frame.block), frame.next);
        let is_silence = matches!(step.action, Action::Expect(Expectation::Silence(_)));
        match &self.waiting {
            Waiting::Input if is_silence => {
                frame_of(&mut self.frames).next += 1;
                self.waiting = Waiting::Ready;
                self.go_on(io)
            }
            Waiting::Input => {
                let seconds = self.timeout(&block[at]).as_secs_f64();
                let had = self.rest.clone().unwrap_or_else(|| self.unused.clone());
                self.fail(&block[at], &had, &format!("not met within {seconds} s"))
            }
            _ => Ok(()),
        }
    }

    /// Plays on without new input: the engine offers again what it has.
    fn go_on(&mut self, io: &mut dyn Io) -> SessionResult {
        match self.rest.take() {
            Some(mut rest) => {
                // That the peer has finished holds for the steps as well.
                self.rest = Some(Vec::new());
                let used = self.play(io, &rest)?;
                rest.drain(..used);
                self.rest = Some(rest);
            }
            None => {
                self.play(io, &[])?;
                if !self.is_paused {
                    io.resume(Leg::Client);
                }
            }
        }
        Ok(())
    }
}

fn frame_of(frames: &mut [Frame]) -> &mut Frame {
    frames.last_mut().expect("a step is in a block")
}

impl Session for Dialogue {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        self.play(io, &[]).map(drop)
    }

    fn bytes(&mut self, io: &mut dyn Io, _leg: Leg, input: &[u8]) -> SessionResult<usize> {
        let used = self.play(io, input)?;
        if self.ending.is_none() {
            // For the report, if no more comes.
            self.unused = input[used..].to_vec();
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
                self.waiting = Waiting::Ready;
                self.go_on(io)
            }
            Waiting::Room(_) => {
                // The step before is the one that sends.
                let frame = self.frames.last().expect("a step is in a block");
                let (block, at) = (Arc::clone(&frame.block), frame.next - 1);
                let seconds = self.timeout(&block[at]).as_secs_f64();
                let why = format!("the peer has not read it within {seconds} s");
                self.fail(&block[at], &[], &why)
            }
            Waiting::Input | Waiting::Ready => self.overdue(io),
        }
    }

    fn drain(&mut self, _io: &mut dyn Io) -> SessionResult<Drain> {
        Ok(if self.ending.is_some() { Drain::Finish } else { Drain::Hold })
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
        let by = why.name();
        let error = match self.at_hand() {
            Some((_, step)) => format!(
                "step {} of {}: {}: the connection ended before (closed by {by})",
                step.number, self.program.count, step.text
            ),
            None => format!("the connection ended before the script (closed by {by})"),
        };
        self.tell(Some(error));
    }

    fn input_limit(&self) -> usize {
        // One byte more than an expectation needs, so that it is judged before the engine gives up.
        self.program.most_input.max(64 * 1024) + 1
    }
}
