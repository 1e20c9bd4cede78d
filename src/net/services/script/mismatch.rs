//! The report of a divergence: the step, what it waited for, what came, what was before. Must never
//! be longer than a person reads.

use std::fmt::Write;

use super::expectation::Expectation;
use super::program::{Action, Step};
use crate::net::services::dialogue::{Tail, push_compared, push_part};

/// The first bytes of unused input, for a report and a result.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub(super) bytes: Vec<u8>,
    pub(super) total: usize,
}

/// Bytes of unused input that a result keeps.
const KEPT: usize = 1024;

impl From<&[u8]> for Head {
    fn from(input: &[u8]) -> Self {
        Self { bytes: input[..input.len().min(KEPT)].to_vec(), total: input.len() }
    }
}

/// What a dialogue had come to.
pub(super) struct Course<'a> {
    pub(super) steps: usize,
    pub(super) received: &'a Tail,
    pub(super) sent: &'a Tail,
}

/// A step: its number, its source line, its text.
pub(super) fn place(step: &Step, steps: usize) -> String {
    let mut text = format!("step {} of {steps}", step.number);
    if let Some(source) = &step.source {
        write!(text, " ({source})").expect("writing to a String cannot fail");
    }
    write!(text, ": {}", step.text).expect("writing to a String cannot fail");
    text
}

/// The report of a step that was not met, by the input that was left for it: its first bytes, and
/// how many there were. `why` may be empty.
pub(super) fn report(
    step: &Step,
    (input, total): (&[u8], usize),
    why: &str,
    course: &Course<'_>,
) -> String {
    let mut text = place(step, course.steps);
    if !why.is_empty() {
        write!(text, ": {why}").expect("writing to a String cannot fail");
    }
    if let Action::Expect(Expectation::Exactly { bytes, ignore_case }) = &step.action {
        push_compared(&mut text, (bytes, *ignore_case), (input, total));
    } else {
        push_part(&mut text, "received", input, (0, total));
    }
    let (received, sent) = (course.received.text(), course.sent.text());
    write!(text, "\n  before it: received {received}, sent {sent}").expect("writing cannot fail");
    text
}
