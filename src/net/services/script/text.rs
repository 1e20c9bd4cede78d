//! The text form of a script: one step a line. Owns its grammar; must never accept a line that it
//! does not understand whole.
//!
//! ```text
//! timeout 5
//! expect b"HELO " ignore_case
//! until b"\r\n" name=who limit=100     # at tests/test_smtp.py:12
//! send b"250 hello " {who} b"\r\n"
//! start_tls timeout=2
//! repeat 3 {
//!     frame ">I" limit=1000 timeout=1
//! }
//! repeat until end {
//!     timeout 2
//!     until b"\n"
//!     send b"slow" size=1 delay=0.1
//! }
//! either timeout=1 {
//!     expect b"QUIT\r\n"
//! } or {
//!     end or_reset
//! }
//! ```

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind, Look};

use super::expectation::{Expectation, Header};
use super::program::{Action, Block, Patterns, Piece, Program, Slices, Step, TIMEOUT};
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
/// The longest text of a step in a report.
const MOST_TEXT: usize = 160;
/// What a compiled pattern may take of memory.
const MOST_PATTERN: usize = 1024 * 1024;

/// What is wrong with a line.
type Line<T> = std::result::Result<T, String>;

impl Program {
    /// Reads a script. `Error::Value` names the line that is wrong. Patterns that one of `known` has
    /// too are not compiled again.
    pub(super) fn parse(text: &str, known: &[&Program]) -> Result<Self> {
        let mut parser = Parser {
            lines: text.lines().enumerate().collect(),
            next: 0,
            count: 0,
            timeout: TIMEOUT,
            most_input: 1,
            tls_line: None,
            captured: BTreeSet::new(),
            sent: Vec::new(),
            patterns: Patterns::new(),
            known,
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
    tls_line: Option<usize>,
    captured: BTreeSet<Box<str>>,
    /// Names that are sent, each with its line.
    sent: Vec<(Box<str>, usize)>,
    patterns: Patterns,
    known: &'a [&'a Program],
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
}

/// Options without a value.
const FLAGS: [&str; 2] = ["ignore_case", "or_reset"];

#[derive(Default)]
struct Options {
    flag: bool,
    size: Option<usize>,
    delay: Option<Duration>,
    adjust: i64,
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
        let steps: Block = steps.into();
        self.check(&steps, false)?;
        if let Some((name, line)) =
            self.sent.iter().find(|(name, _)| !self.captured.contains(name)).cloned()
        {
            self.next = line;
            return Err(format!("{{{name}}}: no step captures this name"));
        }
        let patterns = std::mem::take(&mut self.patterns);
        let (count, timeout, most_input) = (self.count, self.timeout, self.most_input);
        let tls_line = self.tls_line;
        Ok(Program { steps, count, timeout, most_input, tls_line, patterns })
    }

    /// Refuses steps that can never be played: behind the end, or sent behind our FIN. Returns
    /// whether our FIN was sent for certain.
    fn check(&mut self, steps: &[Step], mut is_shut: bool) -> Line<bool> {
        let mut ended: Option<&Step> = None;
        for step in steps {
            if let Some(end) = ended {
                self.next = step.line;
                return Err(format!("no step follows {}", end.text));
            }
            match &step.action {
                Action::Close | Action::Reset => ended = Some(step),
                Action::ShutdownWrite => is_shut = true,
                Action::Send(..) | Action::StartTls if is_shut => {
                    self.next = step.line;
                    return Err("nothing can be sent: shutdown write comes before it".to_owned());
                }
                Action::Repeat(count, block) => {
                    let after = self.check(block, is_shut)?;
                    if *count > 1 && after != is_shut {
                        self.check(block, after)?;
                    }
                    is_shut = after;
                }
                Action::Either(blocks)
                | Action::AnyOrder(blocks)
                | Action::RepeatUntilEnd(blocks) => {
                    for block in blocks {
                        self.check(block, is_shut)?;
                    }
                }
                _ => {}
            }
        }
        Ok(is_shut)
    }

    /// The steps up to the end of a block.
    fn block(&mut self, depth: usize) -> Line<(Vec<Step>, End)> {
        if depth > MOST_DEPTH {
            return Err(format!("blocks are nested more than {MOST_DEPTH} deep"));
        }
        let mut steps = Vec::new();
        let mut timeout = None;
        while let Some(&(number, line)) = self.lines.get(self.next) {
            self.next = number + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let end = match line {
                "}" => Some(End::Closed),
                "} or {" | "} and {" => Some(End::Another),
                _ => None,
            };
            if let (Some(end), true) = (end, depth > 0) {
                if let Some(timeout) = timeout {
                    limit_steps(&mut steps, timeout);
                }
                return Ok((steps, end));
            }
            let mut words = Words { rest: line };
            if line.starts_with("timeout ") {
                words.word();
                let time = seconds(words.word())?;
                words.options(&[])?;
                // That of a block holds for its steps, those of inner blocks included.
                if depth > 0 {
                    timeout = Some(time)
                } else {
                    self.timeout = time
                }
                continue;
            }
            if self.count == MOST_STEPS {
                return Err(format!("more than {MOST_STEPS} steps"));
            }
            self.count += 1;
            steps.push(self.step((self.count, self.next), line, &mut words, depth)?);
        }
        if depth > 0 { Err("a block has no closing }".to_owned()) } else { Ok((steps, End::Text)) }
    }

    fn step(
        &mut self,
        place: (usize, usize),
        line: &str,
        words: &mut Words<'_>,
        depth: usize,
    ) -> Line<Step> {
        let word = words.word();
        let (action, options) = match word {
            "repeat" => {
                let count = match words.word() {
                    "until" if words.word() == "end" => None,
                    word => Some(parsed(word, 1, u64::MAX, "rounds")?),
                };
                let known: &[&str] = if count.is_none() { &["timeout"] } else { &[] };
                let options = opening(words, known)?;
                let (block, end) = self.block(depth + 1)?;
                if end == End::Another {
                    return Err("a repeated block has one part".to_owned());
                }
                if block.is_empty() {
                    return Err("a repeated block needs a step".to_owned());
                }
                let Some(count) = count else {
                    let is_choice = matches!(&block[..], [Step { action: Action::Either(_), .. }]);
                    let mut blocks: Vec<Block> = vec![block.into()];
                    if is_choice {
                        // Its parts and the end are one choice.
                        if let Action::Either(parts) = &blocks[0][0].action {
                            blocks = parts.clone();
                        }
                    }
                    let waits = |block: &Block| {
                        let first = block.first().map(|step| &step.action);
                        let is_end = matches!(first, Some(Action::Expect(Expectation::End { .. })));
                        begins_with_input(block) && !is_end
                    };
                    if !blocks.iter().all(waits) {
                        // Or it would go on without waiting.
                        let why = "what is repeated until the end begins with expected bytes";
                        return Err(why.to_owned());
                    }
                    let end = Step {
                        number: place.0,
                        line: place.1,
                        text: "end or_reset".into(),
                        source: None,
                        timeout: None,
                        action: Action::Expect(Expectation::End { or_reset: true }),
                    };
                    blocks.push(Arc::from([end]));
                    return Ok(finished(
                        place,
                        line,
                        words,
                        (Action::RepeatUntilEnd(blocks), options),
                    ));
                };
                (Action::Repeat(count, block.into()), options)
            }
            "either" => {
                let options = opening(words, &["timeout"])?;
                (Action::Either(self.choices(depth, true)?), options)
            }
            "any" => {
                if words.word() != "order" {
                    return Err("say: any order {".to_owned());
                }
                let options = opening(words, &["timeout"])?;
                (Action::AnyOrder(self.choices(depth, false)?), options)
            }
            "send" => {
                let pieces = self.send(words)?;
                let options = words.options(&["size", "delay", "timeout"])?;
                let slices = options
                    .size
                    .map(|size| Slices { size, delay: options.delay.unwrap_or_default() });
                if slices.is_none() && options.delay.is_some() {
                    return Err("delay= needs size=".to_owned());
                }
                (Action::Send(pieces, slices), options)
            }
            "wait" => {
                let time = seconds(words.word())?;
                (Action::Wait(time), words.options(&[])?)
            }
            "start_tls" => {
                self.tls_line.get_or_insert(self.next);
                (Action::StartTls, words.options(&["timeout"])?)
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
        Ok(finished(place, line, words, (action, options)))
    }

    /// The blocks of a choice, each of which begins with an expectation.
    fn choices(&mut self, depth: usize, may_be_silent: bool) -> Line<Vec<Block>> {
        let mut blocks = Vec::new();
        loop {
            let (block, end) = self.block(depth + 1)?;
            if !(begins_with_input(&block) || may_be_silent && begins_with_silence(&block)) {
                return Err("each part of a choice begins with an expectation".to_owned());
            }
            blocks.push(block.into());
            if end == End::Closed {
                return Ok(blocks);
            }
        }
    }

    fn send(&mut self, words: &mut Words<'_>) -> Line<Vec<Piece>> {
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
                _ => return Ok(pieces),
            }
        }
    }

    fn expectation(&mut self, word: &str, words: &mut Words<'_>) -> Line<(Action, Options)> {
        let (expectation, options) = match word {
            "expect" => {
                let bytes = words.some_bytes()?;
                let options = words.options(&["ignore_case", "timeout"])?;
                (Expectation::Exactly { bytes, ignore_case: options.flag }, options)
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
                let mut options = words.options(&["name", "limit", "adjust", "timeout"])?;
                let header = header.adjusted(options.adjust);
                let (limit, name) = (options.limit.unwrap_or(LIMIT), options.name.take());
                (Expectation::Frame { header, limit, name }, options)
            }
            "end" => {
                let options = words.options(&["or_reset", "timeout"])?;
                (Expectation::End { or_reset: options.flag }, options)
            }
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
        let regex = if let Some(regex) = self.patterns.get(text) {
            Arc::clone(regex)
        } else {
            let known = self.known.iter().find_map(|program| program.patterns.get(text));
            let regex =
                known.map_or_else(|| compiled(text).map(Arc::new), |regex| Ok(regex.clone()))?;
            self.patterns.insert(text.to_owned(), Arc::clone(&regex));
            let names = regex.capture_names().flatten().map(Into::into);
            self.captured.extend(names);
            regex
        };
        Ok(Expectation::Pattern { regex, limit })
    }
}

fn compiled(text: &str) -> Line<Regex> {
    let wrong = |error: &dyn std::fmt::Display| format!("pattern: {error}");
    let parsed = ParserBuilder::new().unicode(false).utf8(false).build().parse(text);
    let parsed = parsed.map_err(|error| wrong(&error))?;
    if parsed.properties().minimum_len() == Some(0) {
        return Err("a pattern must not match nothing: as little as matches is taken".to_owned());
    }
    if may_end_with_look(&parsed) {
        // Whether it matches would depend on how the peer's bytes are cut.
        return Err(
            "a pattern must not end with $, \\z, \\b or \\B: more bytes may follow".to_owned()
        );
    }
    RegexBuilder::new(&format!("\\A(?:{text})"))
        .unicode(false)
        .size_limit(MOST_PATTERN)
        .build()
        .map_err(|error| wrong(&error))
}

/// Whether the last thing that a pattern asks for may be what follows it.
fn may_end_with_look(pattern: &Hir) -> bool {
    match pattern.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) => false,
        HirKind::Look(look) => !matches!(look, Look::Start | Look::StartLF | Look::StartCRLF),
        HirKind::Repetition(repetition) => may_end_with_look(&repetition.sub),
        HirKind::Capture(group) => may_end_with_look(&group.sub),
        HirKind::Alternation(parts) => parts.iter().any(may_end_with_look),
        HirKind::Concat(parts) => {
            for part in parts.iter().rev() {
                if may_end_with_look(part) {
                    return true;
                }
                if part.properties().minimum_len().is_none_or(|least| least > 0) {
                    break;
                }
            }
            false
        }
    }
}

/// The options of a step with blocks, before its `{`.
fn opening(words: &mut Words<'_>, known: &[&str]) -> Line<Options> {
    let (inside, behind) = words.rest.split_once('{').ok_or("needs a {")?;
    let mut before = Words { rest: inside };
    let mut options = before.options(known)?;
    if !before.rest.is_empty() {
        return Err("needs a {".to_owned());
    }
    words.rest = behind;
    options.source = words.options(&[])?.source;
    Ok(options)
}

/// Steps without a time of their own get this one.
fn limit_steps(steps: &mut [Step], timeout: Duration) {
    for step in steps {
        step.timeout.get_or_insert(timeout);
        match &mut step.action {
            Action::Repeat(_, block) => limit_block(block, timeout),
            Action::Either(blocks) | Action::AnyOrder(blocks) | Action::RepeatUntilEnd(blocks) => {
                blocks.iter_mut().for_each(|block| limit_block(block, timeout));
            }
            _ => {}
        }
    }
}

fn limit_block(block: &mut Block, timeout: Duration) {
    limit_steps(Arc::get_mut(block).expect("a program that is being read is not shared"), timeout);
}

fn begins_with_silence(block: &[Step]) -> bool {
    let first = block.first().map(|step| &step.action);
    matches!(first, Some(Action::Expect(Expectation::Silence(_))))
}

fn begins_with_input(block: &[Step]) -> bool {
    let first = block.first().map(|step| &step.action);
    matches!(first, Some(Action::Expect(_))) && !begins_with_silence(block)
}

/// A step, number and line of which are `place`, whose text was read up to the rest of `words`.
fn finished(
    place: (usize, usize),
    text: &str,
    words: &Words<'_>,
    (action, options): (Action, Options),
) -> Step {
    let (number, line) = place;
    let text = text[..text.len() - words.rest.len()].trim().trim_end_matches(" {");
    let text = match text.char_indices().nth(MOST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    };
    let Options { source, timeout, .. } = options;
    Step { number, line, text, source, timeout, action }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        match Program::parse(text, &[]) {
            Err(Error::Value(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn steps_are_numbered_in_the_order_of_writing() {
        let program = Program::parse(
            "timeout 2.5\n\nexpect b\"a\" timeout=1 # at test_x.py:3\nrepeat 2 {\n  send b\"b\"\n}\n\
             either {\n expect b\"c\"\n} or {\n end\n}\nclose",
            &[],
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
            ("pattern b\"a$\"", "must not end with $"),
            ("pattern b\"a\\\\b\"", "must not end with $"),
            ("pattern b\"(a|b$)c?\"", "must not end with $"),
            ("pattern b\"b(?:a\\\\b)*\"", "must not end with $"),
            ("close\nexpect b\"a\"", "no step follows close"),
            ("shutdown write\nsend b\"a\"", "shutdown write comes before it"),
            ("repeat 2 {\nsend b\"a\"\nshutdown write\n}", "shutdown write comes before it"),
            ("shutdown write\neither {\nend\nsend b\"a\"\n}", "shutdown write comes before it"),
            ("send b\"a\" delay=1", "delay= needs size="),
            ("send b\"a\" size=0", "bytes"),
            ("end ignore_case", "one word too many"),
            ("end or_reset=1", "no option here"),
            ("expect b\"a\" timeout", "one word too many"),
            ("repeat until end {\nsend b\"a\"\n}", "begins with expected bytes"),
            ("repeat until end {\nend\n}", "begins with expected bytes"),
            ("repeat until end {\nsilence 1\n}", "begins with expected bytes"),
            ("pattern b\"a*\"", "must not match nothing"),
            ("repeat until now {\nend\n}", "rounds"),
            ("any order {\nsilence 1\n}", "begins with an expectation"),
            ("}", "no such step"),
            ("start_tls now", "one word too many"),
            ("shutdown write\nstart_tls", "shutdown write comes before it"),
        ] {
            let found = wrong(text);
            assert!(found.contains(part), "{text}: {found}");
        }
        wrong(&"repeat 1 {\n".repeat(100));
        Program::parse("pattern b\"^a\\\\b[^c]c(?m:^)\"", &[]).unwrap();
    }
}
