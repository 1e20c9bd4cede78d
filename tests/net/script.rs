//! Script as its clients see it. Against random texts and random clients: no panic, the same dialogue
//! however the bytes are cut. Reproducible: `RSOCK_FUZZ_SEED=7 cargo test … script`; longer:
//! `RSOCK_FUZZ_ROUNDS=100000`.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use _rsock::net::address::Endpoint;
use _rsock::net::base::Plain;
use _rsock::net::ledger::ClosedBy;
use _rsock::net::service::{Leg, Peer, Service, Session, SessionResult, Site};
use _rsock::net::services::{Script, ScriptResult};

use crate::fake_io::FakeIo;
use crate::fuzz::{Dice, from_environment};

const STEPS: &[&str] = &[
    "expect b\"ab\"",
    "expect b\"a\" timeout=1",
    "until b\"b\" name=x limit=9",
    "until b\"ba\"",
    "pattern b\"a+b?\" limit=20",
    "pattern b\"(?P<y>[ab])c\"",
    "length 3 name=z",
    "frame B name=f limit=70",
    "frame <H limit=200",
    "expect b\"AB\" ignore_case",
    "pattern b\"ab|a|abc\"",
    "frame <xB name=f limit=70 adjust=-1",
    "end",
    "end or_reset",
    "send b\"ok\"",
    "send b\"sliced\" size=4 delay=0.1",
    "wait 0.1",
    "pause reading",
    "resume reading",
    "send b\"<\" {x} b\">\"",
    "shutdown write",
    "repeat 3 {",
    "repeat until end {",
    "either {",
    "any order {",
    "} or {",
    "} and {",
    "}",
    "close",
    "reset",
    "timeout 2",
    "# a comment",
    "",
];

/// What random patterns are made of.
const PATTERN: &[&str] = &[
    "a", "b", "c", "[ab]", "a+", "b*?", "(?:ab|a)", "(?:", "(?P<y>", ")", ")?", "|", ".", "{2}",
    "^", "$", "\\\\b",
];

fn pattern(dice: &mut Dice) -> String {
    let parts: String = (0..=dice.below(6)).map(|_| PATTERN[dice.below(PATTERN.len())]).collect();
    format!("pattern b\"{parts}\" limit={}", 1 + dice.below(30))
}

fn text(dice: &mut Dice) -> String {
    let mut lines = vec!["until b\"c\" name=x".to_owned()];
    let mut open = 0_usize;
    for _ in 0..dice.below(14) {
        let step = match dice.below(STEPS.len() + 4) {
            known if known < STEPS.len() => STEPS[known].to_owned(),
            _ => pattern(dice),
        };
        open += usize::from(step.ends_with('{') && !step.starts_with('}'));
        open = open.saturating_sub(usize::from(step == "}"));
        lines.push(step);
    }
    lines.extend(std::iter::repeat_n("}".to_owned(), open));
    let mut text = lines.join("\n").into_bytes();
    if dice.one_in(3) {
        for _ in 0..=dice.below(4) {
            let at = dice.below(text.len());
            text[at] = dice.below(256) as u8;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn site() -> Site {
    let local = Endpoint::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 7)));
    Site { server: 1, local, dual_stack: true }
}

/// Whether the session waits for a time that passes without input.
fn is_short(io: &FakeIo) -> bool {
    io.timers.get(&0).is_some_and(|time| *time < Duration::from_secs(1))
}

/// Offers input as the engine does: again after each time that has passed, unless it is paused.
fn offered(session: &mut dyn Session, io: &mut FakeIo, rest: &mut Vec<u8>) -> SessionResult {
    loop {
        if io.paused.is_empty() {
            let used = session.bytes(io, Leg::Client, rest)?;
            rest.drain(..used);
        }
        if io.closed || io.aborted || !is_short(io) {
            return Ok(());
        }
        session.timer(io, 0)?;
    }
}

/// What a client gets and how its dialogue went, if its bytes come in pieces of `size`.
fn played(
    script: &Script,
    input: &[u8],
    mut size: impl FnMut() -> usize,
) -> (Vec<u8>, ScriptResult) {
    script.clear();
    let prepared = script.prepare(&site(), &mut Plain).unwrap().unwrap();
    let mut session = prepared.open(&peer());
    let mut io = FakeIo::default();
    let mut rest: Vec<u8> = Vec::new();
    let mut failed = session.open(&mut io).is_err();
    let mut at = 0;
    while at < input.len() && !failed && !io.closed && !io.aborted {
        let end = input.len().min(at + size());
        rest.extend_from_slice(&input[at..end]);
        at = end;
        failed = offered(&mut *session, &mut io, &mut rest).is_err();
    }
    let goes_on = |io: &FakeIo, failed: bool| !failed && !io.closed && !io.aborted;
    if goes_on(&io, failed) && io.paused.is_empty() {
        failed = session.eof(&mut io, Leg::Client, &rest).is_err();
        while goes_on(&io, failed) && is_short(&io) {
            failed = session.timer(&mut io, 0).is_err();
        }
    }
    if !failed && !io.closed && !io.aborted {
        assert!(io.timers.contains_key(&0), "a step that waits has a deadline");
    }
    session.closed(ClosedBy::Peer);
    let result = script.results().pop().expect("every dialogue has a result");
    (io.near, result)
}

/// The peer of a dialogue.
fn peer() -> Peer {
    let local = site().local;
    let (remote, tlvs) = (local.clone(), Vec::new());
    Peer { id: 1, local, remote, proxy: None, tlvs, line: 65_536 }
}

#[test]
fn the_position_is_that_of_what_the_client_has_noticed() {
    let text =
        "send b\"220\"\nuntil b\"!\"\nsend b\"1\"\nsend b\"2\"\nshutdown write\nuntil b\"x\"\n";
    let script = Rc::new(Script::new(text).expect("a script"));
    let prepared = script.prepare(&site(), &mut Plain).unwrap().unwrap();
    let mut session = prepared.open(&peer());
    let seen = Rc::new(RefCell::<Vec<(usize, Vec<u8>)>>::default());
    let before = {
        let (script, seen) = (Rc::clone(&script), Rc::clone(&seen));
        move || {
            let [result] = &script.results_of(1)[..] else { panic!("one dialogue goes on") };
            assert!(!result.done, "{result:?}");
            seen.borrow_mut().push((result.step, result.unused.clone()));
        }
    };
    let mut io = FakeIo { before: Some(Box::new(before)), ..FakeIo::default() };
    assert!(session.open(&mut io).is_ok());
    assert!(session.bytes(&mut io, Leg::Client, b"go!later").is_ok());
    let later = b"later".to_vec();
    let expected = [(1, Vec::new()), (3, later.clone()), (4, later.clone()), (5, later)];
    assert_eq!(*seen.borrow(), expected);
}

#[test]
fn a_dialogue_does_not_depend_on_how_its_bytes_are_cut() {
    let seed: u64 = from_environment("RSOCK_FUZZ_SEED", 1);
    let rounds: u64 = from_environment("RSOCK_FUZZ_ROUNDS", 3_000);
    let mut valid = 0;
    for round in 0..rounds {
        let mut dice = Dice::new(seed + round);
        let text = text(&mut dice);
        let Ok(script) = Script::new(&text) else { continue };
        valid += 1;
        let letters = b"aaabbcc\x01\x02\x00";
        let input: Vec<u8> =
            (0..dice.below(60)).map(|_| letters[dice.below(letters.len())]).collect();
        let whole = played(&script, &input, || usize::MAX >> 1);
        let single = played(&script, &input, || 1);
        let pieces = played(&script, &input, || 1 + dice.below(5));
        for cut in [single, pieces] {
            let same = |(sent, result): &(Vec<u8>, ScriptResult)| {
                (sent.clone(), result.done, result.step, result.captures.clone())
            };
            assert_eq!(same(&whole), same(&cut), "seed {}: {text}\n{input:?}", seed + round);
        }
    }
    assert!(valid > rounds / 20, "{valid} of {rounds} texts are scripts");
}
