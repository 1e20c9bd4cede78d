//! The report of a divergence from a recording: where it is, what was expected, what came, what was
//! before. Must never be longer than a person reads.

use std::fmt::Write;
use std::time::Duration;

use super::plan::{Part, Plan, What};
use crate::net::services::dialogue::{Tail, push_bytes, push_difference};

/// Equal bytes that are shown before a difference.
const BEFORE: usize = 16;

/// Where a dialogue is.
pub(super) struct Course<'a> {
    pub(super) plan: &'a Plan,
    /// The number of the connection at the server, where it has one.
    pub(super) connection: Option<u64>,
    /// The index of the event of the peer that is at hand.
    pub(super) event: usize,
    pub(super) received: &'a Tail,
    pub(super) sent: &'a Tail,
}

/// Bytes that are not as in the recording.
pub(super) struct Found<'a> {
    /// The part of the event that is at hand.
    pub(super) part: usize,
    /// How many bytes of the part are met.
    pub(super) met: usize,
    /// The bytes from there on.
    pub(super) input: &'a [u8],
}

/// The report, which says why the peer does not do what it did in the recording.
pub(super) fn report(course: &Course<'_>, why: &str, found: Option<&Found<'_>>) -> String {
    let Course { plan, event, .. } = *course;
    let mut text = place(course);
    write!(text, ": {why}").expect("writing to a String cannot fail");
    if let Some(found) = found {
        let literal = match plan.what(event) {
            Some(What::Bytes(parts)) => match parts.get(found.part) {
                Some(Part::Literal(bytes)) => &**bytes,
                _ => &[],
            },
            _ => &[],
        };
        let start = found.met.saturating_sub(BEFORE);
        let expected = &literal[start.min(literal.len())..];
        let equal = &literal[start.min(literal.len())..found.met.min(literal.len())];
        let received = [equal, found.input].concat();
        match plan.events.get(event) {
            Some(next) if next.what == What::End => text.push_str("\n  expected the end (FIN)"),
            Some(next) if next.what == What::Reset => text.push_str("\n  expected a reset (RST)"),
            _ => push_bytes(&mut text, "expected", expected),
        }
        push_bytes(&mut text, "received", &received);
        push_difference(&mut text, expected, &received);
        if start > 0 {
            write!(text, " (shown from byte {start} on)").expect("writing to a String cannot fail");
        }
    }
    let (received, sent) = (course.received.text(), course.sent.text());
    write!(text, "\n  before it: received {received}, sent {sent}").expect("writing cannot fail");
    text
}

/// The place in the recording.
pub(super) fn place(course: &Course<'_>) -> String {
    let Course { plan, event, .. } = *course;
    let mut text = String::new();
    if let Some(connection) = course.connection {
        write!(text, "connection {connection}: ").expect("writing to a String cannot fail");
    }
    text.push_str(&plan.file);
    let number = plan.connection;
    match plan.events.get(event) {
        Some(next) => write!(text, ", line {} (its connection {number})", next.line),
        None => write!(text, ", behind the end of its connection {number}"),
    }
    .expect("writing to a String cannot fail");
    text
}

/// What of the recording was not played: "37 bytes of the client and 120 of the server".
pub(super) fn left(plan: &Plan, theirs: usize, met: usize, ours: usize, sent: usize) -> String {
    let total = |is_ours: bool, from: usize| -> usize {
        let events = plan.events.iter().skip(from);
        events.filter(|event| event.is_ours == is_ours).map(|event| event.what.size()).sum()
    };
    let missing = total(false, theirs).saturating_sub(met);
    let unasked = total(true, ours).saturating_sub(sent);
    format!(
        "{missing} bytes of the {} did not come, and {unasked} bytes for it were not sent",
        plan.side.peer()
    )
}

/// A time for a report: seconds, to the millisecond.
pub(super) fn seconds(time: Duration) -> String {
    let text = format!("{:.3}", time.as_secs_f64());
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}
