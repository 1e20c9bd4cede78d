//! The dialogue of a recording with one peer that sends datagrams. Must never answer a datagram
//! that is not in the recording.

use std::sync::Arc;
use std::time::Duration;

use super::mismatch::{Course, Found, left, place, report, seconds};
use super::plan::{Part, Plan, Playing, What};
use crate::net::services::dialogue::{ScriptResult, Tail, find};

/// Bytes of a datagram that a result keeps.
const MOST_UNUSED: usize = 1024;

/// One peer's part of a recording.
pub struct Exchange {
    plan: Arc<Plan>,
    playing: Arc<Playing>,
    /// The number that its result has.
    connection: u64,
    /// The event that is expected next.
    theirs: usize,
    /// The own event that is next.
    ours: usize,
    /// The event of the peer that was met last, for one that is sent again.
    last: Option<usize>,
    received: Tail,
    sent: Tail,
    unused: Vec<u8>,
}

/// What a datagram of the peer is.
pub(in crate::net) enum Taken {
    /// The next one of the recording.
    Next,
    /// The one of this event, once more.
    Again(usize),
}

impl Exchange {
    pub(in crate::net) fn new(plan: &Arc<Plan>, playing: &Arc<Playing>, connection: u64) -> Self {
        Self {
            theirs: plan.next_of(false, 0),
            ours: plan.next_of(true, 0),
            plan: Arc::clone(plan),
            playing: Arc::clone(playing),
            connection,
            last: None,
            received: Tail::default(),
            sent: Tail::default(),
            unused: Vec::new(),
        }
    }

    /// Takes a datagram of the peer. Returns the answers, or the report of a divergence.
    pub(super) fn receive(&mut self, data: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        match self.take(data)? {
            Taken::Next => Ok(self.begin(data)),
            Taken::Again(last) => Ok(self.between(last, self.theirs, data)),
        }
    }

    /// Compares a datagram of the peer. An error is the report of a divergence.
    pub(in crate::net) fn take(&mut self, data: &[u8]) -> Result<Taken, String> {
        let expected = self.plan.events.get(self.theirs);
        if expected.is_some_and(|event| self.is_met(&event.what, data)) {
            self.received.push(data);
            self.last = Some(self.theirs);
            self.theirs = self.plan.next_of(false, self.theirs + 1);
            return Ok(Taken::Next);
        }
        // A datagram may be lost, and is then sent again.
        if let Some(last) = self.last.filter(|_| self.is_again(data)) {
            return Ok(Taken::Again(last));
        }
        let peer = self.plan.side.peer();
        let why = match expected {
            None => format!("the {peer} sends more than was recorded"),
            Some(event) => format!(
                "the {peer} sends something else: {} bytes, and in the recording {}",
                data.len(),
                event.what.size()
            ),
        };
        self.unused = data[..data.len().min(MOST_UNUSED)].to_vec();
        let found = Found { part: 0, met: 0, input: data };
        Err(report(&self.course(), &why, Some(&found)))
    }

    /// The own datagrams that are next, with what they take over from `data`.
    pub(in crate::net) fn begin(&mut self, data: &[u8]) -> Vec<Vec<u8>> {
        let own = self.between(self.ours, self.theirs, data);
        own.iter().for_each(|datagram| self.sent.push(datagram));
        self.ours = self.plan.next_of(true, self.theirs.max(self.ours));
        own
    }

    /// How long the peer may take for its next datagram; None if there is none.
    pub(in crate::net) fn patience(&self) -> Option<Duration> {
        let is_left = self.theirs < self.plan.events.len();
        is_left.then(|| self.plan.gap(self.theirs).saturating_add(self.playing.timeout))
    }

    /// Whether everything was played.
    pub(super) fn is_done(&self) -> bool {
        self.theirs == self.plan.events.len() && self.ours == self.plan.events.len()
    }

    /// Whether the datagram is one that was met before.
    pub(super) fn is_again(&self, data: &[u8]) -> bool {
        self.last.is_some_and(|last| self.is_met(&self.plan.events[last].what, data))
    }

    /// The report of an end before that of the recording.
    pub(super) fn ended(&self) -> String {
        self.early("the server stopped before the end of the recording")
    }

    /// Why the end of the recording is none of the dialogue.
    pub(in crate::net) fn torn(&self) -> Option<String> {
        let torn = self.plan.torn.as_ref()?;
        Some(format!("{}: the recording is torn: {torn}", place(&self.course())))
    }

    /// The report of a datagram that did not come.
    pub(in crate::net) fn overdue(&self) -> String {
        let time = seconds(self.patience().unwrap_or_default());
        self.early(&format!("the {} did not go on within {time}", self.plan.side.peer()))
    }

    fn early(&self, why: &str) -> String {
        let left = left(&self.plan, self.theirs, 0, self.ours, 0);
        report(&self.course(), &format!("{why}: {left}"), None)
    }

    pub(in crate::net) fn result(&self, error: Option<String>) -> ScriptResult {
        let steps = self.plan.events.len();
        ScriptResult {
            connection: self.connection,
            done: error.is_none(),
            step: if error.is_none() { steps } else { steps.min(self.theirs + 1) },
            steps,
            error,
            captures: Vec::new(),
            unused: self.unused.clone(),
            position: None,
        }
    }

    /// The own datagrams between two events, which answer `data`.
    fn between(&self, from: usize, until: usize, data: &[u8]) -> Vec<Vec<u8>> {
        let events = self.plan.events.get(from..until).unwrap_or_default();
        let own = events.iter().filter(|event| event.is_ours).filter_map(|event| {
            let What::Bytes(parts) = &event.what else { return None };
            let Some(Part::Literal(bytes)) = parts.first() else { return Some(Vec::new()) };
            let mut answer = bytes.to_vec();
            for range in &self.playing.carry {
                if let (Some(to), Some(from)) =
                    (answer.get_mut(range.clone()), data.get(range.clone()))
                {
                    to.copy_from_slice(from);
                }
            }
            Some(answer)
        });
        own.collect()
    }

    /// Whether a datagram is that of the recording.
    fn is_met(&self, what: &What, data: &[u8]) -> bool {
        let What::Bytes(parts) = what else { return false };
        is_met(parts, data, &self.playing)
    }

    fn course(&self) -> Course<'_> {
        Course {
            plan: &self.plan,
            connection: Some(self.connection),
            event: self.theirs,
            received: &self.received,
            sent: &self.sent,
        }
    }
}

/// Whether a datagram is that of the recording, but for the bytes that are not compared.
fn is_met(parts: &[Part], data: &[u8], playing: &Playing) -> bool {
    let mut at = 0;
    let mut is_open = false;
    for (number, part) in parts.iter().enumerate() {
        match part {
            Part::Any => is_open = true,
            Part::Literal(bytes) if is_open && number + 1 == parts.len() => {
                return data[at..].ends_with(bytes);
            }
            Part::Literal(bytes) if is_open => {
                let Some(found) = find(&data[at..], bytes) else { return false };
                at += found + bytes.len();
                is_open = false;
            }
            Part::Literal(bytes) => {
                let Some(part) = data.get(at..at + bytes.len()) else { return false };
                let is_carried = |index| playing.carry.iter().any(|range| range.contains(&index));
                let mut pairs = bytes.iter().zip(part).zip(at..);
                if !pairs.all(|((one, other), index)| one == other || is_carried(index)) {
                    return false;
                }
                at += bytes.len();
            }
        }
    }
    is_open || at == data.len()
}
