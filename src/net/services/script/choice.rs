//! A choice: the parts of which the input takes one. Must never take another because of how the
//! peer's bytes are cut.

use std::time::Duration;

use super::expectation::Expectation;
use super::program::{Action, Block};
use super::verdict::{Capture, Verdict};

/// The most parts of a choice that a report names.
const MOST_CHOICES: usize = 8;

/// Judges the input by the first steps of the parts, as `Expectation::judge` does. Returns also
/// which part is met.
pub(super) fn judge(
    parts: &[Block],
    input: &[u8],
    ended: bool,
    seen: usize,
) -> (Verdict, Option<usize>) {
    let mut is_open = false;
    // The one that is met by the fewest bytes: how the peer's bytes are cut must not matter.
    let mut best: Option<(usize, usize, Vec<Capture>)> = None;
    for (index, part) in parts.iter().enumerate() {
        let Action::Expect(first) = &part[0].action else { continue };
        match first.judge(input, ended, seen) {
            Verdict::Met { used, captures } => {
                if best.as_ref().is_none_or(|(least, ..)| used < *least) {
                    best = Some((used, index, captures));
                }
            }
            Verdict::Open => is_open = true,
            Verdict::Failed(_) => {}
        }
    }
    match best {
        Some((used, index, captures)) => (Verdict::Met { used, captures }, Some(index)),
        None if is_open => (Verdict::Open, None),
        None => (Verdict::Failed(format!("none of: {}", texts(parts))), None),
    }
}

/// The part that begins with the shortest silence, and how long that is.
pub(super) fn shortest_silence(parts: &[Block]) -> Option<(usize, Duration)> {
    let silence = |(index, part): (usize, &Block)| match &part[0].action {
        Action::Expect(Expectation::Silence(time)) => Some((index, *time)),
        _ => None,
    };
    parts.iter().enumerate().filter_map(silence).min_by_key(|(_, time)| *time)
}

/// The first steps of the parts, for a report.
pub(super) fn texts(parts: &[Block]) -> String {
    let mut texts: Vec<_> = parts.iter().take(MOST_CHOICES).map(|part| &*part[0].text).collect();
    if parts.len() > MOST_CHOICES {
        texts.push("…");
    }
    texts.join("; ")
}
