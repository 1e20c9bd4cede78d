//! The parts of a report of a divergence: bytes as text and as hex. Must never be longer than a
//! person reads.

use std::fmt::Write;

use crate::net::base::quoted;

/// Bytes of input that are shown.
const SHOWN: usize = 48;
/// Bytes of a line of hex.
const LINE: usize = 16;

/// The last bytes of one direction, for a report.
#[derive(Debug, Default)]
pub(in crate::net::services) struct Tail {
    bytes: Vec<u8>,
    total: u64,
}

impl Tail {
    pub(in crate::net::services) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.bytes.extend_from_slice(&bytes[bytes.len().saturating_sub(SHOWN)..]);
        let excess = self.bytes.len().saturating_sub(SHOWN);
        self.bytes.drain(..excess);
    }

    /// The bytes as text, with the number of those before them.
    pub(in crate::net::services) fn text(&self) -> String {
        match self.total - self.bytes.len() as u64 {
            _ if self.total == 0 => "nothing".to_owned(),
            0 => quoted(&self.bytes, '"'),
            before => format!("…{} (after {before} bytes)", quoted(&self.bytes, '"')),
        }
    }
}

/// "4 bytes so far".
pub(in crate::net::services) fn so_far(count: usize) -> String {
    format!("{count} byte{} so far", if count == 1 { "" } else { "s" })
}

/// Bytes as text, and as hex below.
pub(in crate::net::services) fn push_bytes(text: &mut String, what: &str, bytes: &[u8]) {
    push_part(text, what, bytes, (0, bytes.len()));
}

/// As `push_bytes`, from a place on. `total`: how many bytes there were, of which some may be gone.
pub(in crate::net::services) fn push_part(
    text: &mut String,
    what: &str,
    bytes: &[u8],
    (from, total): (usize, usize),
) {
    if bytes.is_empty() {
        write!(text, "\n  {what} nothing").expect("writing to a String cannot fail");
        return;
    }
    let end = bytes.len().min(from + SHOWN);
    let shown = &bytes[from.min(end)..end];
    let (before, behind) = (if from > 0 { "…" } else { "" }, if end < total { "…" } else { "" });
    write!(text, "\n  {what} {before}{}{behind}", quoted(shown, '"')).expect("writing cannot fail");
    if from > 0 {
        write!(text, " (from byte {from} of {total})").expect("writing cannot fail");
    } else if end < total {
        write!(text, " ({total} bytes)").expect("writing to a String cannot fail");
    }
    for line in shown.chunks(LINE) {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        write!(text, "\n    {}", hex.join(" ")).expect("writing to a String cannot fail");
    }
}

/// What was expected, in letters of either case if `ignore_case`, and what was received, both
/// around their first difference.
pub(in crate::net::services) fn push_compared(
    text: &mut String,
    (expected, ignore_case): (&[u8], bool),
    (received, total): (&[u8], usize),
) {
    let is_same =
        |one: &u8, other: &u8| one == other || ignore_case && one.eq_ignore_ascii_case(other);
    let pairs = expected.iter().zip(received);
    let same = pairs.take_while(|(one, other)| is_same(one, other)).count();
    let from = if same + LINE > SHOWN { same - LINE } else { 0 };
    push_part(text, "expected", expected, (from, expected.len()));
    push_part(text, "received", received, (from, total));
    if same < expected.len().min(received.len()) {
        let (one, other) =
            (quoted(&expected[same..=same], '"'), quoted(&received[same..=same], '"'));
        write!(text, "\n  first difference at byte {same}: expected {one}, received {other}")
            .expect("writing to a String cannot fail");
    }
}

/// The first difference between what was expected and what was received, if both have that byte.
pub(in crate::net::services) fn push_difference(
    text: &mut String,
    expected: &[u8],
    received: &[u8],
) {
    let same = expected.iter().zip(received).take_while(|(one, other)| one == other).count();
    if same < expected.len().min(received.len()) {
        let (one, other) =
            (quoted(&expected[same..=same], '"'), quoted(&received[same..=same], '"'));
        write!(text, "\n  first difference at byte {same}: expected {one}, received {other}")
            .expect("writing to a String cannot fail");
    }
}
