//! The form of each line of a recording. Must never know the lines around it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use super::content::{Content, Piece};
use super::recording::{Direction, Event, What};
use crate::net::address::{Address, Transport, UnixName};
use crate::net::base::{push_quoted, rfc3339, unquoted};

/// The version of the form that is written, and the highest that is read.
pub(super) const VERSION: u64 = 1;
/// How a recording begins, followed by its version.
pub(super) const FIRST: &str = "rsock recording ";
/// The most bytes of a line with its end. The longest that is written is that of a chunk of 65 536
/// bytes, at six characters for each.
pub(super) const MOST_LINE: usize = 512 * 1024;

/// A line behind the header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// `1 0.000000 open 127.0.0.1:53422 127.0.0.1:7`, in older files without the second address.
    Open { number: u64, at: Duration, client: Address, local: Option<Address> },
    /// `1 0.000123 > b"PING\r\n"`
    Event { number: u64, at: Duration, direction: Direction, body: Body },
    /// `stop 2.000000`
    Stop { at: Duration },
}

/// What a line says of one direction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// `b"AUTH " any b"[redacted]" b"\r\n"`
    Content(Content),
    /// `end`
    End,
    /// `reset`
    Reset,
}

impl Body {
    /// What it says of a connection of streams, or of datagrams. An error says why it cannot.
    pub(super) fn what(self, is_datagram: bool) -> Result<What, String> {
        match self {
            Self::End if is_datagram => Err("a peer of UDP has no end".to_owned()),
            Self::End => Ok(What::End),
            Self::Reset => Ok(What::Reset),
            Self::Content(content) if is_datagram => Ok(What::Datagram(content)),
            Self::Content(content) if content.is_empty() => {
                Err("bytes of a stream are at least one".to_owned())
            }
            Self::Content(content) => Ok(What::Bytes(content)),
        }
    }
}

impl Line {
    /// Reads a line without its end. An error says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (first, rest) = word(text);
        if first == "stop" {
            return Ok(Self::Stop { at: last(rest, seconds)? });
        }
        let number = number(first).ok_or_else(|| format!("{first:?} is no connection number"))?;
        let (at, rest) = word(rest);
        let at = seconds(at)?;
        let (sign, rest) = word(rest);
        let direction = match sign {
            "open" => {
                let (client, local) = last(rest, addresses)?;
                return Ok(Self::Open { number, at, client, local });
            }
            ">" => Direction::Up,
            "<" => Direction::Down,
            other => return Err(format!("{other:?} stands where >, < or open must")),
        };
        let body = match rest {
            "end" => Body::End,
            "reset" => Body::Reset,
            rest => Body::Content(content(rest)?),
        };
        Ok(Self::Event { number, at, direction, body })
    }
}

/// The first word, and what follows the space behind it.
fn word(text: &str) -> (&str, &str) {
    text.split_once(' ').unwrap_or((text, ""))
}

/// The value of the rest of a line.
fn last<T>(rest: &str, of: impl FnOnce(&str) -> Result<T, String>) -> Result<T, String> {
    if rest.is_empty() {
        Err("the line ends where a value must follow".to_owned())
    } else {
        of(rest)
    }
}

/// A decimal number, without a sign.
pub(super) fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Seconds with up to nine decimals.
fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time in seconds, such as 0.000123");
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let seconds = number(whole).filter(|&seconds| seconds <= u64::from(u32::MAX));
    let nanos = number(decimals).filter(|_| decimals.len() <= 9).and_then(|decimal| {
        let scale = 9 - decimals.len() as u32;
        u32::try_from(decimal * 10_u64.pow(scale)).ok()
    });
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(Duration::new(seconds, nanos)),
        _ => Err(wrong()),
    }
}

/// The address of the client, and that of the server where it is there.
fn addresses(text: &str) -> Result<(Address, Option<Address>), String> {
    let (client, rest) = address(text)?;
    if rest.is_empty() {
        return Ok((client, None));
    }
    let wrong = || format!("{rest:?} follows the address of the client");
    let (local, rest) = address(rest.strip_prefix(' ').ok_or_else(wrong)?)?;
    if rest.is_empty() {
        Ok((client, Some(local)))
    } else {
        Err(format!("{rest:?} follows the address of the server"))
    }
}

/// An address of either kind, and what follows it.
fn address(text: &str) -> Result<(Address, &str), String> {
    if text.starts_with('b') {
        let (name, rest) = unquoted(text)?;
        if name.is_empty() {
            return Ok((UnixName::unnamed().into(), rest));
        }
        return Ok((UnixName::new(&name).map_err(|error| error.to_string())?.into(), rest));
    }
    let (text, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
    let wrong = |_| format!("{text:?} is no address, such as 127.0.0.1:80 or [::1]:80");
    Ok((text.parse::<SocketAddr>().map(Address::Ip).map_err(wrong)?, rest))
}

/// Literals, with `any` in front of those that stand for any bytes.
fn content(text: &str) -> Result<Content, String> {
    let mut content = Content::default();
    let mut rest = text;
    loop {
        let (any, literal) = match rest.strip_prefix("any ") {
            Some(literal) => (true, literal),
            None => (false, rest),
        };
        let (bytes, after) = unquoted(literal)?;
        content.push(if any { Piece::Any(&bytes) } else { Piece::Exactly(&bytes) });
        match after.strip_prefix(' ') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(content),
            None => return Err("a literal is followed by something without a space".to_owned()),
        }
    }
}

/// Appends the lines in front of all others; those that are not known are left out.
pub(super) fn push_header(
    text: &mut String,
    transport: Transport,
    started: Option<SystemTime>,
    target: &str,
) {
    text.push_str(&format!("{FIRST}{VERSION}\ntransport {}\n", transport.name()));
    if let Some(started) = started {
        text.push_str(&format!("started {}\n", rfc3339(started)));
    }
    if !target.is_empty() {
        text.push_str(&format!("target {target}\n"));
    }
}

/// Appends the line of a new connection.
pub(super) fn push_open(
    text: &mut String,
    number: u64,
    at: Duration,
    client: &Address,
    local: Option<&Address>,
) {
    text.push_str(&number.to_string());
    text.push(' ');
    push_seconds(text, at);
    text.push_str(" open ");
    push_address(text, client);
    if let Some(local) = local {
        text.push(' ');
        push_address(text, local);
    }
    text.push('\n');
}

/// Appends the line of an event.
pub(super) fn push_event(text: &mut String, number: u64, event: &Event) {
    text.push_str(&number.to_string());
    text.push(' ');
    push_seconds(text, event.at);
    text.push_str(match event.direction {
        Direction::Up => " > ",
        Direction::Down => " < ",
    });
    match &event.what {
        What::Bytes(content) | What::Datagram(content) => push_content(text, content),
        What::End => text.push_str("end"),
        What::Reset => text.push_str("reset"),
    }
    text.push('\n');
}

/// Appends the last line.
pub(super) fn push_stop(text: &mut String, at: Duration) {
    text.push_str("stop ");
    push_seconds(text, at);
    text.push('\n');
}

/// Appends the form of a content.
fn push_content(text: &mut String, content: &Content) {
    let mut is_first = true;
    for piece in content.pieces() {
        if !std::mem::take(&mut is_first) {
            text.push(' ');
        }
        match piece {
            Piece::Exactly(bytes) => push_quoted(text, bytes, '"'),
            Piece::Any(bytes) => {
                text.push_str("any ");
                push_quoted(text, bytes, '"');
            }
        }
    }
    if is_first {
        // An empty datagram.
        push_quoted(text, b"", '"');
    }
}

/// Appends the form of an address. A scope, which only one machine knows, is left out.
fn push_address(text: &mut String, address: &Address) {
    match address {
        Address::Ip(SocketAddr::V6(v6)) => {
            text.push_str(&SocketAddr::new((*v6.ip()).into(), v6.port()).to_string());
        }
        Address::Ip(v4) => text.push_str(&v4.to_string()),
        Address::Unix(name) => push_quoted(text, name.bytes(), '"'),
    }
}

/// Appends a time, to the microsecond.
fn push_seconds(text: &mut String, at: Duration) {
    text.push_str(&format!("{}.{:06}", at.as_secs(), at.subsec_micros()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_not_understood_whole_is_refused() {
        for wrong in [
            "",
            "stop",
            "stop ",
            "stop 1 2",
            "x 0.0 > end",
            "-1 0.0 > end",
            "+1 0.0 > end",
            "1",
            "1 x > end",
            "1 0. > end",
            "1 .5 > end",
            "1 0.0000000001 > end",
            "1 1e3 > end",
            "1 99999999999999999999 > end",
            "1 0.0 = end",
            "1 0.0 > ",
            "1 0.0 > ends",
            "1 0.0 > b\"a",
            "1 0.0 > b\"a\"b\"b\"",
            "1 0.0 > b\"a\" ",
            "1 0.0 > b\"a\"  b\"b\"",
            "1 0.0 > any",
            "1 0.0 > any b\"a\" any",
            "1 0.0 open",
            "1 0.0 open localhost:1",
            "1 0.0 open 127.0.0.1",
            "1 0.0 open b\"\\x00\"",
            "1 0.0 open b\"/a\" x",
            "1 0.0 open b\"/a\"b\"/b\"",
            "1 0.0 open b\"/a\" b\"/b\" ",
            "1 0.0 open 127.0.0.1:1 ",
            "1 0.0 open 127.0.0.1:1  127.0.0.1:2",
            "1 0.0 open 127.0.0.1:1 127.0.0.1",
            "1 0.0 open 127.0.0.1:1 127.0.0.1:2 127.0.0.1:3",
            "1  0.0 > end",
            " 1 0.0 > end",
        ] {
            assert!(Line::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_part_is_read_as_it_was_written() {
        let kinds = [
            Address::Ip("127.0.0.1:80".parse().unwrap()),
            Address::Ip("[2001:db8::1]:80".parse().unwrap()),
            UnixName::unnamed().into(),
            UnixName::new(b"/tmp/a b\n\xff").unwrap().into(),
            UnixName::new(b"\0abstract").unwrap().into(),
        ];
        for known in kinds {
            let mut text = String::new();
            push_address(&mut text, &known);
            assert_eq!(address(&text), Ok((known.clone(), "")), "{text}");
            let two = format!("{text} {text}");
            assert_eq!(addresses(&two), Ok((known.clone(), Some(known))), "{two}");
        }
        for at in [Duration::ZERO, Duration::from_micros(1), Duration::from_micros(86_400_999_999)]
        {
            let mut text = String::new();
            push_seconds(&mut text, at);
            assert_eq!(seconds(&text), Ok(at), "{text}");
        }
        let all: Vec<u8> = (0..=255).collect();
        for pieces in [
            vec![],
            vec![Piece::Exactly(&all)],
            vec![Piece::Any(&all)],
            vec![Piece::Any(b""), Piece::Exactly(b"any "), Piece::Any(b"\""), Piece::Exactly(b"b")],
        ] {
            let mut known = Content::default();
            pieces.into_iter().for_each(|piece| known.push(piece));
            let mut text = String::new();
            push_content(&mut text, &known);
            assert_eq!(content(&text), Ok(known), "{text}");
        }
    }
}
