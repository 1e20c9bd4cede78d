//! One direction of a connection on its way into a recording: chunks are held while a part of them
//! may be one to redact. Must never pass on a byte before every rule has decided on it, nor hold
//! more than `WINDOW` with a chunk.

use std::collections::VecDeque;
use std::time::Duration;

use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::Cache;

use super::content::{Content, Piece};
use super::redaction::{Attempt, Redaction, Rule, Verdict};

/// The longest match that is decided as a whole. Behind that, all that a match may have is
/// redacted.
pub(super) const WINDOW: usize = 16 * 1024;

/// The caches of the rules, in their order. One set serves all lanes of a thread.
pub(super) struct Caches(Vec<Cache>);

impl Caches {
    pub(super) fn new(redaction: &Redaction) -> Self {
        Self(redaction.rules().iter().map(Rule::cache).collect())
    }
}

/// One direction of one connection. All places are counted from the start of the direction.
pub(super) struct Lane {
    /// What is held, behind one byte that has been passed on, which a pattern may look back at.
    bytes: Vec<u8>,
    /// The place of the first of them.
    base: u64,
    /// The place up to which everything was passed on.
    passed: u64,
    /// The ends of the chunks that are held, with their times.
    chunks: VecDeque<(u64, Duration)>,
    /// By rule.
    scans: Vec<Scan>,
    /// What gets redacted, in no order.
    spans: Vec<Span>,
}

#[derive(Default)]
struct Scan {
    /// The place up to which the rule has decided.
    next: u64,
    /// What is known of a match that starts there.
    attempt: Option<Attempt>,
    /// A match that is longer than the window.
    open: Option<Box<OpenMatch>>,
}

struct OpenMatch {
    start: u64,
    /// None where it cannot be decided: it has all that follows.
    state: Option<LazyStateID>,
    /// Its own, because states are those of one cache.
    cache: Cache,
}

#[derive(Clone, Copy)]
struct Span {
    start: u64,
    end: u64,
    rule: usize,
}

impl Lane {
    pub(super) fn new(redaction: &Redaction) -> Self {
        let scan = |_: &Rule| Scan::default();
        Self {
            bytes: Vec::new(),
            base: 0,
            passed: 0,
            chunks: VecDeque::new(),
            scans: redaction.rules().iter().map(scan).collect(),
            spans: Vec::new(),
        }
    }

    /// Whether a chunk is held.
    pub(super) fn is_holding(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Takes a chunk. Calls `pass` with each chunk that is decided.
    pub(super) fn push(
        &mut self,
        redaction: &Redaction,
        caches: &mut Caches,
        chunk: &[u8],
        at: Duration,
        pass: &mut dyn FnMut(Duration, Content),
    ) {
        self.bytes.extend_from_slice(chunk);
        self.chunks.push_back((self.end(), at));
        self.decide(redaction, caches, false, pass);
    }

    /// The direction has ended. Calls `pass` with each chunk that is left.
    pub(super) fn finish(
        &mut self,
        redaction: &Redaction,
        caches: &mut Caches,
        pass: &mut dyn FnMut(Duration, Content),
    ) {
        self.decide(redaction, caches, true, pass);
    }

    fn end(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    fn decide(
        &mut self,
        redaction: &Redaction,
        caches: &mut Caches,
        is_end: bool,
        pass: &mut dyn FnMut(Duration, Content),
    ) {
        let mut decided = self.end();
        for (index, (rule, cache)) in redaction.rules().iter().zip(&mut caches.0).enumerate() {
            let mut scan = std::mem::take(&mut self.scans[index]);
            self.scan(index, rule, cache, &mut scan, is_end);
            decided = decided.min(scan.next);
            self.scans[index] = scan;
        }
        while let Some(&(end, at)) = self.chunks.front().filter(|&&(end, _)| end <= decided) {
            let content = self.content(self.passed, end, redaction);
            self.chunks.pop_front();
            self.passed = end;
            pass(at, content);
        }
        self.forget();
    }

    /// Lets a rule decide as far as it can.
    fn scan(
        &mut self,
        index: usize,
        rule: &Rule,
        cache: &mut Cache,
        scan: &mut Scan,
        is_end: bool,
    ) {
        let end = self.bytes.len();
        let place = |at: usize| self.base + at as u64;
        let mut at = (scan.next - self.base) as usize;
        loop {
            if let Some(mut open) = scan.open.take() {
                let rest = bytes_of_match(rule, &mut open, &self.bytes[at..]);
                at += rest.unwrap_or(end - at);
                if rest.is_none() && !is_end {
                    scan.open = Some(open);
                    break;
                }
                self.spans.push(Span { start: open.start, end: place(at), rule: index });
            }
            at = rule.next_start(&self.bytes, at);
            if at == end {
                break;
            }
            // Only at the first place there may be one, and it is taken.
            match rule.look(cache, &self.bytes, at, &mut scan.attempt, is_end) {
                Verdict::None => at += 1,
                Verdict::Until(match_end) => {
                    let spans = &mut self.spans;
                    rule.parts(&self.bytes, at, match_end, &mut |start, end| {
                        spans.push(Span { start: place(start), end: place(end), rule: index });
                    });
                    at = match_end;
                }
                Verdict::Open if end - at <= WINDOW => break,
                Verdict::Open => {
                    scan.attempt = None;
                    let (start, mut cache) = (place(at), rule.cache());
                    let state = rule.state(&mut cache, &self.bytes, at);
                    scan.open = Some(Box::new(OpenMatch { start, state, cache }));
                    at = end;
                    break;
                }
            }
        }
        scan.next = place(at);
    }

    /// The bytes between two places, with what stands for those that are redacted.
    fn content(&self, from: u64, to: u64, redaction: &Redaction) -> Content {
        let open = self.scans.iter().enumerate().filter_map(|(rule, scan)| {
            let start = scan.open.as_ref()?.start;
            Some(Span { start, end: u64::MAX, rule })
        });
        let within = |span: &Span| span.start < to && span.end > from;
        let mut spans: Vec<Span> = self.spans.iter().copied().chain(open).filter(within).collect();
        spans.sort_by_key(|span| span.start);
        let bytes = |from: u64, to: u64| {
            &self.bytes[(from - self.base) as usize..(to - self.base) as usize]
        };
        let mut content = Content::default();
        let mut done = from;
        for Span { start, end, rule } in spans {
            if end <= done {
                continue;
            }
            if start > done {
                content.push(Piece::Exactly(bytes(done, start)));
            }
            // The rest of a part that has begun before stands for nothing that is sent.
            let begins = start >= done;
            let replacement = redaction.rules()[rule].replacement();
            content.push(Piece::Any(if begins { replacement } else { b"" }));
            done = end.min(to);
        }
        if done < to {
            content.push(Piece::Exactly(bytes(done, to)));
        }
        content
    }

    /// Gives up what was passed on, but for its last byte.
    fn forget(&mut self) {
        let passed = self.passed;
        self.spans.retain(|span| span.end > passed);
        let keep = passed.saturating_sub(1).max(self.base);
        self.bytes.drain(..(keep - self.base) as usize);
        self.base = keep;
        if self.chunks.is_empty() && self.bytes.capacity() > WINDOW {
            // What a burst has needed is not kept.
            self.bytes.shrink_to(64);
        }
    }
}

/// How many bytes a match has or may still have; None if it may have all of them, and more.
fn bytes_of_match(rule: &Rule, open: &mut OpenMatch, bytes: &[u8]) -> Option<usize> {
    let mut end = None;
    for (offset, &byte) in bytes.iter().enumerate() {
        open.state = rule.step(&mut open.cache, open.state?, byte);
        if open.state?.is_match() {
            end = Some(offset);
        } else if open.state?.is_dead() {
            return end.or(Some(offset));
        }
    }
    let is_over = |state: LazyStateID| state.is_match() && rule.is_over(&mut open.cache, state);
    if open.state.is_some_and(is_over) { end } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is passed on of chunks, all at once if `is_joined`, with the chunks that were held
    /// before the end.
    fn redacted(rules: &[(&str, &[u8])], chunks: &[&[u8]]) -> (Vec<Content>, usize) {
        let redaction = Redaction::new(rules).unwrap();
        let mut caches = Caches::new(&redaction);
        let mut lane = Lane::new(&redaction);
        let mut passed = Vec::new();
        for (at, chunk) in chunks.iter().enumerate() {
            let at = Duration::from_secs(at as u64);
            lane.push(&redaction, &mut caches, chunk, at, &mut |_, content| passed.push(content));
        }
        let held = chunks.len() - passed.len();
        lane.finish(&redaction, &mut caches, &mut |_, content| passed.push(content));
        assert!(!lane.is_holding());
        assert_eq!(passed.len(), chunks.len(), "each chunk stays one");
        (passed, held)
    }

    fn text(contents: &[Content]) -> String {
        let piece = |piece: Piece<'_>| match piece {
            Piece::Exactly(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Piece::Any(bytes) => format!("<{}>", String::from_utf8_lossy(bytes)),
        };
        let content = |content: &Content| content.pieces().map(piece).collect::<String>();
        contents.iter().map(content).collect::<Vec<_>>().join("|")
    }

    const X: &[u8] = b"X";

    #[test]
    fn a_match_is_redacted_wherever_its_bytes_are_cut() {
        let whole = b"PING\r\nAUTH secret\r\nAUTH other\r\nQUIT\r\n";
        let rules: &[(&str, &[u8])] = &[(r"AUTH (\S+)\r\n", X)];
        let all = text(&redacted(rules, &[whole]).0);
        assert_eq!(all, "PING\r\nAUTH <X>\r\nAUTH <X>\r\nQUIT\r\n");
        for size in 1..whole.len() {
            let chunks: Vec<&[u8]> = whole.chunks(size).collect();
            let (passed, _) = redacted(rules, &chunks);
            let joined = text(&passed).replace('|', "").replace("<>", "");
            assert_eq!(joined, all, "{size}");
        }
    }

    #[test]
    fn nothing_is_held_that_no_match_can_begin_in() {
        let rules: &[(&str, &[u8])] = &[(r"AUTH (\S+)\r\n", X), (r"\bkey=\w+", X)];
        assert_eq!(redacted(rules, &[b"PING\r\n", b"monkey=1 "]).1, 0);
        assert_eq!(redacted(rules, &[b"PING\r\nAU"]).1, 1);
        assert_eq!(redacted(rules, &[b"AUTH x", b"\r\n"]).1, 0);
        // A word may go on.
        let (passed, held) = redacted(rules, &[b"a key=1", b"2", b"3"]);
        assert_eq!((text(&passed), held), ("a <X>|<>|<>".to_owned(), 3));
    }

    #[test]
    fn the_rules_are_independent_of_each_other() {
        let rules: &[(&str, &[u8])] = &[(r"user=\w+", X), (r"\w+pass=\S+", b"Y"), (r"z\z", b"")];
        let (passed, _) = redacted(rules, &[b"user=abcpass=xyz z", b"z"]);
        assert_eq!(text(&passed), "<X> z|<>");
    }

    #[test]
    fn behind_the_window_all_that_a_match_may_have_is_redacted() {
        let rules: &[(&str, &[u8])] = &[(r"key=([a-z]+);", X)];
        let long = [b"ab key=".as_slice(), &b"x".repeat(WINDOW)].concat();
        let (passed, held) = redacted(rules, &[&long, b"yy", b"z;a", b"b key=q; c"]);
        assert_eq!(held, 0);
        assert_eq!(text(&passed), "ab <X>|<>|<>a|b key=<X>; c");
        // Also where it turns out to be no match.
        let (passed, held) = redacted(rules, &[&long, b"yy", b"z.a"]);
        assert_eq!((held, text(&passed)), (0, "ab <X>|<>|<>.a".to_owned()));
        let (passed, _) = redacted(rules, &[&long]);
        assert_eq!(text(&passed), "ab <X>");
    }

    #[test]
    fn what_is_held_is_bounded() {
        let redaction = Redaction::new(&[(r"(?s)BEGIN.*END", X)]).unwrap();
        let mut caches = Caches::new(&redaction);
        let mut lane = Lane::new(&redaction);
        let mut most = 0;
        for chunk in std::iter::once(b"BEGIN".as_slice()).chain(std::iter::repeat_n(X, 100_000)) {
            lane.push(&redaction, &mut caches, chunk, Duration::ZERO, &mut |_, _| ());
            most = most.max(lane.bytes.len());
        }
        assert!(most <= WINDOW + 2, "{most}");
        assert!(lane.bytes.capacity() < 100 && lane.chunks.is_empty());
    }

    #[test]
    fn a_wrong_pattern_is_named() {
        for (pattern, part) in [
            ("(", "redact: pattern \"(\": unclosed group"),
            ("a(?=b)", "look-around"),
            (r"\p{Greek}", "Unicode"),
            ("(a{1000}){1000}", "larger than"),
        ] {
            let error = Redaction::new(&[(pattern, X)]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(Redaction::new(&[("a", &[0; 2000])]).is_err());
    }
}
