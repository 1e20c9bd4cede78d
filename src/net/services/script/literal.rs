//! Bytes in Python's notation, read: `b"250 ok\r\n"`. Must never accept what Python would not.

/// The bytes of a literal at the start of `text`, with what follows it. An error says why it is
/// none.
pub(super) fn bytes(text: &str) -> Result<(Vec<u8>, &str), String> {
    let wrong = || format!("{text:?} is no bytes literal, such as b\"ok\"");
    let body = text.strip_prefix('b').ok_or_else(wrong)?;
    let quote =
        body.chars().next().filter(|&quote| matches!(quote, '\'' | '"')).ok_or_else(wrong)?;
    let mut found = Vec::new();
    let mut rest = body[1..].chars();
    loop {
        match rest.next() {
            None => return Err(format!("{text:?} has no closing {quote}")),
            Some('\\') => found.push(escaped(&mut rest).ok_or_else(wrong)?),
            Some(end) if end == quote => return Ok((found, rest.as_str())),
            Some(ascii) if ascii.is_ascii() => found.push(ascii as u8),
            Some(other) => return Err(format!("{other:?} in {text:?} is not ASCII; write \\x…")),
        }
    }
}

fn escaped(rest: &mut std::str::Chars<'_>) -> Option<u8> {
    Some(match rest.next()? {
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        '0' => 0,
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
    use crate::net::services::bytes_repr::quoted;

    #[test]
    fn every_byte_is_read_as_it_was_written() {
        let all: Vec<u8> = (0..=255).collect();
        let text = format!("{} rest", quoted(&all, '"'));
        assert_eq!(bytes(&text), Ok((all, " rest")));
        assert_eq!(bytes(r#"b'a"\'\0'"#), Ok((b"a\"'\0".to_vec(), "")));
        for wrong in ["", "b", "b\"", "\"a\"", "b\"\\q\"", "b\"\\x1\"", "b\"é\"", "b\"a'"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
