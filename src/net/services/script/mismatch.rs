//! The report of a divergence: the step, what it waited for, what came, what was before. Must never
//! be longer than a person reads.

use std::fmt::Write;

use super::expectation::Expectation;
use super::program::{Action, Step};
use crate::net::services::dialogue::{Tail, push_bytes, push_difference};

/// What a dialogue had come to.
pub(super) struct Course<'a> {
    pub(super) steps: usize,
    pub(super) received: &'a Tail,
    pub(super) sent: &'a Tail,
}

/// The report of a step that was not met, by the input that was left for it. `why` may be empty.
pub(super) fn report(step: &Step, input: &[u8], why: &str, course: &Course<'_>) -> String {
    let mut text = format!("step {} of {}", step.number, course.steps);
    if let Some(source) = &step.source {
        write!(text, " ({source})").expect("writing to a String cannot fail");
    }
    write!(text, ": {}", step.text).expect("writing to a String cannot fail");
    if !why.is_empty() {
        write!(text, ": {why}").expect("writing to a String cannot fail");
    }
    let expected = match &step.action {
        Action::Expect(Expectation::Exactly(bytes)) => Some(&**bytes),
        _ => None,
    };
    if let Some(expected) = expected {
        push_bytes(&mut text, "expected", expected);
    }
    push_bytes(&mut text, "received", input);
    if let Some(expected) = expected {
        push_difference(&mut text, expected, input);
    }
    let (received, sent) = (course.received.text(), course.sent.text());
    write!(text, "\n  before it: received {received}, sent {sent}").expect("writing cannot fail");
    text
}
