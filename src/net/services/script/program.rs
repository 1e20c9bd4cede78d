//! The steps of a script. Owns their numbers; must never hold the state of a dialogue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::expectation::Expectation;
use super::pattern::Pattern;

/// How long a step may take, unless it says otherwise.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// A part of what a step sends.
#[derive(Debug)]
pub(super) enum Piece {
    Bytes(Box<[u8]>),
    /// What an expectation has captured under this name.
    Captured(Box<str>),
}

/// How a send is cut: the bytes of a slice, and the time between two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slices {
    pub(super) size: usize,
    pub(super) delay: Duration,
}

/// What a step does.
#[derive(Debug)]
pub(super) enum Action {
    Expect(Expectation),
    Send(Vec<Piece>, Option<Slices>),
    Wait(Duration),
    Repeat(u64, Block),
    /// One of the blocks again and again, until the last of them, an end, is met.
    RepeatUntilEnd(Vec<Block>),
    /// The first of the blocks whose first expectation is met.
    Either(Vec<Block>),
    /// Each of the blocks once, in the order in which their first expectations are met.
    AnyOrder(Vec<Block>),
    ShutdownWrite,
    Close,
    Reset,
    PauseReading,
    ResumeReading,
    /// TLS begins, with the script's certificate.
    StartTls,
}

/// One step.
#[derive(Debug)]
pub(super) struct Step {
    /// Its number in the script, from 1, in the order of writing.
    pub(super) number: usize,
    /// Its line in the text, from 1.
    pub(super) line: usize,
    /// The step as it is written; cut where it is long.
    pub(super) text: Box<str>,
    /// Where it was written: a file and a line.
    pub(super) source: Option<Box<str>>,
    /// How long it may take; None for the script's own.
    pub(super) timeout: Option<Duration>,
    pub(super) action: Action,
}

/// Steps in their order.
pub(super) type Block = Arc<[Step]>;

/// The steps of a script.
#[derive(Debug)]
pub struct Program {
    pub(super) steps: Block,
    pub(super) count: usize,
    pub(super) timeout: Duration,
    /// Bytes of input that an expectation may have to see at once.
    pub(super) most_input: usize,
    /// The line of its first step that begins TLS.
    pub(super) tls_line: Option<usize>,
    /// Its compiled patterns. A longer script with the same steps does not compile them again.
    pub(super) patterns: Patterns,
}

/// Compiled patterns by their text.
pub(super) type Patterns = BTreeMap<String, Arc<Pattern>>;

impl Program {
    /// The number of steps, those in blocks included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The step with a number.
    pub(super) fn step(&self, number: usize) -> Option<&Step> {
        step_of(&self.steps, number)
    }
}

fn step_of(block: &Block, number: usize) -> Option<&Step> {
    block.iter().find_map(|step| match &step.action {
        _ if step.number == number => Some(step),
        Action::Repeat(_, block) => step_of(block, number),
        Action::RepeatUntilEnd(blocks) | Action::Either(blocks) | Action::AnyOrder(blocks) => {
            blocks.iter().find_map(|block| step_of(block, number))
        }
        _ => None,
    })
}
