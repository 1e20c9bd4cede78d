//! The text form of a script: one step a line. Owns its grammar; must never accept a line that it
//! does not understand whole.
//!
//! ```text
//! timeout 5
//! expect b"HELO "
//! until b"\r\n" name=who limit=100     # at tests/test_smtp.py:12
//! send b"250 hello " {who} b"\r\n"
//! repeat 3 {
//!     frame ">I" limit=1000 timeout=1
//! }
//! either {
//!     expect b"QUIT\r\n"
//! } or {
//!     end
//! }
//! ```

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use regex::bytes::RegexBuilder;

use super::expectation::{Expectation, Header};
use super::program::{Action, Block, Piece, Program, Step, TIMEOUT};
use crate::net::base::unquoted;
use crate::net::error::{Error, Result};

/// The deepest nesting of blocks.
const MOST_DEPTH: usize = 32;
/// The most steps of a script.
const MOST_STEPS: usize = 100_000;
/// The most bytes that one expectation may have to keep.
const MOST_INPUT: usize = 16 * 1024 * 1024;
/// The bytes of a delimited or matched part, unless the step says otherwise.
const LIMIT: usize = 65_536;
/// The longest time of a step. Longer ones are most likely a mistake in the unit.
const MOST_SECONDS: f64 = 366.0 * 86_400.0;
/// What a compiled pattern may take of memory.
const MOST_PATTERN: usize = 1024 * 1024;

/// What is wrong with a line.
type Line<T> = std::result::Result<T, String>;

impl Program {
    /// Reads a script. `Error::Value` names the line that is wrong.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser {
            lines: text.lines().enumerate().collect(),
            next: 0,
            count: 0,
            timeout: TIMEOUT,
            most_input: 1,
            captured: BTreeSet::new(),
            sent: Vec::new(),
        };
        parser.parse().map_err(|wrong| {
            let number = parser.next;
            Error::Value(format!("script, line {number}: {wrong}"))
        })
    }
}

/// How a block ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// With the text.
    Text,
    /// `}`
    Closed,
    /// `} or {`, `} and {`
    Another,
}

struct Parser<'a> {
    lines: Vec<(usize, &'a str)>,
    next: usize,
    count: usize,
    timeout: Duration,
    most_input: usize,
    captured: BTreeSet<Box<str>>,
    /// Names that are sent, each with its line.
    sent: Vec<(Box<str>, usize)>,
}

/// The rest of a line, with what it is made of.
struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    /// The next word, which spaces separate; "" at the end or at a comment.
    fn word(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        if self.rest.starts_with('#') {
            return "";
        }
        let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next().filter(|&next| next != '#')
    }

    fn bytes(&mut self) -> Line<Vec<u8>> {
        let (bytes, rest) = unquoted(self.rest.trim_start())?;
        if !(rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            return Err(format!("{rest:?} follows a literal without a space"));
        }
        self.rest = rest;
        Ok(bytes)
    }

    fn some_bytes(&mut self) -> Line<Box<[u8]>> {
        let bytes = self.bytes()?;
        if bytes.is_empty() { Err("needs at least one byte".to_owned()) } else { Ok(bytes.into()) }
    }

    fn number<T: FromStr + PartialOrd>(&mut self, least: T, most: T, wanted: &str) -> Line<T> {
        parsed(self.word(), least, most, wanted)
    }

    /// The options at the end of the line, and the source behind them.
    fn options(&mut self, known: &[&str]) -> Line<Options> {
        let mut options = Options::default();
        while self.peek().is_some() {
            let word = self.word();
            let Some((key, value)) = word.split_once('=') else {
                return Err(format!("{word:?} is one word too many"));
            };
            if !known.contains(&key) {
                return Err(format!("{key}= is no option here; known: {}", known.join(", ")));
            }
            match key {
                "limit" => options.limit = Some(parsed(value, 1, MOST_INPUT, "bytes")?),
                "timeout" => options.timeout = Some(seconds(value)?),
                _ => options.name = Some(identifier(value)?),
            }
        }
        let source = self.rest.trim_start().strip_prefix("# at ");
        options.source = source.map(|source| source.trim().into());
        Ok(options)
    }
}

#[derive(Default)]
struct Options {
    name: Option<Box<str>>,
    limit: Option<usize>,
    timeout: Option<Duration>,
    source: Option<Box<str>>,
}

fn parsed<T: FromStr + PartialOrd>(word: &str, least: T, most: T, wanted: &str) -> Line<T> {
    let number = word.parse::<T>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{word:?} is no number of {wanted} within its bounds"))
}

fn seconds(word: &str) -> Line<Duration> {
    parsed(word, 0.0, MOST_SECONDS, "seconds").map(Duration::from_secs_f64)
}

fn identifier(word: &str) -> Line<Box<str>> {
    let letters = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let is_one = word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && word.chars().all(letters);
    if is_one { Ok(word.into()) } else { Err(format!("{word:?} is no name")) }
}

impl Parser<'_> {
    fn parse(&mut self) -> Line<Program> {
        let (steps, _) = self.block(0)?;
        if let Some((name, line)) =
            self.sent.iter().find(|(name, _)| !self.captured.contains(name)).cloned()
        {
            self.next = line;
            return Err(format!("{{{name}}}: no step captures this name"));
        }
        let most_input = self.most_input;
        Ok(Program { steps, count: self.count, timeout: self.timeout, most_input })
    }

    /// The steps up to the end of a block.
    fn block(&mut self, depth: usize) -> Line<(Block, End)> {
        if depth > MOST_DEPTH {
            return Err(format!("blocks are nested more than {MOST_DEPTH} deep"));
        }
        let mut steps = Vec::new();
        while let Some(&(number, line)) = self.lines.get(self.next) {
            self.next = number + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if depth > 0 {
                match line {
                    "}" => return Ok((steps.into(), End::Closed)),
                    "} or {" | "} and {" => return Ok((steps.into(), End::Another)),
                    _ => {}
                }
            }
            let mut words = Words { rest: line };
            if depth == 0 && line.starts_with("timeout ") {
                words.word();
                self.timeout = seconds(words.word())?;
                words.options(&[])?;
                continue;
            }
            if self.count == MOST_STEPS {
                return Err(format!("more than {MOST_STEPS} steps"));
            }
            self.count += 1;
            steps.push(self.step(self.count, line, &mut words, depth)?);
        }
        if depth > 0 {
            Err("a block has no closing }".to_owned())
        } else {
            Ok((steps.into(), End::Text))
        }
    }

    fn step(
        &mut self,
        number: usize,
        line: &str,
        words: &mut Words<'_>,
        depth: usize,
    ) -> Line<Step> {
        let word = words.word();
        let (action, options) = match word {
            "repeat" => {
                let count = words.number(1, u64::MAX, "rounds")?;
                let options = self.opening(words)?;
                let (block, end) = self.block(depth + 1)?;
                if end == End::Another {
                    return Err("a repeated block has one part".to_owned());
                }
                if block.is_empty() {
                    return Err("a repeated block needs a step".to_owned());
                }
                (Action::Repeat(count, block), options)
            }
            "either" => {
                let options = self.opening(words)?;
                (Action::Either(self.choices(depth)?), options)
            }
            "any" => {
                if words.word() != "order" {
                    return Err("say: any order {".to_owned());
                }
                let options = self.opening(words)?;
                (Action::AnyOrder(self.choices(depth)?), options)
            }
            "send" => (self.send(words)?, words.options(&["timeout"])?),
            "wait" => {
                let time = seconds(words.word())?;
                (Action::Wait(time), words.options(&[])?)
            }
            "close" => (Action::Close, words.options(&[])?),
            "reset" => (Action::Reset, words.options(&[])?),
            "shutdown" | "pause" | "resume" => {
                let action = match (word, words.word()) {
                    ("shutdown", "write") => Action::ShutdownWrite,
                    ("pause", "reading") => Action::PauseReading,
                    ("resume", "reading") => Action::ResumeReading,
                    (word, other) => return Err(format!("{word} {other:?}: no such step")),
                };
                (action, words.options(&[])?)
            }
            _ => self.expectation(word, words)?,
        };
        let text = line.split(" # at ").next().unwrap_or(line).trim().trim_end_matches(" {").into();
        let Options { source, timeout, .. } = options;
        Ok(Step { number, text, source, timeout, action })
    }

    fn opening(&mut self, words: &mut Words<'_>) -> Line<Options> {
        if words.word() == "{" { words.options(&[]) } else { Err("needs a {".to_owned()) }
    }

    /// The blocks of a choice, each of which begins with an expectation.
    fn choices(&mut self, depth: usize) -> Line<Vec<Block>> {
        let mut blocks = Vec::new();
        loop {
            let (block, end) = self.block(depth + 1)?;
            if !matches!(block.first(), Some(Step { action: Action::Expect(_), .. })) {
                return Err("each part of a choice begins with an expectation".to_owned());
            }
            blocks.push(block);
            if end == End::Closed {
                return Ok(blocks);
            }
        }
    }

    fn send(&mut self, words: &mut Words<'_>) -> Line<Action> {
        let mut pieces = Vec::new();
        loop {
            match words.peek() {
                Some('{') => {
                    let word = words.word();
                    let name = word.strip_prefix('{').and_then(|word| word.strip_suffix('}'));
                    let name = identifier(name.unwrap_or(word))?;
                    self.sent.push((name.clone(), self.next));
                    pieces.push(Piece::Captured(name));
                }
                Some('b') => pieces.push(Piece::Bytes(words.bytes()?.into())),
                _ if pieces.is_empty() => return Err("send needs bytes".to_owned()),
                _ => return Ok(Action::Send(pieces)),
            }
        }
    }

    fn expectation(&mut self, word: &str, words: &mut Words<'_>) -> Line<(Action, Options)> {
        let (expectation, options) = match word {
            "expect" => {
                let bytes = words.some_bytes()?;
                (Expectation::Exactly(bytes), words.options(&["timeout"])?)
            }
            "until" => {
                let delimiter = words.some_bytes()?;
                let mut options = words.options(&["name", "limit", "timeout"])?;
                let (limit, name) = (options.limit.unwrap_or(LIMIT), options.name.take());
                (Expectation::Until { delimiter, limit, name }, options)
            }
            "pattern" => {
                let pattern = words.bytes()?;
                let options = words.options(&["limit", "timeout"])?;
                (self.pattern(&pattern, options.limit.unwrap_or(LIMIT))?, options)
            }
            "length" => {
                let count = words.number(1, MOST_INPUT, "bytes")?;
                let mut options = words.options(&["name", "timeout"])?;
                (Expectation::Length { count, name: options.name.take() }, options)
            }
            "frame" => {
                let format = words.word();
                let header = Header::of(format.trim_matches('"'))
                    .ok_or_else(|| format!("{format}: no header, such as \">I\""))?;
                let mut options = words.options(&["name", "limit", "timeout"])?;
                let (limit, name) = (options.limit.unwrap_or(LIMIT), options.name.take());
                (Expectation::Frame { header, limit, name }, options)
            }
            "end" => (Expectation::End, words.options(&["timeout"])?),
            "silence" => {
                let time = seconds(words.word())?;
                (Expectation::Silence(time), words.options(&[])?)
            }
            _ => return Err(format!("{word:?}: no such step")),
        };
        if let Expectation::Until { name: Some(name), .. }
        | Expectation::Length { name: Some(name), .. }
        | Expectation::Frame { name: Some(name), .. } = &expectation
        {
            self.captured.insert(name.clone());
        }
        self.most_input = self.most_input.max(expectation.most_input());
        Ok((Action::Expect(expectation), options))
    }

    /// A pattern that is matched from the first byte on.
    fn pattern(&mut self, pattern: &[u8], limit: usize) -> Line<Expectation> {
        let text = std::str::from_utf8(pattern).map_err(|_| "a pattern is ASCII".to_owned())?;
        let regex = RegexBuilder::new(&format!("\\A(?:{text})"))
            .unicode(false)
            .size_limit(MOST_PATTERN)
            .build()
            .map_err(|error| format!("pattern: {error}"))?;
        let names = regex.capture_names().flatten().map(Into::into);
        self.captured.extend(names);
        Ok(Expectation::Pattern { regex, limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        match Program::parse(text) {
            Err(Error::Value(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn steps_are_numbered_in_the_order_of_writing() {
        let program = Program::parse(
            "timeout 2.5\n\nexpect b\"a\" timeout=1 # at test_x.py:3\nrepeat 2 {\n  send b\"b\"\n}\n\
             either {\n expect b\"c\"\n} or {\n end\n}\nclose",
        )
        .unwrap();
        assert_eq!((program.count, program.timeout), (7, Duration::from_millis(2_500)));
        let first = &program.steps[0];
        assert_eq!((first.number, &*first.text), (1, "expect b\"a\" timeout=1"));
        assert_eq!(first.source.as_deref(), Some("test_x.py:3"));
        assert_eq!(first.timeout, Some(Duration::from_secs(1)));
        let numbers: Vec<_> = program.steps.iter().map(|step| step.number).collect();
        assert_eq!(numbers, [1, 2, 4, 7]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, part) in [
            ("\nexpct b\"a\"", "line 2: \"expct\""),
            ("expect a", "line 1: \"a\" is no bytes literal"),
            ("expect b\"\"", "at least one byte"),
            ("expect b\"a\" b\"b\"", "one word too many"),
            ("expect b\"a\" limit=3", "no option here"),
            ("wait -1", "seconds"),
            ("wait nan", "seconds"),
            ("repeat 0 {\n}", "rounds"),
            ("repeat 2 {\n}", "needs a step"),
            ("repeat 2 {\nclose", "no closing }"),
            ("either {\nsend b\"a\"\n}", "begins with an expectation"),
            ("send {who}", "line 1: {who}: no step captures"),
            ("length 0", "bytes"),
            ("frame \">i\"", "no header"),
            ("pattern b\"(\"", "pattern"),
            ("}", "no such step"),
        ] {
            let found = wrong(text);
            assert!(found.contains(part), "{text}: {found}");
        }
        wrong(&"repeat 1 {\n".repeat(100));
    }
}
