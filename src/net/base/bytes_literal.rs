//! Bytes in Python's notation: `b"250 ok\r\n"`. Must never accept what Python would not.

use std::fmt::Write;

/// How much of a text that is no literal is shown.
const SHOWN: usize = 60;

/// All bytes as a literal with this quote.
pub(crate) fn quoted(bytes: &[u8], quote: char) -> String {
    let mut text = String::with_capacity(bytes.len() + 3);
    push_quoted(&mut text, bytes, quote);
    text
}

/// Appends all bytes as a literal with this quote.
pub(crate) fn push_quoted(text: &mut String, bytes: &[u8], quote: char) {
    text.extend(['b', quote]);
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
}

/// The bytes of a literal at the start of `text`, with what follows it. An error says why it is
/// none.
pub(crate) fn unquoted(text: &str) -> Result<(Vec<u8>, &str), String> {
    let wrong = || format!("{} is no bytes literal, such as b\"ok\"", shown(text));
    let body = text.strip_prefix('b').ok_or_else(wrong)?;
    let quote =
        body.chars().next().filter(|&quote| matches!(quote, '\'' | '"')).ok_or_else(wrong)?;
    let mut found = Vec::new();
    let mut rest = body[1..].chars();
    loop {
        match rest.next() {
            None => return Err(format!("{} has no closing {quote}", shown(text))),
            Some('\\') => found.push(escaped(&mut rest).ok_or_else(wrong)?),
            Some(end) if end == quote => return Ok((found, rest.as_str())),
            Some(ascii) if ascii.is_ascii() => found.push(ascii as u8),
            Some(other) => {
                return Err(format!("{other:?} in {} is not ASCII; write \\x…", shown(text)));
            }
        }
    }
}

/// The start of a text that may be long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn escaped(rest: &mut std::str::Chars<'_>) -> Option<u8> {
    Some(match rest.next()? {
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'v' => 11,
        first @ '0'..='7' => {
            let mut value = first.to_digit(8)?;
            for _ in 0..2 {
                let mut ahead = rest.clone();
                let Some(digit) = ahead.next().and_then(|digit| digit.to_digit(8)) else { break };
                value = value * 8 + digit;
                *rest = ahead;
            }
            u8::try_from(value).ok()?
        }
        '\\' => b'\\',
        '\'' => b'\'',
        '"' => b'"',
        'x' => {
            let mut digit = || rest.next().and_then(|digit| digit.to_digit(16));
            (digit()? * 16 + digit()?) as u8
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_as_it_was_written() {
        let all: Vec<u8> = (0..=255).collect();
        let text = format!("{} rest", quoted(&all, '"'));
        assert_eq!(unquoted(&text), Ok((all, " rest")));
        assert_eq!(unquoted(r#"b'a"\'\0'"#), Ok((b"a\"'\0".to_vec(), "")));
        assert_eq!(
            unquoted(r#"b"\012\08\377\a\b\f\v""#).unwrap().0,
            b"\n\x008\xff\x07\x08\x0c\x0b"
        );
        assert!(unquoted(r#"b"\400""#).is_err());
        for wrong in ["", "b", "b\"", "\"a\"", "b\"\\q\"", "b\"\\x1\"", "b\"é\"", "b\"a'"] {
            assert!(unquoted(wrong).is_err(), "{wrong}");
        }
        assert!(unquoted(&format!("b\"{}", "é".repeat(9_000))).unwrap_err().len() < 200);
    }
}
