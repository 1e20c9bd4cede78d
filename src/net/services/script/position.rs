//! Where a dialogue is, for threads that look at it. Must never be waited for.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mismatch::{Head, place};
use super::program::Program;
use crate::net::base::Mutex;
use crate::net::services::dialogue::{Ongoing, ScriptResult, so_far};

/// What a step waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum For {
    #[default]
    Time,
    /// Input of the peer.
    Input,
    /// Input, which is not read meanwhile.
    Paused,
    /// Room for that many bytes.
    Room(usize),
}

/// The dialogue with one peer, as its thread has left it.
pub(super) struct Position {
    program: Arc<Program>,
    connection: u64,
    at: Mutex<At>,
}

/// What changes.
#[derive(Default)]
pub(super) struct At {
    pub(super) step: usize,
    pub(super) waits_for: For,
    pub(super) unused: Head,
    pub(super) captures: BTreeMap<Box<str>, Vec<u8>>,
}

impl Position {
    pub(super) fn new(program: &Arc<Program>, connection: u64) -> Self {
        Self { program: Arc::clone(program), connection, at: Mutex::default() }
    }

    pub(super) fn with<T>(&self, action: impl FnOnce(&mut At) -> T) -> T {
        action(&mut self.at.lock())
    }
}

impl Ongoing for Position {
    fn result(&self) -> ScriptResult {
        let at = self.at.lock();
        let steps = self.program.count;
        let position = self.program.step(at.step).map(|step| {
            let place = place(step, steps);
            let had = so_far(at.unused.total);
            match at.waits_for {
                For::Time => place,
                For::Input => format!("{place}, {had}"),
                For::Paused => format!("{place}, {had}, reading is paused"),
                For::Room(count) => format!("{place}, the peer has not read {count} bytes of it"),
            }
        });
        ScriptResult {
            connection: self.connection,
            done: false,
            step: at.step,
            steps,
            error: None,
            captures: listed(&at.captures),
            unused: at.unused.bytes.clone(),
            position: Some(position.unwrap_or_else(|| "before its first step".to_owned())),
        }
    }
}

/// Captures as a result has them.
pub(super) fn listed(captures: &BTreeMap<Box<str>, Vec<u8>>) -> Vec<(String, Vec<u8>)> {
    captures.iter().map(|(name, part)| (name.to_string(), part.clone())).collect()
}
