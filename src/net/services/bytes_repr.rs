//! Bytes as Python writes them, for the names of services. Must never show more than fits a line.

use std::fmt::Write;

/// So many bytes are shown; a message may have megabytes.
const SHOWN: usize = 60;

/// `b'bye'`; a long one is cut: `b'aaaa'… of 4000 bytes`.
pub(super) fn bytes_repr(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN)];
    // As Python does: the other quote where that saves escapes.
    let quote = if shown.contains(&b'\'') && !shown.contains(&b'"') { '"' } else { '\'' };
    let mut text = format!("b{quote}");
    for &byte in shown {
        match byte {
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\\' => text.push_str("\\\\"),
            _ if byte == quote as u8 => text.extend(['\\', quote]),
            b' '..=b'~' => text.push(byte as char),
            _ => write!(text, "\\x{byte:02x}").expect("a String takes all"),
        }
    }
    text.push(quote);
    if bytes.len() > SHOWN {
        write!(text, "… of {} bytes", bytes.len()).expect("a String takes all");
    }
    text
}
