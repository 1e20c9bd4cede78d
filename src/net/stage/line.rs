//! Parts of a stream that a stage holds until a time, each with its own. Must never reorder them: a
//! part waits for those before it.

use std::collections::VecDeque;
use std::time::Instant;

use super::event::Part;

/// A part that is held.
#[derive(Debug)]
enum Held {
    Bytes(Vec<u8>),
    End,
    Failure(i32),
}

impl Held {
    fn part(&self) -> Part<'_> {
        match self {
            Self::Bytes(bytes) => Part::Bytes(bytes),
            Self::End => Part::End,
            Self::Failure(errno) => Part::Failure(*errno),
        }
    }
}

impl From<Part<'_>> for Held {
    fn from(part: Part<'_>) -> Self {
        match part {
            Part::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            Part::End => Self::End,
            Part::Failure(errno) => Self::Failure(errno),
        }
    }
}

/// What is held of one direction, in order.
#[derive(Debug, Default)]
pub struct Line {
    held: VecDeque<(Instant, Held)>,
    bytes: usize,
}

impl Line {
    /// Holds a part until `at`, at least as long as the part before it.
    pub fn push(&mut self, at: Instant, part: Part<'_>) {
        let at = self.last().map_or(at, |last| last.max(at));
        self.bytes += part.len();
        self.held.push_back((at, part.into()));
    }

    /// Passes on the parts whose time has come.
    pub fn pass_due(&mut self, now: Instant, pass: &mut dyn FnMut(Part<'_>)) {
        while self.next().is_some_and(|at| at <= now) {
            self.pass_first(pass);
        }
    }

    /// Passes on all of it.
    pub fn pass_all(&mut self, pass: &mut dyn FnMut(Part<'_>)) {
        while !self.is_empty() {
            self.pass_first(pass);
        }
        // What a burst has needed is not kept.
        self.held = VecDeque::new();
    }

    fn pass_first(&mut self, pass: &mut dyn FnMut(Part<'_>)) {
        if let Some((_, held)) = self.held.pop_front() {
            let part = held.part();
            self.bytes -= part.len();
            pass(part);
        }
    }

    /// When the first part is passed on; None if nothing is held.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.held.front().map(|&(at, _)| at)
    }

    /// When the last part is passed on; None if nothing is held.
    #[must_use]
    pub fn last(&self) -> Option<Instant> {
        self.held.back().map(|&(at, _)| at)
    }

    /// Bytes that are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// How many parts are held.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.held.len()
    }

    /// Whether nothing is held, not even an end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
