//! The report of a divergence: the step, what it waited for, what came, what was before. Must never
//! be longer than a person reads.

use std::fmt::Write;

use super::expectation::Expectation;
use super::program::{Action, Step};
use crate::net::base::quoted;

/// Bytes of input that are shown.
const SHOWN: usize = 48;
/// Bytes of a line of hex.
const LINE: usize = 16;

/// The last bytes of one direction, for a report.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    total: u64,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.bytes.extend_from_slice(&bytes[bytes.len().saturating_sub(SHOWN)..]);
        let excess = self.bytes.len().saturating_sub(SHOWN);
        self.bytes.drain(..excess);
    }

    fn text(&self) -> String {
        match self.total - self.bytes.len() as u64 {
            _ if self.total == 0 => "nothing".to_owned(),
            0 => quoted(&self.bytes, '"'),
            before => format!("…{} (after {before} bytes)", quoted(&self.bytes, '"')),
        }
    }
}

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
        let same = expected.iter().zip(input).take_while(|(one, other)| one == other).count();
        if same < expected.len().min(input.len()) {
            write!(text, "\n  first difference at byte {same}: ").expect("writing cannot fail");
            let (one, other) =
                (quoted(&expected[same..=same], '"'), quoted(&input[same..=same], '"'));
            write!(text, "expected {one}, received {other}").expect("writing cannot fail");
        }
    }
    let (received, sent) = (course.received.text(), course.sent.text());
    write!(text, "\n  before it: received {received}, sent {sent}").expect("writing cannot fail");
    text
}

/// Bytes as text, and as hex below.
fn push_bytes(text: &mut String, what: &str, bytes: &[u8]) {
    if bytes.is_empty() {
        write!(text, "\n  {what} nothing").expect("writing to a String cannot fail");
        return;
    }
    let shown = &bytes[..bytes.len().min(SHOWN)];
    write!(text, "\n  {what} {}", quoted(shown, '"')).expect("writing to a String cannot fail");
    if bytes.len() > SHOWN {
        write!(text, "… ({} bytes)", bytes.len()).expect("writing to a String cannot fail");
    }
    for line in shown.chunks(LINE) {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        write!(text, "\n    {}", hex.join(" ")).expect("writing to a String cannot fail");
    }
}
