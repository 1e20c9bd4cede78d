//! What a step waits for: exact bytes, a delimiter, a pattern, a length, a frame, an end, silence.
//! Must never keep input: it is asked with all that has come and was not used.

use std::sync::Arc;
use std::time::Duration;

use super::header::Header;
use super::pattern::Pattern;
use super::verdict::Verdict;
use crate::net::services::dialogue::find;

/// What a step waits for.
#[derive(Debug)]
pub(super) enum Expectation {
    /// These bytes next; ASCII letters of either case, if `ignore_case`.
    Exactly { bytes: Box<[u8]>, ignore_case: bool },
    /// Bytes up to this delimiter, which is used too.
    Until { delimiter: Box<[u8]>, limit: usize, name: Option<Box<str>> },
    /// Input that begins with a match; as soon as there is one.
    Pattern { pattern: Arc<Pattern>, limit: usize },
    /// That many bytes.
    Length { count: usize, name: Option<Box<str>> },
    /// A header with the length of what follows it.
    Frame { header: Header, limit: usize, name: Option<Box<str>> },
    /// The peer's FIN next, or its reset too.
    End { or_reset: bool },
    /// Nothing for a time.
    Silence(Duration),
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
        match self {
            Self::Exactly { bytes, ignore_case } => exactly(bytes, *ignore_case, input),
            Self::Until { delimiter, limit, name } => match find_behind(input, delimiter, seen) {
                Some(at) if at + delimiter.len() <= *limit => {
                    Verdict::named(at + delimiter.len(), name.as_deref(), &input[..at])
                }
                None if input.len() < *limit => Verdict::Open,
                _ => Verdict::over(*limit),
            },
            Self::Pattern { pattern, limit } => pattern.judge(input, *limit),
            Self::Length { count, name } => match input.get(..*count) {
                Some(part) => Verdict::named(*count, name.as_deref(), part),
                None => Verdict::Open,
            },
            Self::Frame { header, limit, name } => header.judge(input, *limit, name.as_deref()),
            Self::End { .. } | Self::Silence(_) if !input.is_empty() => {
                Verdict::Failed("bytes came".to_owned())
            }
            Self::End { .. } if ended => Verdict::met(0),
            Self::End { .. } | Self::Silence(_) => Verdict::Open,
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

fn exactly(bytes: &[u8], ignore_case: bool, input: &[u8]) -> Verdict {
    let length = bytes.len().min(input.len());
    let (one, other) = (&bytes[..length], &input[..length]);
    match one == other || ignore_case && one.eq_ignore_ascii_case(other) {
        true if length == bytes.len() => Verdict::met(length),
        true => Verdict::Open,
        false => Verdict::Failed(String::new()),
    }
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

    #[test]
    fn exact_bytes_fail_at_the_first_difference() {
        let exact = exactly(b"abc", false);
        assert_eq!(exact.judge(b"", false, 0), Verdict::Open);
        assert_eq!(exact.judge(b"ab", false, 0), Verdict::Open);
        assert_eq!(exact.judge(b"abcd", false, 0).used(), Some(3));
        assert_eq!(exact.judge(b"ax", false, 0), Verdict::Failed(String::new()));
        assert!(matches!(exact.judge(b"ab", true, 0), Verdict::Failed(why) if why.contains("FIN")));
    }

    #[test]
    fn letters_of_either_case_are_exact_where_it_is_ignored() {
        let exact = exactly(b"Ab[", true);
        assert_eq!(exact.judge(b"aB", false, 0), Verdict::Open);
        assert_eq!(exact.judge(b"aB[c", false, 0).used(), Some(3));
        assert_eq!(exact.judge(b"ab{", false, 0), Verdict::Failed(String::new()));
    }

    #[test]
    fn a_delimiter_is_found_from_where_the_last_search_ended() {
        let until = Expectation::Until { delimiter: b"aab"[..].into(), limit: 100, name: None };
        let input = b"aaaxaaab";
        for seen in 0..input.len() {
            assert_eq!(until.judge(input, false, seen).used(), Some(8), "{seen}");
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
    fn an_end_and_silence_take_no_byte() {
        assert_eq!(END.judge(b"", true, 0).used(), Some(0));
        assert!(matches!(END.judge(b"x", true, 0), Verdict::Failed(_)));
        let silence = Expectation::Silence(Duration::ZERO);
        assert_eq!(silence.judge(b"", true, 0), Verdict::Open);
        assert!(matches!(silence.judge(b"x", false, 0), Verdict::Failed(_)));
    }
}
