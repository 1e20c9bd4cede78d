//! Parts of a stream that a stage holds until a time, each with its own. Must never reorder them: a
//! part waits for those before it.

use std::collections::VecDeque;
use std::time::Instant;

use super::event::Part;
use super::queue::Queue;

/// What is held of one direction, in order. The bytes of all parts are in one block: thousands of
/// small blocks that come and go would leave holes in the memory of the process.
#[derive(Debug)]
pub struct Line {
    parts: Queue,
    /// When each part is passed on.
    times: VecDeque<Instant>,
}

impl Default for Line {
    fn default() -> Self {
        // Of datagrams, because an empty part is held as well.
        Self { parts: Queue::of_datagrams(), times: VecDeque::new() }
    }
}

impl Line {
    /// Holds a part until `at`, at least as long as the part before it.
    pub fn push(&mut self, at: Instant, part: Part<'_>) {
        let at = self.last().map_or(at, |last| last.max(at));
        self.times.push_back(at);
        self.parts.push(part);
    }

    /// Passes on the parts whose time has come.
    pub fn pass_due(&mut self, now: Instant, pass: &mut dyn FnMut(Part<'_>)) {
        while self.next().is_some_and(|at| at <= now) {
            self.pass_first(pass);
        }
        self.free();
    }

    /// Passes on all of it.
    pub fn pass_all(&mut self, pass: &mut dyn FnMut(Part<'_>)) {
        while !self.is_empty() {
            self.pass_first(pass);
        }
        self.free();
    }

    fn pass_first(&mut self, pass: &mut dyn FnMut(Part<'_>)) {
        self.times.pop_front();
        if let Some(part) = self.parts.front() {
            let count = part.len();
            pass(part);
            self.parts.consume(count);
        }
    }

    /// Gives the memory back once nothing is held.
    fn free(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// When the first part is passed on; None if nothing is held.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.times.front().copied()
    }

    /// When the last part is passed on; None if nothing is held.
    #[must_use]
    pub fn last(&self) -> Option<Instant> {
        self.times.back().copied()
    }

    /// Bytes that are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// How many parts are held.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.times.len()
    }

    /// Whether nothing is held, not even an end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }
}
