//! The playing of one side of a recorded connection: what has come, what is sent next. Must never
//! know a socket or a clock; it is told the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::mismatch::{Course, Found, left, place, report, seconds};
use super::plan::{Chunks, Part, Plan, Playing, Side, What};
use super::position::{Position, Spot};
use crate::net::services::dialogue::{ScriptResult, Tail, find};

/// A piece up to this size arrives whole, if it was sent whole: a segment of a stream can be
/// smaller than a larger one.
const WHOLE: usize = 1024;
/// How much of what follows bytes that were not recorded is looked for as their end.
const NEEDLE: usize = 256;
/// The most bytes that stand for those that were not recorded.
const MOST_ANY: usize = 64 * 1024;
/// Bytes of unused input that a result keeps.
const MOST_UNUSED: usize = 1024;

/// What the side that is played does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// It sends `unsent`.
    Send,
    /// It sends FIN.
    Finish,
    /// It sends RST.
    Reset,
    /// Nothing for this time.
    Wait(Duration),
    /// It waits for the peer, which may take that long; None for as long as it likes.
    Peer(Option<Duration>),
    /// Everything was played.
    Done,
}

/// One side of a dialogue.
pub struct Player {
    plan: Arc<Plan>,
    playing: Arc<Playing>,
    /// The number of the connection at the server, where this is the server's side.
    connection: Option<u64>,
    /// The event of the peer that is at hand, its part, and the bytes of the part that have come.
    theirs: usize,
    part: usize,
    met: usize,
    /// The bytes so far that stand for those that were not recorded, until what follows them
    /// comes.
    open: Option<usize>,
    /// The own event that is next, and the bytes of it that are sent.
    ours: usize,
    sent: usize,
    opened: Instant,
    /// When each event was, by its index. Kept with a speed only.
    times: Vec<Option<Instant>>,
    received: Tail,
    told: Tail,
    unused: Vec<u8>,
}

impl Player {
    /// The side of a plan, from its first event on.
    pub(in crate::net) fn new(
        plan: &Arc<Plan>,
        playing: &Arc<Playing>,
        connection: Option<u64>,
        now: Instant,
    ) -> Self {
        let events = if playing.speed.is_some() { plan.events.len() } else { 0 };
        Self {
            plan: Arc::clone(plan),
            playing: Arc::clone(playing),
            connection,
            theirs: plan.next_of(false, 0),
            part: 0,
            met: 0,
            open: None,
            ours: plan.next_of(true, 0),
            sent: 0,
            opened: now,
            times: vec![None; events],
            received: Tail::default(),
            told: Tail::default(),
            unused: Vec::new(),
        }
    }

    /// Takes bytes of the peer. Returns how many were used; the others come again with what
    /// follows. An error is the report of a divergence.
    pub(in crate::net) fn receive(&mut self, input: &[u8], now: Instant) -> Result<usize, String> {
        let plan = Arc::clone(&self.plan);
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            let Some(What::Bytes(parts)) = plan.what(self.theirs) else {
                self.receive_behind(rest)?;
                return Ok(input.len());
            };
            self.check_order(rest)?;
            match &parts[self.part] {
                Part::Any => {
                    self.open = Some(0);
                    self.end_part(now);
                }
                Part::Literal(bytes) if self.open.is_some() => {
                    used += self.skip_up_to(bytes, rest)?;
                    if self.open.is_some() {
                        break;
                    }
                }
                Part::Literal(bytes) => used += self.compare(bytes, rest, now)?,
            }
        }
        self.check_piece()?;
        Ok(used)
    }

    /// Takes bytes behind the last ones of the recording.
    fn receive_behind(&mut self, input: &[u8]) -> Result<(), String> {
        // Bytes that were not recorded may be the last ones.
        if self.open.is_some() {
            return self.skip(input);
        }
        let why = format!("the {} sends more than was recorded", self.peer());
        Err(self.fail(&why, Some(input)))
    }

    /// An error if a piece of the peer must not begin yet.
    fn check_order(&mut self, input: &[u8]) -> Result<(), String> {
        if !self.is_exact() || !self.at_start() || self.ours >= self.theirs {
            return Ok(());
        }
        let why = format!(
            "the {} sends this before it was sent what precedes it in the recording",
            self.peer()
        );
        Err(self.fail(&why, Some(input)))
    }

    /// Takes bytes that were not recorded, up to these that follow them; `open` says whether they
    /// are still to come. Returns how many bytes were used.
    fn skip_up_to(&mut self, bytes: &[u8], input: &[u8]) -> Result<usize, String> {
        let needle = &bytes[..bytes.len().min(NEEDLE)];
        let found = find(input, needle);
        // The end of the input may be the beginning of it.
        let count = found.unwrap_or_else(|| (input.len() + 1).saturating_sub(needle.len()));
        self.skip(&input[..count])?;
        if found.is_some() {
            self.open = None;
        }
        Ok(count)
    }

    /// Takes bytes that are those of the part at hand. Returns how many were used.
    fn compare(&mut self, bytes: &[u8], input: &[u8], now: Instant) -> Result<usize, String> {
        let wanted = &bytes[self.met..];
        let length = wanted.len().min(input.len());
        if wanted[..length] != input[..length] {
            let same = wanted.iter().zip(input).take_while(|(a, b)| a == b).count();
            self.received.push(&input[..same]);
            self.met += same;
            let why = format!("the {} sends something else", self.peer());
            return Err(self.fail(&why, Some(&input[same..])));
        }
        self.received.push(&input[..length]);
        self.met += length;
        if self.met == bytes.len() {
            self.end_part(now);
        }
        Ok(length)
    }

    /// An error if a piece of the peer has ended within one of the recording that fits a segment,
    /// where the pieces must be those of the recording.
    fn check_piece(&mut self) -> Result<(), String> {
        if !self.is_exact() || self.at_start() {
            return Ok(());
        }
        let Some(what) = self.plan.what(self.theirs) else { return Ok(()) };
        let What::Bytes(parts) = what else { return Ok(()) };
        let size = what.size();
        if size > WHOLE || parts.contains(&Part::Any) {
            return Ok(());
        }
        let why = format!(
            "the {} sends {} bytes at once, and in the recording {size}",
            self.peer(),
            self.met
        );
        Err(self.fail(&why, Some(&[])))
    }

    /// The peer has finished. `rest` is what it sent before, as far as it was not used.
    pub(in crate::net) fn finished(&mut self, rest: &[u8], now: Instant) -> Result<(), String> {
        if !rest.is_empty() {
            // It was kept as the possible beginning of what ends bytes that were not recorded.
            let is_last = !matches!(self.plan.what(self.theirs), Some(What::Bytes(_)));
            if is_last {
                self.skip(rest)?;
            }
        }
        match self.plan.what(self.theirs) {
            None => Ok(()),
            Some(What::Reset) if self.is_exact() => {
                let why =
                    format!("the {} finishes (FIN), and in the recording resets", self.peer());
                Err(self.fail(&why, None))
            }
            Some(What::End | What::Reset) => {
                self.end_event(now);
                Ok(())
            }
            Some(What::Bytes(_)) => {
                let why = format!("the {} finishes (FIN) too early: {}", self.peer(), self.left());
                Err(self.fail(&why, Some(rest)))
            }
        }
    }

    /// The connection has ended, other than by what the recording has. The report, unless this is
    /// how it ended there.
    pub(in crate::net) fn closed(
        &mut self,
        by: &str,
        is_reset: bool,
        now: Instant,
    ) -> Option<String> {
        if is_reset {
            match self.plan.what(self.theirs) {
                Some(What::End) if self.is_exact() => {
                    let why =
                        format!("the {} resets, and in the recording finishes (FIN)", self.peer());
                    return Some(self.fail(&why, None));
                }
                Some(What::End | What::Reset) => self.end_event(now),
                _ => {}
            }
        }
        // One that resets has done all that it did in the recording, whatever it has not read.
        let is_over = is_reset && !self.is_exact() && self.theirs == self.plan.events.len();
        if is_over || self.has_ends_only() {
            return self.torn();
        }
        let why = format!("the connection ended too early (closed by {by}): {}", self.left());
        Some(self.fail(&why, None))
    }

    /// The peer has not done in time what is expected of it.
    pub(in crate::net) fn overdue(&mut self, input: &[u8]) -> String {
        let Some(patience) = self.patience() else {
            let time = seconds(self.playing.timeout);
            let why = format!("the {} has not read it within {time}", self.peer());
            return self.fail(&why, None);
        };
        let why = format!(
            "the {} did not go on within {}: {}",
            self.peer(),
            seconds(patience),
            self.left()
        );
        self.fail(&why, Some(input))
    }

    /// What the own side does next.
    pub(in crate::net) fn next(&mut self, now: Instant) -> Next {
        let Some(event) = self.plan.events.get(self.ours) else {
            let is_done = self.theirs == self.plan.events.len();
            return if is_done { Next::Done } else { Next::Peer(self.patience()) };
        };
        if self.theirs < self.ours {
            return Next::Peer(self.patience());
        }
        if let Some(wait) = self.due().map(|due| due.saturating_duration_since(now)) {
            if !wait.is_zero() && self.sent == 0 {
                return Next::Wait(wait);
            }
        }
        match event.what {
            What::Bytes(_) => Next::Send,
            What::End => Next::Finish,
            What::Reset => Next::Reset,
        }
    }

    /// What of the own event at hand is not sent.
    pub(in crate::net) fn unsent(&self) -> &[u8] {
        match self.plan.what(self.ours) {
            Some(What::Bytes(parts)) => match parts.first() {
                Some(Part::Literal(bytes)) => &bytes[self.sent..],
                _ => &[],
            },
            _ => &[],
        }
    }

    /// This number of bytes of `unsent` was sent.
    pub(in crate::net) fn sent(&mut self, count: usize) {
        let sent = self.unsent()[..count].to_vec();
        self.told.push(&sent);
        self.sent += count;
        if self.unsent().is_empty() {
            self.did();
        }
    }

    /// The own event at hand is done.
    pub(in crate::net) fn did(&mut self) {
        // When it was due: a delay of this machine does not delay the events that follow.
        let due = self.due();
        if let Some(time) = self.times.get_mut(self.ours) {
            *time = due;
        }
        self.ours = self.plan.next_of(true, self.ours + 1);
        self.sent = 0;
    }

    /// Whether the next own event is to leave in a piece of its own.
    pub(in crate::net) fn keeps_pieces(&self) -> bool {
        self.is_exact()
    }

    /// Whether nothing but ends is left.
    pub(in crate::net) fn has_ends_only(&self) -> bool {
        self.sent == 0 && self.has_ends_only_from(self.ours)
    }

    /// Whether nothing but ends is left behind the bytes that are sent next.
    pub(in crate::net) fn sends_last(&self) -> bool {
        self.has_ends_only_from(self.ours + 1)
    }

    /// The same, of the own events from one on.
    fn has_ends_only_from(&self, ours: usize) -> bool {
        let events = self.plan.events.iter().enumerate();
        self.at_start()
            && events
                .skip(ours.min(self.theirs))
                .filter(|(at, event)| *at >= if event.is_ours { ours } else { self.theirs })
                .all(|(_, event)| !matches!(event.what, What::Bytes(_)))
    }

    /// Why the end of the recording is none of the dialogue.
    pub(in crate::net) fn torn(&self) -> Option<String> {
        let torn = self.plan.torn.as_ref()?;
        Some(format!("{}: the recording is torn: {torn}", place(&self.course())))
    }

    /// How the dialogue went, or goes.
    pub(in crate::net) fn result(&self, error: Option<String>) -> ScriptResult {
        let steps = self.plan.events.len();
        ScriptResult {
            connection: self.connection.unwrap_or(self.plan.connection),
            done: error.is_none(),
            step: if error.is_none() { steps } else { steps.min(self.ours.min(self.theirs) + 1) },
            steps,
            error,
            captures: Vec::new(),
            unused: self.unused.clone(),
            position: None,
        }
    }

    /// The position at the beginning, for other threads.
    pub(super) fn position(&self) -> Position {
        Position::new(&self.plan, self.connection.unwrap_or(self.plan.connection), self.spot())
    }

    /// Where the dialogue is.
    pub(super) fn spot(&self) -> Spot {
        Spot { theirs: self.theirs, met: self.met_of_event(), ours: self.ours, sent: self.sent }
    }

    /// How long the peer may take for the event at hand.
    fn patience(&self) -> Option<Duration> {
        let event = self.plan.events.get(self.theirs)?;
        if self.theirs > self.ours {
            return None;
        }
        // A client may leave its connection open for as long as it likes.
        if self.plan.side == Side::Server && !matches!(event.what, What::Bytes(_)) {
            return None;
        }
        let gap = self.plan.gap(self.theirs);
        Some(gap.max(self.playing.scaled(gap)).saturating_add(self.playing.timeout))
    }

    /// When the own event at hand is due; None without a speed.
    fn due(&self) -> Option<Instant> {
        self.playing.speed?;
        let before = match self.ours.checked_sub(1) {
            Some(before) => self.times.get(before).copied().flatten(),
            None => Some(self.opened),
        };
        before?.checked_add(self.playing.scaled(self.plan.gap(self.ours)))
    }

    /// Takes bytes that stand for those that were not recorded.
    fn skip(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.received.push(bytes);
        let taken = self.open.unwrap_or(0) + bytes.len();
        self.open = Some(taken);
        if taken > MOST_ANY {
            let why = format!(
                "the {} sends more than {MOST_ANY} bytes in place of redacted ones",
                self.peer()
            );
            return Err(self.fail(&why, Some(bytes)));
        }
        Ok(())
    }

    fn end_part(&mut self, now: Instant) {
        self.part += 1;
        self.met = 0;
        if let Some(What::Bytes(parts)) = self.plan.what(self.theirs) {
            if self.part == parts.len() {
                self.end_event(now);
            }
        }
    }

    fn end_event(&mut self, now: Instant) {
        if let Some(time) = self.times.get_mut(self.theirs) {
            *time = Some(now);
        }
        (self.part, self.met) = (0, 0);
        self.theirs = self.plan.next_of(false, self.theirs + 1);
    }

    fn at_start(&self) -> bool {
        self.part == 0 && self.met == 0
    }

    fn is_exact(&self) -> bool {
        self.playing.chunks == Chunks::Exact
    }

    fn peer(&self) -> &'static str {
        self.plan.side.peer()
    }

    /// Bytes of the peer's event at hand that have come.
    fn met_of_event(&self) -> usize {
        match self.plan.what(self.theirs) {
            Some(What::Bytes(parts)) => {
                let before = What::Bytes(parts[..self.part].into());
                before.size() + self.met
            }
            _ => 0,
        }
    }

    fn left(&self) -> String {
        left(&self.plan, self.theirs, self.met_of_event(), self.ours, self.sent)
    }

    fn course(&self) -> Course<'_> {
        Course {
            plan: &self.plan,
            connection: self.connection,
            event: self.theirs,
            received: &self.received,
            sent: &self.told,
        }
    }

    /// The report of a divergence, by the input that was not met.
    pub(super) fn fail(&mut self, why: &str, input: Option<&[u8]>) -> String {
        let found = input.map(|input| Found { part: self.part, met: self.met, input });
        let text = report(&self.course(), why, found.as_ref());
        if let Some(input) = input {
            self.unused = input[..input.len().min(MOST_UNUSED)].to_vec();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::PlanEvent;
    use super::*;

    const OURS: bool = true;
    const THEIRS: bool = false;

    fn bytes(text: &str) -> What {
        // "*" is what was not recorded.
        let parts = text.split_inclusive('*').flat_map(|piece| match piece.strip_suffix('*') {
            Some("") => vec![Part::Any],
            Some(before) => vec![Part::Literal(before.as_bytes().into()), Part::Any],
            None => vec![Part::Literal(piece.as_bytes().into())],
        });
        What::Bytes(parts.collect())
    }

    fn player(events: &[(bool, f64, What)], chunks: Chunks, speed: Option<f64>) -> Player {
        let events = events.iter().enumerate().map(|(index, (is_ours, at, what))| PlanEvent {
            line: index as u64 + 3,
            at: Duration::from_secs_f64(*at),
            is_ours: *is_ours,
            what: what.clone(),
        });
        let plan = Plan {
            file: "x.rec".into(),
            connection: 1,
            side: Side::Server,
            is_datagram: false,
            events: events.collect(),
            torn: None,
            tls: None,
        };
        let timeout = Duration::from_secs(5);
        let playing = Playing { chunks, speed, timeout, carry: Vec::new() };
        Player::new(&Arc::new(plan), &Arc::new(playing), Some(7), Instant::now())
    }

    fn dialogue() -> Vec<(bool, f64, What)> {
        vec![
            (OURS, 0.0, bytes("hi")),
            (THEIRS, 0.5, bytes("abc")),
            (THEIRS, 1.0, bytes("def")),
            (OURS, 3.0, bytes("ok")),
            (THEIRS, 4.0, What::End),
            (OURS, 4.0, What::End),
        ]
    }

    /// What is sent until the player waits or is done.
    fn told(player: &mut Player, now: Instant) -> (Vec<u8>, Next) {
        let mut told = Vec::new();
        loop {
            match player.next(now) {
                Next::Send => {
                    told.extend_from_slice(player.unsent());
                    player.sent(player.unsent().len());
                }
                Next::Finish => {
                    told.push(b'.');
                    player.did();
                }
                next => return (told, next),
            }
        }
    }

    #[test]
    fn an_answer_follows_what_preceded_it_however_it_was_cut() {
        let now = Instant::now();
        for size in 1..8 {
            let mut player = player(&dialogue(), Chunks::Lenient, None);
            assert_eq!(told(&mut player, now).0, b"hi");
            for piece in b"abcdef".chunks(size) {
                assert!(!player.has_ends_only());
                assert_eq!(told(&mut player, now).0, b"");
                assert_eq!(player.receive(piece, now), Ok(piece.len()));
            }
            assert_eq!(told(&mut player, now), (b"ok".to_vec(), Next::Peer(None)));
            assert!(player.has_ends_only());
            assert_eq!(player.finished(b"", now), Ok(()));
            assert_eq!(told(&mut player, now), (b".".to_vec(), Next::Done));
            assert!(player.result(None).done);
        }
    }

    #[test]
    fn a_difference_is_told_with_its_place_and_both_sides() {
        let now = Instant::now();
        let mut player = player(&dialogue(), Chunks::Lenient, None);
        told(&mut player, now);
        assert_eq!(player.receive(b"abcd", now), Ok(4));
        let report = player.receive(b"Ef", now).unwrap_err();
        let lines: Vec<_> = report.lines().collect();
        assert_eq!(
            lines,
            [
                "connection 7: x.rec, line 5 (its connection 1): the client sends something else",
                "  expected b\"def\"",
                "    64 65 66",
                "  received b\"dEf\"",
                "    64 45 66",
                "  first difference at byte 1: expected b\"e\", received b\"E\"",
                "  before it: received b\"abcd\", sent b\"hi\"",
            ]
        );
        let result = player.result(Some(report));
        assert_eq!((result.done, result.step, result.steps), (false, 3, 6));
        assert_eq!(result.unused, b"Ef");
    }

    #[test]
    fn an_end_that_comes_early_says_what_is_missing() {
        let now = Instant::now();
        let mut player = player(&dialogue(), Chunks::Lenient, None);
        told(&mut player, now);
        assert_eq!(player.receive(b"abcd", now), Ok(4));
        let report = player.finished(b"", now).unwrap_err();
        assert!(
            report.contains("2 bytes of the client did not come, and 2 bytes for it"),
            "{report}"
        );
    }

    #[test]
    fn more_than_was_recorded_is_a_divergence() {
        let now = Instant::now();
        let mut player = player(&dialogue(), Chunks::Lenient, None);
        told(&mut player, now);
        let report = player.receive(b"abcdefg", now).unwrap_err();
        assert!(report.contains("sends more than was recorded"), "{report}");
        assert!(report.contains("expected the end (FIN)"), "{report}");
    }

    #[test]
    fn pieces_matter_where_they_are_to_be_exact() {
        let now = Instant::now();
        let exact = || {
            let mut player = player(&dialogue(), Chunks::Exact, None);
            told(&mut player, now);
            player
        };
        let mut both = exact();
        // Nothing was sent between them, so TCP may join them.
        assert_eq!(both.receive(b"abcdef", now), Ok(6));
        let report = exact().receive(b"ab", now).unwrap_err();
        assert!(report.contains("sends 2 bytes at once, and in the recording 3"), "{report}");
        let events =
            [(THEIRS, 0.0, bytes("a")), (OURS, 0.0, bytes("b")), (THEIRS, 0.0, bytes("c"))];
        let report = player(&events, Chunks::Exact, None).receive(b"ac", now).unwrap_err();
        assert!(report.contains("before it was sent what precedes it"), "{report}");
    }

    #[test]
    fn what_was_not_recorded_may_be_anything() {
        let now = Instant::now();
        let events = [
            (THEIRS, 0.0, bytes("user *\n")),
            (OURS, 0.0, bytes("ok")),
            (THEIRS, 0.0, bytes("pass *")),
            (OURS, 0.0, bytes("in")),
            (THEIRS, 0.0, bytes("quit")),
        ];
        for size in 1..30 {
            let mut player = player(&events, Chunks::Lenient, None);
            let (mut said, mut rest) = (Vec::new(), Vec::new());
            for part in [&b"user me too\n"[..], b"pass se\ncret", b"quit"] {
                for piece in part.chunks(size) {
                    rest.extend_from_slice(piece);
                    let used = player.receive(&rest, now).unwrap();
                    rest.drain(..used);
                    said.extend(told(&mut player, now).0);
                }
            }
            assert_eq!(said, b"okin", "{size}");
            assert_eq!(player.next(now), Next::Done);
        }
        let mut other = player(&events, Chunks::Lenient, None);
        assert!(other.receive(b"uses", now).is_err());
        let mut endless = player(&events, Chunks::Lenient, None);
        let report = endless.receive(&[b"user ".as_slice(), &[b'x'; 70_000]].concat(), now);
        assert!(report.unwrap_err().contains("in place of redacted ones"));
    }

    #[test]
    fn answers_come_as_late_as_in_the_recording() {
        let mut player = player(&dialogue(), Chunks::Lenient, Some(2.0));
        let begin = player.opened;
        assert_eq!(told(&mut player, begin).0, b"hi");
        let late = begin + Duration::from_secs(10);
        assert_eq!(player.receive(b"abcdef", late), Ok(6));
        assert_eq!(told(&mut player, late).1, Next::Wait(Duration::from_secs(1)));
        let due = late + Duration::from_secs(1);
        assert_eq!(told(&mut player, due).0, b"ok");
    }

    #[test]
    fn the_peer_has_the_recorded_time_and_some_more() {
        let now = Instant::now();
        let mut player = player(&dialogue(), Chunks::Lenient, None);
        let (_, next) = told(&mut player, now);
        assert_eq!(next, Next::Peer(Some(Duration::from_millis(5_500))));
        assert!(player.overdue(b"").contains("did not go on within 5.5 s"));
    }

    #[test]
    fn a_reset_in_place_of_an_end_is_one_only_where_it_must_be_exact() {
        let now = Instant::now();
        for chunks in [Chunks::Lenient, Chunks::Exact] {
            let mut player = player(&dialogue(), chunks, None);
            told(&mut player, now);
            assert_eq!(
                player.receive(b"abc", now).and_then(|_| player.receive(b"def", now)),
                Ok(3)
            );
            told(&mut player, now);
            let report = player.closed("reset", true, now);
            assert_eq!(report.is_some(), chunks == Chunks::Exact, "{report:?}");
        }
    }
}
