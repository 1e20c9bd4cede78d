//! Where the playing of a recording is, for threads that look at it. Must never be waited for.

use std::sync::Arc;

use super::plan::{Part, Plan, What};
use crate::net::base::{Mutex, quoted};
use crate::net::services::dialogue::{Ongoing, ScriptResult, so_far};

/// Bytes that are shown.
const SHOWN: usize = 48;

/// What was played: the events of both sides that are next, and how much of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) theirs: usize,
    pub(super) met: usize,
    pub(super) ours: usize,
    pub(super) sent: usize,
}

/// The dialogue with one client, as its thread has left it.
pub(super) struct Position {
    plan: Arc<Plan>,
    connection: u64,
    at: Mutex<Spot>,
}

impl Position {
    pub(super) fn new(plan: &Arc<Plan>, connection: u64, spot: Spot) -> Self {
        Self { plan: Arc::clone(plan), connection, at: Mutex::new(spot) }
    }

    pub(super) fn connection(&self) -> u64 {
        self.connection
    }

    pub(super) fn set(&self, spot: Spot) {
        *self.at.lock() = spot;
    }

    fn text(&self, spot: Spot) -> String {
        let plan = &self.plan;
        let is_theirs = spot.theirs < spot.ours;
        let at = if is_theirs { spot.theirs } else { spot.ours };
        let Some(event) = plan.events.get(at) else {
            return format!("{}, behind the end of its connection {}", plan.file, plan.connection);
        };
        let place =
            format!("{}, line {} (its connection {})", plan.file, event.line, plan.connection);
        let verb = if is_theirs { "expects" } else { "sends" };
        let what = match &event.what {
            What::Bytes(parts) => shown(parts),
            What::End => "the end (FIN)".to_owned(),
            What::Reset => "a reset (RST)".to_owned(),
        };
        match event.what {
            What::Bytes(_) if is_theirs => {
                format!("{place}: {verb} {what}, {}", so_far(spot.met))
            }
            What::Bytes(_) if spot.sent > 0 => {
                format!("{place}: {verb} {what}, {} of its bytes are sent", spot.sent)
            }
            _ => format!("{place}: {verb} {what}"),
        }
    }
}

/// The first literal part of an event.
fn shown(parts: &[Part]) -> String {
    let literal = parts.iter().find_map(|part| match part {
        Part::Literal(bytes) => Some(bytes),
        Part::Any => None,
    });
    match literal {
        Some(bytes) => {
            let more = parts.len() > 1 || bytes.len() > SHOWN;
            let end = if more { "…" } else { "" };
            format!("{}{end}", quoted(&bytes[..bytes.len().min(SHOWN)], '"'))
        }
        None => "any bytes".to_owned(),
    }
}

impl Ongoing for Position {
    fn result(&self) -> ScriptResult {
        let spot = *self.at.lock();
        let steps = self.plan.events.len();
        ScriptResult {
            connection: self.connection,
            done: false,
            step: steps.min(spot.ours.min(spot.theirs) + 1),
            steps,
            error: None,
            captures: Vec::new(),
            unused: Vec::new(),
            position: Some(self.text(spot)),
        }
    }
}
