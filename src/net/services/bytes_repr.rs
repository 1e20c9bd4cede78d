//! Bytes in the names of services, cut to what a person reads. Must never be read back.

use std::fmt::Write;

use crate::net::base::quoted;

/// Maximum number of bytes shown, because a message may have megabytes.
const SHOWN: usize = 60;

/// The `repr` of bytes: `b'bye'`. A long value is cut: `b'aaaa'… of 4000 bytes`.
pub(super) fn bytes_repr(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN)];
    // As in Python: the other quote if that avoids escapes.
    let quote = if shown.contains(&b'\'') && !shown.contains(&b'"') { '"' } else { '\'' };
    let mut text = quoted(shown, quote);
    if bytes.len() > SHOWN {
        write!(text, "… of {} bytes", bytes.len()).expect("writing to a String cannot fail");
    }
    text
}
