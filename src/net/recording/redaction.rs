//! The patterns of what a recording must not have. Owns when a match is decided: never before the
//! bytes are there on which it depends.

use std::fmt;
use std::sync::Arc;

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures;
use regex_automata::util::{start, syntax};
use regex_automata::{Anchored, Input};

use crate::net::error::{Error, Result};

/// What stands in a recording in place of what a rule has matched, unless the rule says otherwise.
pub const REDACTED: &[u8] = b"[redacted]";
/// The longest replacement.
const MOST_REPLACEMENT: usize = 1024;
/// The most rules. Each one looks at every byte.
const MOST_RULES: usize = 1000;
/// What a compiled pattern may take of memory.
const MOST_PATTERN: usize = 1024 * 1024;
/// What an automaton keeps of its states. A pattern that needs more takes the least that it can do
/// with.
const MOST_CACHE: usize = 256 * 1024;

/// What a recording must not have. Cheap to clone.
#[derive(Clone, Default)]
pub struct Redaction {
    rules: Arc<[Rule]>,
}

/// One pattern, with what replaces its matches.
pub(super) struct Rule {
    pattern: Box<str>,
    automaton: DFA,
    /// Finds the groups; None if the pattern has none.
    groups: Option<Regex>,
    replacement: Box<[u8]>,
    /// Whether a match can start with a byte.
    starts: Box<[bool; 256]>,
}

/// What is known of a match that starts at a place.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is none.
    None,
    /// It ends here.
    Until(usize),
    /// It depends on bytes that are not there yet.
    Open,
}

/// An attempt to match from a place on, as far as there are bytes.
pub(super) struct Attempt {
    state: LazyStateID,
    /// Bytes behind the place that were looked at.
    length: usize,
    /// The length of the last match so far.
    end: Option<usize>,
    /// How often the cache was cleared before: then it does not know the state any more.
    generation: usize,
}

impl Redaction {
    /// Rules, each a pattern for bytes in the syntax of the crate regex, with a replacement.
    /// `Error::Value` names the pattern that is wrong.
    pub fn new(rules: &[(&str, &[u8])]) -> Result<Self> {
        if rules.len() > MOST_RULES {
            let count = rules.len();
            return Err(Error::Value(format!("redact: {count} patterns, more than {MOST_RULES}")));
        }
        let rules = rules.iter().map(|(pattern, replacement)| Rule::new(pattern, replacement));
        Ok(Self { rules: rules.collect::<Result<_>>()? })
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

impl fmt::Debug for Redaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rules.iter().map(|rule| &rule.pattern)).finish()
    }
}

impl Rule {
    fn new(pattern: &str, replacement: &[u8]) -> Result<Self> {
        let wrong = |why: &dyn fmt::Display| {
            let shown: String = pattern.chars().take(60).collect();
            let dots = if shown.len() < pattern.len() { "…" } else { "" };
            Error::Value(format!("redact: pattern {shown:?}{dots}: {why}"))
        };
        if replacement.len() > MOST_REPLACEMENT {
            let length = replacement.len();
            let why = format!("a replacement of {length} bytes, more than {MOST_REPLACEMENT}");
            return Err(wrong(&why));
        }
        let syntax = || syntax::Config::new().unicode(false).utf8(false);
        let limit = Some(MOST_PATTERN);
        let compiled = Regex::builder()
            .syntax(syntax())
            .configure(Regex::config().utf8_empty(false).nfa_size_limit(limit))
            .build(pattern)
            .map_err(|error| wrong(&reason(&error)))?;
        let thompson = regex_automata::nfa::thompson::Config::new().utf8(false);
        let automaton = DFA::builder()
            .syntax(syntax())
            .thompson(thompson.nfa_size_limit(limit))
            .configure(DFA::config().cache_capacity(MOST_CACHE).skip_cache_capacity_check(true))
            .build(pattern)
            .map_err(|error| wrong(&error))?;
        let groups = (compiled.captures_len() > 1).then_some(compiled);
        let starts = Box::new(starts(&automaton));
        let (pattern, replacement) = (pattern.into(), replacement.into());
        Ok(Self { pattern, automaton, groups, replacement, starts })
    }

    pub(super) fn replacement(&self) -> &[u8] {
        &self.replacement
    }

    /// Memory for looking.
    pub(super) fn cache(&self) -> Cache {
        self.automaton.create_cache()
    }

    /// The first place from `at` on where a match can start; the end if there is none.
    pub(super) fn next_start(&self, bytes: &[u8], at: usize) -> usize {
        let found = bytes[at..].iter().position(|&byte| self.starts[usize::from(byte)]);
        found.map_or(bytes.len(), |found| at + found)
    }

    /// What is known of a match that starts at `at`. `attempt` is what an earlier call has left for
    /// this place, with fewer bytes; None for none.
    pub(super) fn look(
        &self,
        cache: &mut Cache,
        bytes: &[u8],
        at: usize,
        attempt: &mut Option<Attempt>,
        is_end: bool,
    ) -> Verdict {
        let undecidable = Verdict::Until(bytes.len());
        let kept = attempt.take().filter(|kept| kept.generation == cache.clear_count());
        let input = Input::new(bytes).range(at..).anchored(Anchored::Yes);
        let Attempt { mut state, length, mut end, .. } = match kept {
            Some(kept) => kept,
            None => match self.automaton.start_state_forward(cache, &input) {
                Ok(state) => Attempt { state, length: 0, end: None, generation: 0 },
                // Cannot be: nothing limits the automaton. What cannot be decided is not recorded.
                Err(_) => return undecidable,
            },
        };
        for (offset, &byte) in bytes.iter().enumerate().skip(at + length) {
            let Some(next) = self.step(cache, state, byte) else { return undecidable };
            state = next;
            if state.is_match() {
                // An automaton tells of a match one byte later.
                end = Some(offset - at);
            } else if state.is_dead() {
                return Self::verdict(at, end);
            }
        }
        if is_end {
            if self.automaton.next_eoi_state(cache, state).is_ok_and(|last| last.is_match()) {
                end = Some(bytes.len() - at);
            }
            return Self::verdict(at, end);
        }
        let generation = cache.clear_count();
        if self.is_complete(cache, state) {
            return Verdict::Until(bytes.len());
        }
        let length = bytes.len() - at;
        *attempt = Some(Attempt { state, length, end, generation });
        Verdict::Open
    }

    /// The state of a match that starts at `at`, behind the last byte. None where that cannot be
    /// decided.
    pub(super) fn state(&self, cache: &mut Cache, bytes: &[u8], at: usize) -> Option<LazyStateID> {
        let input = Input::new(bytes).range(at..).anchored(Anchored::Yes);
        let first = self.automaton.start_state_forward(cache, &input).ok()?;
        bytes[at..].iter().try_fold(first, |state, &byte| self.step(cache, state, byte))
    }

    /// Whether a match ends in front of the next byte, whatever that is, and cannot go on.
    fn is_complete(&self, cache: &mut Cache, state: LazyStateID) -> bool {
        let generation = cache.clear_count();
        let classes = self.automaton.byte_classes();
        let units = || classes.representatives(0..=u8::MAX).filter_map(|unit| unit.as_u8());
        let mut after = None;
        for byte in units() {
            let next = self.step(cache, state, byte).filter(LazyStateID::is_match);
            // A cleared cache does not know the state any more.
            let is_same = next.is_some() && after.is_none_or(|after| Some(after) == next);
            if !is_same || cache.clear_count() != generation {
                return false;
            }
            after = next;
        }
        let Some(after) = after else { return false };
        let ends = self.automaton.next_eoi_state(cache, state).is_ok_and(|last| last.is_match());
        ends && self.is_over(cache, after)
    }

    /// Whether a match cannot go on, whatever the next byte is.
    pub(super) fn is_over(&self, cache: &mut Cache, state: LazyStateID) -> bool {
        let generation = cache.clear_count();
        let mut units = self.automaton.byte_classes().representatives(0..=u8::MAX);
        units.all(|unit| {
            let next = unit.as_u8().and_then(|byte| self.step(cache, state, byte));
            next.is_some_and(|next| next.is_dead()) && cache.clear_count() == generation
        })
    }

    /// An empty match has nothing to redact.
    fn verdict(at: usize, length: Option<usize>) -> Verdict {
        let length = length.filter(|&length| length > 0);
        length.map_or(Verdict::None, |length| Verdict::Until(at + length))
    }

    /// The state behind one more byte. None where that cannot be decided.
    pub(super) fn step(
        &self,
        cache: &mut Cache,
        state: LazyStateID,
        byte: u8,
    ) -> Option<LazyStateID> {
        let next = self.automaton.next_state(cache, state, byte).ok();
        next.filter(|next| !next.is_quit())
    }

    /// Calls `found` with the parts of a match to redact: its groups, or all of it if the pattern
    /// has none.
    pub(super) fn parts(
        &self,
        bytes: &[u8],
        start: usize,
        end: usize,
        found: &mut dyn FnMut(usize, usize),
    ) {
        let Some(regex) = &self.groups else { return found(start, end) };
        let input = Input::new(bytes).range(start..).anchored(Anchored::Yes);
        let mut captures: Captures = regex.create_captures();
        regex.search_captures(&input, &mut captures);
        if captures.get_match().map(|whole| whole.end()) != Some(end) {
            // Cannot be: both have the same rules.
            return found(start, end);
        }
        let groups = (1..captures.group_len()).filter_map(|group| captures.get_group(group));
        groups.filter(|group| group.start < group.end).for_each(|group| {
            found(group.start, group.end);
        });
    }
}

/// The bytes with which a match that is not empty can start.
fn starts(automaton: &DFA) -> [bool; 256] {
    let mut cache = automaton.create_cache();
    let mut found = [false; 256];
    // Looking behind, an automaton tells the start, line ends, letters and other bytes apart.
    for before in [None, Some(b'\n'), Some(b'\r'), Some(b'a'), Some(b' ')] {
        let config = start::Config::new().anchored(Anchored::Yes).look_behind(before);
        for byte in 0..=u8::MAX {
            let next = automaton
                .start_state(&mut cache, &config)
                .ok()
                .and_then(|state| automaton.next_state(&mut cache, state, byte).ok());
            found[usize::from(byte)] |= next.is_none_or(|next| !next.is_dead());
        }
    }
    found
}

/// Why a pattern cannot be compiled.
fn reason(error: &regex_automata::meta::BuildError) -> String {
    match error.syntax_error() {
        Some(syntax) => {
            // The last line says why; those in front of it show the pattern.
            let text = syntax.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.strip_prefix("error: ").unwrap_or(last).to_owned()
        }
        None if error.size_limit().is_some() => {
            format!("compiled, it is larger than {MOST_PATTERN} bytes")
        }
        None => error.to_string(),
    }
}
