//! A line of a script: its words, numbers, literals, options. Must never know the steps.

use std::str::FromStr;
use std::time::Duration;

use crate::net::base::unquoted;

/// The most bytes that one expectation may have to keep.
pub(super) const MOST_INPUT: usize = 16 * 1024 * 1024;
/// The longest time of a step. Longer ones are most likely a mistake in the unit.
const MOST_SECONDS: f64 = 366.0 * 86_400.0;
/// Options without a value.
const FLAGS: [&str; 2] = ["ignore_case", "or_reset"];

/// What is wrong with a line.
pub(super) type Line<T> = std::result::Result<T, String>;

/// A line that is read word by word.
pub(super) struct Words<'a> {
    line: &'a str,
    rest: &'a str,
}

impl<'a> Words<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self { line, rest: line }
    }

    /// What was read of the line.
    pub(super) fn read(&self) -> &'a str {
        &self.line[..self.line.len() - self.rest.len()]
    }

    /// The next word, which spaces separate; "" at the end or at a comment.
    pub(super) fn word(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('#') {
            return "";
        }
        let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// The character that the next word begins with.
    pub(super) fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next().filter(|&next| next != '#')
    }

    /// The next word, a literal of bytes.
    pub(super) fn bytes(&mut self) -> Line<Vec<u8>> {
        let (bytes, rest) = unquoted(self.rest.trim_start())?;
        if !(rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            return Err(format!("{rest:?} follows a literal without a space"));
        }
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn some_bytes(&mut self) -> Line<Box<[u8]>> {
        let bytes = self.bytes()?;
        if bytes.is_empty() { Err("needs at least one byte".to_owned()) } else { Ok(bytes.into()) }
    }

    pub(super) fn number<T: FromStr + PartialOrd>(
        &mut self,
        least: T,
        most: T,
        wanted: &str,
    ) -> Line<T> {
        parsed(self.word(), least, most, wanted)
    }

    /// The options at the end of the line, and the source behind them.
    pub(super) fn options(&mut self, known: &[&str]) -> Line<Options> {
        let mut options = Options::default();
        while self.peek().is_some() {
            let word = self.word();
            let (key, value) = match word.split_once('=') {
                Some(both) => both,
                // A flag. Its name is known here only where it is allowed.
                None if FLAGS.contains(&word) && known.contains(&word) => (word, ""),
                None => return Err(format!("{word:?} is one word too many")),
            };
            if !known.contains(&key) || FLAGS.contains(&key) != value.is_empty() {
                return Err(format!("{word} is no option here; known: {}", known.join(", ")));
            }
            match key {
                "limit" => options.limit = Some(parsed(value, 1, MOST_INPUT, "bytes")?),
                "timeout" => options.timeout = Some(seconds(value)?),
                "size" => options.size = Some(parsed(value, 1, MOST_INPUT, "bytes")?),
                "delay" => options.delay = Some(seconds(value)?),
                "adjust" => {
                    let most = MOST_INPUT as i64;
                    options.adjust = parsed(value, -most, most, "bytes")?;
                }
                "name" => options.name = Some(identifier(value)?),
                _ => options.flag = true,
            }
        }
        let source = self.rest.trim_start().strip_prefix("# at ");
        options.source = source.map(|source| source.trim().into());
        Ok(options)
    }

    /// The options of a step with blocks, before its `{`, and the source behind it.
    pub(super) fn options_of_blocks(&mut self, known: &[&str]) -> Line<Options> {
        let (inside, behind) = self.rest.split_once('{').ok_or("needs a {")?;
        let mut before = Words::new(inside);
        let mut options = before.options(known)?;
        if !before.rest.is_empty() {
            return Err("needs a {".to_owned());
        }
        self.rest = behind;
        options.source = self.options(&[])?.source;
        Ok(options)
    }
}

/// What stands behind a step.
#[derive(Default)]
pub(super) struct Options {
    /// One of `FLAGS` is there.
    pub(super) flag: bool,
    pub(super) size: Option<usize>,
    pub(super) delay: Option<Duration>,
    pub(super) adjust: i64,
    pub(super) name: Option<Box<str>>,
    pub(super) limit: Option<usize>,
    pub(super) timeout: Option<Duration>,
    pub(super) source: Option<Box<str>>,
}

/// A number within its bounds.
pub(super) fn parsed<T: FromStr + PartialOrd>(
    word: &str,
    least: T,
    most: T,
    wanted: &str,
) -> Line<T> {
    let number = word.parse::<T>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{word:?} is no number of {wanted} within its bounds"))
}

pub(super) fn seconds(word: &str) -> Line<Duration> {
    parsed(word, 0.0, MOST_SECONDS, "seconds").map(Duration::from_secs_f64)
}

/// A name of what is captured.
pub(super) fn identifier(word: &str) -> Line<Box<str>> {
    let letters = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let is_one = word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && word.chars().all(letters);
    if is_one { Ok(word.into()) } else { Err(format!("{word:?} is no name")) }
}
