//! A pattern that is matched from the first byte on. Must never depend on how the peer's bytes are
//! cut.

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Hir, HirKind, Look};

use super::verdict::{Capture, Verdict};

/// What a compiled pattern may take of memory.
const MOST_PATTERN: usize = 1024 * 1024;

/// A compiled pattern.
#[derive(Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// Compiles a pattern. The error says what is wrong with it.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("pattern: {error}");
        let parsed = ParserBuilder::new().unicode(false).utf8(false).build().parse(text);
        let parsed = parsed.map_err(|error| wrong(&error))?;
        if parsed.properties().minimum_len() == Some(0) {
            return Err(
                "a pattern must not match nothing: as little as matches is taken".to_owned()
            );
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
            .map(Self)
            .map_err(|error| wrong(&error))
    }

    /// The names of its groups.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.capture_names().flatten()
    }

    /// Judges input that begins with a match of at most `limit` bytes.
    pub(super) fn judge(&self, input: &[u8], limit: usize) -> Verdict {
        match self.shortest(input) {
            Some(end) if end <= limit => {
                Verdict::Met { used: end, captures: self.captures(&input[..end]) }
            }
            None if input.len() < limit => Verdict::Open,
            _ => Verdict::over(limit),
        }
    }

    /// The end of the shortest part of the input, from its first byte on, that matches. It does not
    /// depend on what follows: the engine's own shortest match may, where one alternative begins
    /// with another.
    fn shortest(&self, input: &[u8]) -> Option<usize> {
        let mut end = self.0.shortest_match(input)?;
        while let Some(before) = end.checked_sub(1) {
            match self.0.shortest_match(&input[..before]) {
                Some(shorter) => end = shorter,
                None => break,
            }
        }
        Some(end)
    }

    /// What the named groups have matched.
    fn captures(&self, matched: &[u8]) -> Vec<Capture> {
        let Some(found) = self.0.captures(matched) else { return Vec::new() };
        // A group that took no part is empty: it must not keep an earlier match.
        let part = |name| found.name(name).map_or(&b""[..], |part| part.as_bytes());
        self.names().map(|name| (name.into(), part(name).to_vec())).collect()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_match_is_taken_whatever_follows() {
        for pattern in ["abc|ab", "(?:ab|a)c?", "a+", "(?:x|abc|abcd|ab)", "[a-c]+?b?"] {
            let compiled = Pattern::new(pattern).unwrap();
            let least = (0..=4).find(|&end| compiled.0.is_match(&b"abcd"[..end])).unwrap();
            assert_eq!(compiled.shortest(b"abcd"), Some(least), "{pattern}");
        }
    }
}
