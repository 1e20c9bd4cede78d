//! Bytes in Python's notation, as services write them. Must never read it:
//! `script/literal.rs` does.

use std::fmt::Write;

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

/// All bytes as a literal with this quote.
pub(super) fn quoted(bytes: &[u8], quote: char) -> String {
    let mut text = format!("b{quote}");
    for &byte in bytes {
        match byte {
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\\' => text.push_str("\\\\"),
            _ if byte == quote as u8 => text.extend(['\\', quote]),
            b' '..=b'~' => text.push(byte as char),
            _ => write!(text, "\\x{byte:02x}").expect("writing to a String cannot fail"),
        }
    }
    text.push(quote);
    text
}
