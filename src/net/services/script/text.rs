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
use std::sync::Arc;
use std::time::Duration;

use super::expectation::Expectation;
use super::header::Header;
use super::pattern::Pattern;
use super::program::{Action, Block, Patterns, Piece, Program, Slices, Step, TIMEOUT};
use super::words::{Line, MOST_INPUT, Options, Words, identifier, parsed, seconds};
use crate::net::error::{Error, Result};

/// The deepest nesting of blocks.
const MOST_DEPTH: usize = 32;
/// The most steps of a script.
const MOST_STEPS: usize = 100_000;
/// The bytes of a delimited or matched part, unless the step says otherwise.
const LIMIT: usize = 65_536;
/// The longest text of a step in a report.
const MOST_TEXT: usize = 160;

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

/// Where a step is: its number in the script, and its line.
#[derive(Clone, Copy)]
struct Place {
    number: usize,
    line: usize,
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
            let mut words = Words::new(line);
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
            steps.push(self.step(&mut words, depth)?);
        }
        if depth > 0 { Err("a block has no closing }".to_owned()) } else { Ok((steps, End::Text)) }
    }

    fn step(&mut self, words: &mut Words<'_>, depth: usize) -> Line<Step> {
        // Those of the steps in its blocks follow.
        let place = Place { number: self.count, line: self.next };
        let word = words.word();
        let (action, options) = match word {
            "repeat" => self.repeat(place, words, depth)?,
            "either" => {
                let options = words.options_of_blocks(&["timeout"])?;
                (Action::Either(self.choices(depth, true)?), options)
            }
            "any" => {
                if words.word() != "order" {
                    return Err("say: any order {".to_owned());
                }
                let options = words.options_of_blocks(&["timeout"])?;
                (Action::AnyOrder(self.choices(depth, false)?), options)
            }
            "send" => self.send(words)?,
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
        Ok(finished(place, words, (action, options)))
    }

    /// A block that is repeated, a number of times or until the end.
    fn repeat(
        &mut self,
        place: Place,
        words: &mut Words<'_>,
        depth: usize,
    ) -> Line<(Action, Options)> {
        let rounds = match words.word() {
            "until" if words.word() == "end" => None,
            word => Some(parsed(word, 1, u64::MAX, "rounds")?),
        };
        let known: &[&str] = if rounds.is_none() { &["timeout"] } else { &[] };
        let mut options = words.options_of_blocks(known)?;
        let (block, end) = self.block(depth + 1)?;
        if end == End::Another {
            return Err("a repeated block has one part".to_owned());
        }
        if block.is_empty() {
            return Err("a repeated block needs a step".to_owned());
        }
        let action = match rounds {
            Some(rounds) => Action::Repeat(rounds, block.into()),
            None => {
                if let [Step { action: Action::Either(_), timeout, .. }] = &block[..] {
                    options.timeout = options.timeout.or(*timeout);
                }
                Action::RepeatUntilEnd(until_end(place, block.into())?)
            }
        };
        Ok((action, options))
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

    fn send(&mut self, words: &mut Words<'_>) -> Line<(Action, Options)> {
        let pieces = self.pieces(words)?;
        let options = words.options(&["size", "delay", "timeout"])?;
        let slices =
            options.size.map(|size| Slices { size, delay: options.delay.unwrap_or_default() });
        if slices.is_none() && options.delay.is_some() {
            return Err("delay= needs size=".to_owned());
        }
        Ok((Action::Send(pieces, slices), options))
    }

    fn pieces(&mut self, words: &mut Words<'_>) -> Line<Vec<Piece>> {
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
        let pattern = if let Some(pattern) = self.patterns.get(text) {
            Arc::clone(pattern)
        } else {
            let known = self.known.iter().find_map(|program| program.patterns.get(text));
            let pattern = match known {
                Some(pattern) => Arc::clone(pattern),
                None => Arc::new(Pattern::new(text)?),
            };
            self.patterns.insert(text.to_owned(), Arc::clone(&pattern));
            self.captured.extend(pattern.names().map(Into::into));
            pattern
        };
        Ok(Expectation::Pattern { pattern, limit })
    }
}

/// Steps without a time of their own get this one. A choice without one has those of its parts.
fn limit_steps(steps: &mut [Step], timeout: Duration) {
    for step in steps {
        match &mut step.action {
            Action::Repeat(_, block) => limit_block(block, timeout),
            Action::Either(blocks) | Action::AnyOrder(blocks) | Action::RepeatUntilEnd(blocks) => {
                blocks.iter_mut().for_each(|block| limit_block(block, timeout));
            }
            _ => drop(step.timeout.get_or_insert(timeout)),
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

fn begins_with_bytes(block: &[Step]) -> bool {
    let first = block.first().map(|step| &step.action);
    let is_end = matches!(first, Some(Action::Expect(Expectation::End { .. })));
    begins_with_input(block) && !is_end
}

/// The parts of a choice that is repeated, the last of which is the end: those of a block that is a
/// choice itself, or the block.
fn until_end(place: Place, block: Block) -> Line<Vec<Block>> {
    let mut parts = match &block[..] {
        [Step { action: Action::Either(parts), .. }] => parts.clone(),
        _ => vec![block],
    };
    if !parts.iter().all(|part| begins_with_bytes(part)) {
        // Or it would go on without waiting.
        return Err("what is repeated until the end begins with expected bytes".to_owned());
    }
    let end = Step {
        number: place.number,
        line: place.line,
        text: "end or_reset".into(),
        source: None,
        timeout: None,
        action: Action::Expect(Expectation::End { or_reset: true }),
    };
    parts.push(Arc::from([end]));
    Ok(parts)
}

/// The step of a line that was read.
fn finished(place: Place, words: &Words<'_>, (action, options): (Action, Options)) -> Step {
    let Place { number, line } = place;
    let text = words.read().trim().trim_end_matches(" {");
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
