//! Script against random texts and random clients: no panic, the same dialogue however the bytes are
//! cut. Reproducible: `RSOCK_FUZZ_SEED=7 cargo test … script`; longer: `RSOCK_FUZZ_ROUNDS=100000`.

use std::net::{Ipv4Addr, SocketAddr};

use _rsock::net::address::Endpoint;
use _rsock::net::base::Plain;
use _rsock::net::ledger::ClosedBy;
use _rsock::net::service::{Leg, Peer, Service, Site};
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
    "end",
    "send b\"ok\"",
    "send b\"<\" {x} b\">\"",
    "shutdown write",
    "repeat 3 {",
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

fn text(dice: &mut Dice) -> String {
    let mut lines = vec!["until b\"c\" name=x"];
    let mut open = 0_usize;
    for _ in 0..dice.below(14) {
        let step = STEPS[dice.below(STEPS.len())];
        open += usize::from(step.ends_with('{') && !step.starts_with('}'));
        open = open.saturating_sub(usize::from(step == "}"));
        lines.push(step);
    }
    lines.extend(std::iter::repeat_n("}", open));
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

/// What a client gets and how its dialogue went, if its bytes come in pieces of `size`.
fn played(
    script: &Script,
    input: &[u8],
    mut size: impl FnMut() -> usize,
) -> (Vec<u8>, ScriptResult) {
    script.clear();
    let prepared = script.prepare(&site(), &mut Plain).unwrap().unwrap();
    let local = site().local;
    let peer = Peer { id: 1, local: local.clone(), remote: local, proxy: None, line: 65_536 };
    let mut session = prepared.open(&peer);
    let mut io = FakeIo::default();
    let mut rest: Vec<u8> = Vec::new();
    let mut failed = session.open(&mut io).is_err();
    let mut at = 0;
    while at < input.len() && !failed && !io.closed && !io.aborted {
        let end = input.len().min(at + size());
        rest.extend_from_slice(&input[at..end]);
        at = end;
        match session.bytes(&mut io, Leg::Client, &rest) {
            Ok(used) => drop(rest.drain(..used)),
            Err(_) => failed = true,
        }
    }
    if !failed && !io.closed && !io.aborted {
        failed = session.eof(&mut io, Leg::Client, &rest).is_err();
    }
    if !failed && !io.closed && !io.aborted {
        assert!(io.timers.contains_key(&0), "a step that waits has a deadline");
    }
    session.closed(ClosedBy::Peer);
    let result = script.results().pop().expect("every dialogue has a result");
    (io.near, result)
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
