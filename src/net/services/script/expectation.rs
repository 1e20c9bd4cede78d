//! What a step waits for: exact bytes, a delimiter, a pattern, a length, a frame, an end, silence.
//! Must never keep input: it is asked with all that has come and was not used.

use std::time::Duration;

use regex::bytes::Regex;

use crate::net::services::dialogue::find;

/// What a step waits for.
#[derive(Debug)]
pub(super) enum Expectation {
    /// These bytes next.
    Exactly(Box<[u8]>),
    /// Bytes up to this delimiter, which is used too.
    Until { delimiter: Box<[u8]>, limit: usize, name: Option<Box<str>> },
    /// Input that begins with a match; as soon as there is one.
    Pattern { regex: Regex, limit: usize },
    /// That many bytes.
    Length { count: usize, name: Option<Box<str>> },
    /// A header with the length of what follows it.
    Frame { header: Header, limit: usize, name: Option<Box<str>> },
    /// The peer's FIN next.
    End,
    /// Nothing for a time.
    Silence(Duration),
}

/// The header of a frame: an unsigned number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) bytes: usize,
    pub(super) is_little: bool,
}

impl Header {
    /// By its format in Python's `struct`: ">I", "<H", "B".
    pub(super) fn of(format: &str) -> Option<Self> {
        let (is_little, code) = match format.strip_prefix(['>', '!']) {
            Some(code) => (false, code),
            None => format.strip_prefix('<').map_or((false, format), |code| (true, code)),
        };
        let bytes = match code {
            "B" => 1,
            "H" => 2,
            "I" | "L" => 4,
            "Q" => 8,
            _ => return None,
        };
        Some(Self { bytes, is_little })
    }

    fn length(self, header: &[u8]) -> u64 {
        let digit = |length: u64, &byte: &u8| length << 8 | u64::from(byte);
        if self.is_little {
            header.iter().rev().fold(0, digit)
        } else {
            header.iter().fold(0, digit)
        }
    }
}

/// A part of the input, by name.
pub(super) type Capture = (Box<str>, Vec<u8>);

/// What an expectation says of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is met by this number of bytes.
    Met { used: usize, captures: Vec<Capture> },
    /// More input can still meet it.
    Open,
    /// It cannot be met any more. The text says why, where the bytes alone do not.
    Failed(String),
}

fn met(used: usize) -> Verdict {
    Verdict::Met { used, captures: Vec::new() }
}

fn named(used: usize, name: Option<&str>, part: &[u8]) -> Verdict {
    let captures = name.map(|name| (name.into(), part.to_vec())).into_iter().collect();
    Verdict::Met { used, captures }
}

impl Expectation {
    /// Judges the input. `ended`: no more can come.
    pub(super) fn judge(&self, input: &[u8], ended: bool) -> Verdict {
        let verdict = self.judge_open(input, ended);
        if verdict == Verdict::Open && ended && !matches!(self, Self::Silence(_)) {
            return Verdict::Failed("the peer finished (FIN)".to_owned());
        }
        verdict
    }

    fn judge_open(&self, input: &[u8], ended: bool) -> Verdict {
        let over =
            |limit: usize| Verdict::Failed(format!("more than {limit} bytes came without it"));
        match self {
            Self::Exactly(bytes) if input.starts_with(bytes) => met(bytes.len()),
            Self::Exactly(bytes) if bytes.starts_with(input) => Verdict::Open,
            Self::Exactly(_) => Verdict::Failed(String::new()),
            Self::Until { delimiter, limit, name } => match find(input, delimiter) {
                Some(at) if at + delimiter.len() <= *limit => {
                    named(at + delimiter.len(), name.as_deref(), &input[..at])
                }
                None if input.len() < *limit => Verdict::Open,
                _ => over(*limit),
            },
            Self::Pattern { regex, limit, .. } => match regex.shortest_match(input) {
                Some(end) if end <= *limit => {
                    let captures = regex.captures(&input[..end]).map_or_else(Vec::new, |found| {
                        let names = regex.capture_names().flatten();
                        let part = |name| Some((name, found.name(name)?.as_bytes().to_vec()));
                        names.filter_map(part).map(|(name, part)| (name.into(), part)).collect()
                    });
                    Verdict::Met { used: end, captures }
                }
                None if input.len() < *limit => Verdict::Open,
                _ => over(*limit),
            },
            Self::Length { count, name } if input.len() >= *count => {
                named(*count, name.as_deref(), &input[..*count])
            }
            Self::Length { .. } => Verdict::Open,
            Self::Frame { header, limit, name } => {
                let Some(head) = input.get(..header.bytes) else { return Verdict::Open };
                let length = header.length(head);
                match usize::try_from(length).ok().filter(|length| length <= limit) {
                    None => Verdict::Failed(format!(
                        "the header announces {length} bytes, over the limit of {limit}"
                    )),
                    Some(length) => match input.get(header.bytes..header.bytes + length) {
                        Some(body) => named(header.bytes + length, name.as_deref(), body),
                        None => Verdict::Open,
                    },
                }
            }
            Self::End if !input.is_empty() => Verdict::Failed("bytes came".to_owned()),
            Self::End if ended => met(0),
            Self::End => Verdict::Open,
            Self::Silence(_) if !input.is_empty() => Verdict::Failed("bytes came".to_owned()),
            Self::Silence(_) => Verdict::Open,
        }
    }

    /// Bytes of input that it may have to see at once.
    pub(super) fn most_input(&self) -> usize {
        match self {
            Self::Exactly(bytes) => bytes.len(),
            Self::Until { limit, .. } | Self::Pattern { limit, .. } => *limit,
            Self::Length { count, .. } => *count,
            Self::Frame { header, limit, .. } => header.bytes + limit,
            Self::End | Self::Silence(_) => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(verdict: &Verdict) -> Option<usize> {
        if let Verdict::Met { used, .. } = verdict { Some(*used) } else { None }
    }

    #[test]
    fn exact_bytes_fail_at_the_first_difference() {
        let exact = Expectation::Exactly(b"abc"[..].into());
        assert_eq!(exact.judge(b"", false), Verdict::Open);
        assert_eq!(exact.judge(b"ab", false), Verdict::Open);
        assert_eq!(used(&exact.judge(b"abcd", false)), Some(3));
        assert_eq!(exact.judge(b"ax", false), Verdict::Failed(String::new()));
        assert!(matches!(exact.judge(b"ab", true), Verdict::Failed(why) if why.contains("FIN")));
    }

    #[test]
    fn a_delimiter_is_found_wherever_the_input_was_cut() {
        let name = Some("line".into());
        let until = Expectation::Until { delimiter: b"\r\n"[..].into(), limit: 8, name };
        assert_eq!(until.judge(b"ab\r", false), Verdict::Open);
        let Verdict::Met { used, captures } = until.judge(b"a\rb\r\nrest", false) else { panic!() };
        assert_eq!((used, captures), (5, vec![("line".into(), b"a\rb".to_vec())]));
        assert_eq!(until.judge(b"1234567", false), Verdict::Open);
        assert!(matches!(until.judge(b"12345678", false), Verdict::Failed(_)));
        assert!(matches!(until.judge(b"1234567\r\n", false), Verdict::Failed(_)));
    }

    #[test]
    fn a_frame_has_the_length_of_its_header() {
        for (format, input) in [(">H", &b"\0\x02abc"[..]), ("<H", b"\x02\0abc"), ("B", b"\x02abc")]
        {
            let header = Header::of(format).unwrap();
            let frame = Expectation::Frame { header, limit: 10, name: None };
            let all = header.bytes + 2;
            assert_eq!(used(&frame.judge(input, false)), Some(all), "{format}");
            for cut in 0..all {
                assert_eq!(frame.judge(&input[..cut], false), Verdict::Open, "{format} {cut}");
            }
        }
        let header = Header::of(">Q").unwrap();
        let frame = Expectation::Frame { header, limit: 10, name: None };
        assert!(matches!(frame.judge(&[255; 8], false), Verdict::Failed(_)));
        assert!(Header::of(">i").is_none() && Header::of("").is_none());
    }

    #[test]
    fn an_end_and_silence_take_no_byte() {
        assert_eq!(used(&Expectation::End.judge(b"", true)), Some(0));
        assert!(matches!(Expectation::End.judge(b"x", true), Verdict::Failed(_)));
        let silence = Expectation::Silence(Duration::ZERO);
        assert_eq!(silence.judge(b"", true), Verdict::Open);
        assert!(matches!(silence.judge(b"x", false), Verdict::Failed(_)));
    }
}
