//! What a step waits for: exact bytes, a delimiter, a pattern, a length, a frame, an end, silence.
//! Must never keep input: it is asked with all that has come and was not used.

use std::sync::Arc;
use std::time::Duration;

use regex::bytes::Regex;

use crate::net::services::dialogue::find;

/// What a step waits for.
#[derive(Debug)]
pub(super) enum Expectation {
    /// These bytes next; ASCII letters of either case, if `ignore_case`.
    Exactly { bytes: Box<[u8]>, ignore_case: bool },
    /// Bytes up to this delimiter, which is used too.
    Until { delimiter: Box<[u8]>, limit: usize, name: Option<Box<str>> },
    /// Input that begins with a match; as soon as there is one.
    Pattern { regex: Arc<Regex>, limit: usize },
    /// That many bytes.
    Length { count: usize, name: Option<Box<str>> },
    /// A header with the length of what follows it.
    Frame { header: Header, limit: usize, name: Option<Box<str>> },
    /// The peer's FIN next, or its reset too.
    End { or_reset: bool },
    /// Nothing for a time.
    Silence(Duration),
}

/// The header of a frame: an unsigned number, with other bytes before and behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// Bytes of the whole header.
    pub(super) bytes: usize,
    first: usize,
    end: usize,
    is_little: bool,
    /// Is added to the number, which may count the header as well.
    adjust: i64,
}

/// The most bytes of a header.
const MOST_HEADER: usize = 255;

impl Header {
    /// By its format in Python's `struct`: ">I", "<H", "B", ">xI"; "T" is a number of three bytes.
    pub(super) fn of(format: &str) -> Option<Self> {
        let (is_little, codes) = match format.strip_prefix(['>', '!']) {
            Some(codes) => (false, codes),
            None => format.strip_prefix('<').map_or((false, format), |codes| (true, codes)),
        };
        let (mut bytes, mut number, mut repeated) = (0_usize, None, String::new());
        for code in codes.chars() {
            let width = match code {
                '0'..='9' => {
                    repeated.push(code);
                    continue;
                }
                'x' => {
                    let count = if repeated.is_empty() { 1 } else { repeated.parse().ok()? };
                    bytes = bytes.checked_add(count).filter(|&bytes| bytes <= MOST_HEADER)?;
                    repeated.clear();
                    continue;
                }
                'B' => 1,
                'H' => 2,
                'T' => 3,
                'I' | 'L' => 4,
                'Q' => 8,
                _ => return None,
            };
            if number.is_some() || !repeated.is_empty() {
                return None;
            }
            number = Some((bytes, bytes + width));
            bytes += width;
        }
        let (first, end) = number.filter(|_| repeated.is_empty())?;
        Some(Self { bytes, first, end, is_little, adjust: 0 })
    }

    /// The same, where `adjust` is added to the number.
    pub(super) fn adjusted(self, adjust: i64) -> Self {
        Self { adjust, ..self }
    }

    /// How many bytes follow a header.
    fn length(self, header: &[u8]) -> i128 {
        let number = &header[self.first..self.end];
        let digit = |length: u64, &byte: &u8| length << 8 | u64::from(byte);
        let number = if self.is_little {
            number.iter().rev().fold(0, digit)
        } else {
            number.iter().fold(0, digit)
        };
        i128::from(number) + i128::from(self.adjust)
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
    /// Judges the input. `ended`: no more can come. `seen`: for that many of its bytes the verdict
    /// was `Open` before.
    pub(super) fn judge(&self, input: &[u8], ended: bool, seen: usize) -> Verdict {
        let verdict = self.judge_open(input, ended, seen);
        if verdict == Verdict::Open && ended && !matches!(self, Self::Silence(_)) {
            return Verdict::Failed("the peer finished (FIN)".to_owned());
        }
        verdict
    }

    fn judge_open(&self, input: &[u8], ended: bool, seen: usize) -> Verdict {
        let over =
            |limit: usize| Verdict::Failed(format!("more than {limit} bytes came without it"));
        match self {
            Self::Exactly { bytes, ignore_case } => {
                let length = bytes.len().min(input.len());
                let (one, other) = (&bytes[..length], &input[..length]);
                match one == other || *ignore_case && one.eq_ignore_ascii_case(other) {
                    true if length == bytes.len() => met(length),
                    true => Verdict::Open,
                    false => Verdict::Failed(String::new()),
                }
            }
            Self::Until { delimiter, limit, name } => match find_behind(input, delimiter, seen) {
                Some(at) if at + delimiter.len() <= *limit => {
                    named(at + delimiter.len(), name.as_deref(), &input[..at])
                }
                None if input.len() < *limit => Verdict::Open,
                _ => over(*limit),
            },
            Self::Pattern { regex, limit, .. } => match shortest(regex, input) {
                Some(end) if end <= *limit => {
                    let captures = regex.captures(&input[..end]).map_or_else(Vec::new, |found| {
                        let names = regex.capture_names().flatten();
                        // A group that took no part is empty: it must not keep an earlier match.
                        let part = |name| found.name(name).map_or(&b""[..], |part| part.as_bytes());
                        names.map(|name| (name.into(), part(name).to_vec())).collect()
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
                    None if length < 0 => Verdict::Failed(format!(
                        "the header announces {} bytes, too few for adjust={}",
                        length - i128::from(header.adjust),
                        header.adjust
                    )),
                    None => Verdict::Failed(format!(
                        "the header announces {length} bytes, over the limit of {limit}"
                    )),
                    Some(length) => match input.get(header.bytes..header.bytes + length) {
                        Some(body) => named(header.bytes + length, name.as_deref(), body),
                        None => Verdict::Open,
                    },
                }
            }
            Self::End { .. } if !input.is_empty() => Verdict::Failed("bytes came".to_owned()),
            Self::End { .. } if ended => met(0),
            Self::End { .. } => Verdict::Open,
            Self::Silence(_) if !input.is_empty() => Verdict::Failed("bytes came".to_owned()),
            Self::Silence(_) => Verdict::Open,
        }
    }

    /// Bytes of input that it may have to see at once.
    pub(super) fn most_input(&self) -> usize {
        match self {
            Self::Exactly { bytes, .. } => bytes.len(),
            Self::Until { limit, .. } | Self::Pattern { limit, .. } => *limit,
            Self::Length { count, .. } => *count,
            Self::Frame { header, limit, .. } => header.bytes + limit,
            Self::End { .. } | Self::Silence(_) => 1,
        }
    }
}

/// The end of the shortest part of the input, from its first byte on, that matches. It does not
/// depend on what follows: the engine's own shortest match may, where one alternative begins with
/// another.
fn shortest(regex: &Regex, input: &[u8]) -> Option<usize> {
    let mut end = regex.shortest_match(input)?;
    while let Some(before) = end.checked_sub(1) {
        match regex.shortest_match(&input[..before]) {
            Some(shorter) => end = shorter,
            None => break,
        }
    }
    Some(end)
}

/// Where a delimiter begins that does not end within the first `seen` bytes.
fn find_behind(input: &[u8], delimiter: &[u8], seen: usize) -> Option<usize> {
    let from = seen.min(input.len()).saturating_sub(delimiter.len() - 1);
    Some(from + find(&input[from..], delimiter)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Expectation = Expectation::End { or_reset: false };

    fn exactly(bytes: &[u8], ignore_case: bool) -> Expectation {
        Expectation::Exactly { bytes: bytes.into(), ignore_case }
    }

    fn used(verdict: &Verdict) -> Option<usize> {
        if let Verdict::Met { used, .. } = verdict { Some(*used) } else { None }
    }

    #[test]
    fn exact_bytes_fail_at_the_first_difference() {
        let exact = exactly(b"abc", false);
        assert_eq!(exact.judge(b"", false, 0), Verdict::Open);
        assert_eq!(exact.judge(b"ab", false, 0), Verdict::Open);
        assert_eq!(used(&exact.judge(b"abcd", false, 0)), Some(3));
        assert_eq!(exact.judge(b"ax", false, 0), Verdict::Failed(String::new()));
        assert!(matches!(exact.judge(b"ab", true, 0), Verdict::Failed(why) if why.contains("FIN")));
    }

    #[test]
    fn letters_of_either_case_are_exact_where_it_is_ignored() {
        let exact = exactly(b"Ab[", true);
        assert_eq!(exact.judge(b"aB", false, 0), Verdict::Open);
        assert_eq!(used(&exact.judge(b"aB[c", false, 0)), Some(3));
        assert_eq!(exact.judge(b"ab{", false, 0), Verdict::Failed(String::new()));
    }

    #[test]
    fn a_delimiter_is_found_from_where_the_last_search_ended() {
        let until = Expectation::Until { delimiter: b"aab"[..].into(), limit: 100, name: None };
        let input = b"aaaxaaab";
        for seen in 0..input.len() {
            assert_eq!(used(&until.judge(input, false, seen)), Some(8), "{seen}");
        }
    }

    #[test]
    fn a_delimiter_is_found_wherever_the_input_was_cut() {
        let name = Some("line".into());
        let until = Expectation::Until { delimiter: b"\r\n"[..].into(), limit: 8, name };
        assert_eq!(until.judge(b"ab\r", false, 0), Verdict::Open);
        let Verdict::Met { used, captures } = until.judge(b"a\rb\r\nrest", false, 0) else {
            panic!()
        };
        assert_eq!((used, captures), (5, vec![("line".into(), b"a\rb".to_vec())]));
        assert_eq!(until.judge(b"1234567", false, 0), Verdict::Open);
        assert!(matches!(until.judge(b"12345678", false, 0), Verdict::Failed(_)));
        assert!(matches!(until.judge(b"1234567\r\n", false, 0), Verdict::Failed(_)));
    }

    #[test]
    fn the_shortest_match_is_taken_whatever_follows() {
        for pattern in ["abc|ab", "(?:ab|a)c?", "a+", "(?:x|abc|abcd|ab)", "[a-c]+?b?"] {
            let regex = Regex::new(&format!("\\A(?:{pattern})")).unwrap();
            let least = (0..=4).find(|&end| regex.is_match(&b"abcd"[..end])).unwrap();
            assert_eq!(shortest(&regex, b"abcd"), Some(least), "{pattern}");
        }
    }

    #[test]
    fn a_frame_has_the_length_of_its_header() {
        for (format, input) in [(">H", &b"\0\x02abc"[..]), ("<H", b"\x02\0abc"), ("B", b"\x02abc")]
        {
            let header = Header::of(format).unwrap();
            let frame = Expectation::Frame { header, limit: 10, name: None };
            let all = header.bytes + 2;
            assert_eq!(used(&frame.judge(input, false, 0)), Some(all), "{format}");
            for cut in 0..all {
                assert_eq!(frame.judge(&input[..cut], false, 0), Verdict::Open, "{format} {cut}");
            }
        }
        let header = Header::of(">Q").unwrap();
        let frame = Expectation::Frame { header, limit: 10, name: None };
        assert!(matches!(frame.judge(&[255; 8], false, 0), Verdict::Failed(_)));
        for wrong in [">i", "", "x", "HH", "2H", ">", "H3", "256xH", "99999999999999999999xH"] {
            assert!(Header::of(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_header_may_have_other_bytes_and_count_itself() {
        let frame = |format, adjust, input: &[u8]| {
            let header = Header::of(format).unwrap().adjusted(adjust);
            let name = Some("body".into());
            Expectation::Frame { header, limit: 10, name }.judge(input, false, 0)
        };
        let body = |verdict: Verdict| {
            let Verdict::Met { used, captures } = verdict else { panic!("{verdict:?}") };
            (used, captures[0].1.clone())
        };
        assert_eq!(body(frame(">xI", -4, b"Q\0\0\0\x06ab")), (7, b"ab".to_vec()));
        assert_eq!(body(frame("<Tx", 0, b"\x02\0\0\x07ab")), (6, b"ab".to_vec()));
        assert_eq!(body(frame("2xH3x", 0, b"..\0\x01...a")), (8, b"a".to_vec()));
        assert_eq!(frame(">xI", -4, b"Q\0\0\0"), Verdict::Open);
        assert!(
            matches!(frame(">xI", -4, b"Q\0\0\0\x03"), Verdict::Failed(why) if why.contains("3 bytes"))
        );
    }

    #[test]
    fn an_end_and_silence_take_no_byte() {
        assert_eq!(used(&END.judge(b"", true, 0)), Some(0));
        assert!(matches!(END.judge(b"x", true, 0), Verdict::Failed(_)));
        let silence = Expectation::Silence(Duration::ZERO);
        assert_eq!(silence.judge(b"", true, 0), Verdict::Open);
        assert!(matches!(silence.judge(b"x", false, 0), Verdict::Failed(_)));
    }
}
