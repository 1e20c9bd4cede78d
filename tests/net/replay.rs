//! Replay against random recordings and random clients: no panic, a client that does the same is
//! served however its bytes are cut, and one that does not is told. Reproducible:
//! `RSOCK_FUZZ_SEED=7 cargo test … replay`; longer: `RSOCK_FUZZ_ROUNDS=100000`.

use std::cell::RefCell;
use std::fmt::Write;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use _rsock::net::address::Endpoint;
use _rsock::net::base::Plain;
use _rsock::net::ledger::ClosedBy;
use _rsock::net::recording::Recording;
use _rsock::net::service::{Datagrams, Leg, Peer, Service, Site};
use _rsock::net::services::ScriptResult;
use _rsock::net::services::replay::{Choice, Chunks, Playing, Replay};

use crate::fake_io::{FakeIo, Replies, peer};
use crate::fuzz::{Dice, from_environment};

/// A random dialogue: the recording, what its client sends, and what it is sent.
struct Dialogue {
    text: String,
    said: Vec<u8>,
    told: Vec<u8>,
    /// Whether the client finishes in it.
    is_finished: bool,
}

fn header(transport: &str) -> String {
    format!(
        "rsock recording 1\ntransport {transport}\nstarted 2026-11-28T09:05:00.000001Z\n\
         target x:1\n1 0.0 open 127.0.0.1:5\n"
    )
}

fn letters(dice: &mut Dice, most: usize) -> String {
    (0..=dice.below(most)).map(|_| ['a', 'b', 'c'][dice.below(3)]).collect()
}

/// With `has_any`, some bytes are redacted; the client sends others there.
fn dialogue(dice: &mut Dice, has_any: bool) -> Dialogue {
    let mut text = header("tcp");
    let (mut said, mut told) = (Vec::new(), Vec::new());
    for number in 0..dice.below(12) {
        let time = f64::from(number as u32) / 10.0;
        if dice.one_in(2) {
            let bytes = letters(dice, 9);
            writeln!(text, "1 {time} < b\"{bytes}\"").unwrap();
            told.extend_from_slice(bytes.as_bytes());
        } else if has_any && dice.one_in(3) {
            // What follows redacted bytes cannot be in them.
            let bytes = letters(dice, 9);
            writeln!(text, "1 {time} > b\"{bytes}\" any b\"xxx\" b\".\"").unwrap();
            let other = letters(dice, 20);
            said.extend_from_slice(format!("{bytes}{}.", &other[1..]).as_bytes());
        } else {
            let bytes = letters(dice, 9);
            writeln!(text, "1 {time} > b\"{bytes}\"").unwrap();
            said.extend_from_slice(bytes.as_bytes());
        }
    }
    let is_finished = dice.one_in(2);
    if is_finished {
        text.push_str("1 2.0 > end\n");
        if dice.one_in(2) {
            text.push_str("1 2.0 < b\"bye\"\n");
            told.extend_from_slice(b"bye");
        }
    }
    if dice.one_in(2) {
        text.push_str("1 2.1 < end\n");
    }
    text.push_str("stop 3\n");
    Dialogue { text, said, told, is_finished }
}

fn playing(chunks: Chunks) -> Arc<Playing> {
    let timeout = Duration::from_secs(1);
    Arc::new(Playing { chunks, speed: None, timeout, carry: Vec::new() })
}

fn replay(text: &str, playing: &Arc<Playing>) -> Option<Replay> {
    let recording = Recording::parse(text.as_bytes()).ok()?;
    Replay::new(Path::new("x.rec"), &recording, Choice::InOrder, &[], playing).ok()
}

fn site(local: Endpoint) -> Site {
    Site { server: 1, local, dual_stack: true }
}

/// What a client gets and how its dialogue went, if it sends `said` in pieces and reads when it
/// likes.
fn played(
    replay: &Replay,
    said: &[u8],
    finishes: bool,
    dice: &mut Dice,
) -> (Vec<u8>, ScriptResult) {
    replay.clear();
    let peer = peer();
    let prepared = Service::prepare(replay, &site(peer.local.clone()), &mut Plain);
    let mut session = prepared.unwrap().unwrap().open(&peer);
    let mut io = FakeIo { room: Some(dice.below(8)), ..FakeIo::default() };
    let mut rest: Vec<u8> = Vec::new();
    let mut is_over = session.open(&mut io).is_err();
    let most = 1 + dice.below(12);
    let mut at = 0;
    while !is_over && !io.closed && at < said.len() {
        if dice.one_in(2) {
            io.room = Some(dice.below(8));
            is_over = session.low_water(&mut io, Leg::Client).is_err();
            continue;
        }
        let end = said.len().min(at + 1 + dice.below(most));
        rest.extend_from_slice(&said[at..end]);
        at = end;
        match session.bytes(&mut io, Leg::Client, &rest) {
            Ok(used) => drop(rest.drain(..used)),
            Err(_) => is_over = true,
        }
    }
    io.room = None;
    if !is_over && !io.closed && finishes {
        is_over = session.eof(&mut io, Leg::Client, &rest).is_err();
    }
    for _ in 0..3 {
        is_over = is_over || io.closed || session.low_water(&mut io, Leg::Client).is_err();
    }
    session.closed(if finishes { ClosedBy::Peer } else { ClosedBy::Stop });
    let [result] = &replay.results()[..] else { panic!("a dialogue has a result") };
    (io.near, result.clone())
}

#[test]
fn a_client_that_does_the_same_is_served_however_its_bytes_are_cut() {
    let seed: u64 = from_environment("RSOCK_FUZZ_SEED", 1);
    let rounds: u64 = from_environment("RSOCK_FUZZ_ROUNDS", 3_000);
    for round in seed..seed + rounds {
        let mut dice = Dice::new(round);
        let has_any = dice.one_in(2);
        let Dialogue { text, said, told, is_finished } = dialogue(&mut dice, has_any);
        let replay = replay(&text, &playing(Chunks::Lenient)).expect("a recording");
        let (sent, result) = played(&replay, &said, is_finished, &mut dice);
        assert_eq!(result.error, None, "seed {round}: {text}");
        assert_eq!(sent, told, "seed {round}: {text}");
    }
}

#[test]
fn a_client_that_does_something_else_is_told() {
    let seed: u64 = from_environment("RSOCK_FUZZ_SEED", 1);
    let rounds: u64 = from_environment("RSOCK_FUZZ_ROUNDS", 3_000);
    let mut diverged = 0;
    for round in seed..seed + rounds {
        let mut dice = Dice::new(round);
        let Dialogue { text, mut said, told, is_finished } = dialogue(&mut dice, false);
        let whole = said.clone();
        match dice.below(4) {
            0 => said.truncate(dice.below(said.len() + 1)),
            1 => said.push(b'a'),
            _ if said.is_empty() => continue,
            2 => {
                let at = dice.below(said.len());
                said[at] = b'a' + dice.below(4) as u8;
            }
            _ => drop(said.remove(dice.below(said.len()))),
        }
        let replay = replay(&text, &playing(Chunks::Lenient)).expect("a recording");
        let (sent, result) = played(&replay, &said, true, &mut dice);
        assert!(told.starts_with(&sent), "seed {round}: {text}");
        // More than was recorded may come when everything was played already.
        let is_more = said.starts_with(&whole) && !is_finished;
        if said != whole && !is_more {
            diverged += 1;
            let error = result.error.as_deref().unwrap_or_default();
            assert!(error.starts_with("connection 1: x.rec, "), "seed {round}: {error}\n{text}");
        }
    }
    assert!(diverged > rounds / 4, "{diverged} of {rounds} clients have diverged");
}

#[test]
fn changed_recordings_and_random_clients_cause_no_panic() {
    let seed: u64 = from_environment("RSOCK_FUZZ_SEED", 1);
    let rounds: u64 = from_environment("RSOCK_FUZZ_ROUNDS", 3_000);
    let mut valid = 0;
    for round in seed..seed + rounds {
        let mut dice = Dice::new(round);
        let mut text = dialogue(&mut dice, true).text.into_bytes();
        for _ in 0..dice.below(3) {
            let at = dice.below(text.len());
            text[at] = dice.below(256) as u8;
        }
        text.truncate(text.len() - if dice.one_in(3) { dice.below(text.len()) } else { 0 });
        let text = String::from_utf8_lossy(&text).into_owned();
        let chunks = if dice.one_in(2) { Chunks::Lenient } else { Chunks::Exact };
        let Some(replay) = replay(&text, &playing(chunks)) else { continue };
        if replay.connections() == 0 {
            continue;
        }
        valid += 1;
        let said = letters(&mut dice, 40);
        let finishes = dice.one_in(2);
        played(&replay, said.as_bytes(), finishes, &mut dice);
    }
    assert!(valid > rounds / 10, "{valid} of {rounds} texts are recordings");
}

#[test]
fn datagrams_that_are_the_same_are_answered_and_random_ones_cause_no_panic() {
    let seed: u64 = from_environment("RSOCK_FUZZ_SEED", 1);
    let rounds: u64 = from_environment("RSOCK_FUZZ_ROUNDS", 3_000);
    let mut playing = (*playing(Chunks::Lenient)).clone();
    playing.carry.push(0..2);
    let playing = Arc::new(playing);
    for round in seed..seed + rounds {
        let mut dice = Dice::new(round);
        let mut text = header("udp");
        let mut dialogue = Vec::new();
        for _ in 0..=dice.below(6) {
            let (asked, answer) = (letters(&mut dice, 9), letters(&mut dice, 9));
            writeln!(text, "1 0.1 > b\"{asked}\"\n1 0.1 < b\"{answer}\"").unwrap();
            dialogue.push((asked.into_bytes(), answer.into_bytes()));
        }
        text.push_str("stop 3\n");
        let replay = Arc::new(replay(&text, &playing).expect("a recording"));
        let local = Endpoint::udp("127.0.0.1:7".parse().unwrap());
        let remote = Endpoint::udp("127.0.0.1:8".parse().unwrap());
        let tlvs = Vec::new();
        let peer = Peer { id: 1, local: local.clone(), remote, proxy: None, tlvs, line: 1 };
        let prepared = Datagrams::prepare(&*replay, &site(local), &mut Plain).unwrap().unwrap();
        let is_right = dice.one_in(2);
        for (asked, mut answer) in dialogue {
            let mut data = if is_right { asked } else { letters(&mut dice, 9).into_bytes() };
            for at in 0..data.len().min(2) {
                data[at] = b'0' + dice.below(10) as u8;
            }
            let carried = 2.min(answer.len()).min(data.len());
            answer[..carried].copy_from_slice(&data[..carried]);
            let mut replies = Replies::default();
            let taken = prepared.on_datagram(&data, &peer, &mut replies);
            if is_right {
                assert!(taken.is_ok(), "seed {round}: {text}");
                // A range that one of them does not have as a whole is not carried.
                if data.len() >= 2 && answer.len() >= 2 {
                    assert_eq!(replies.sent, [answer], "seed {round}: {text}");
                }
            }
        }
        replay.end(1);
        let results = replay.results();
        if is_right {
            assert!(results.iter().all(|result| result.done), "seed {round}: {results:?}");
        }
    }
}

/// How many dialogues had ended before each thing that a client notices.
fn ended_before(text: &str, said: &[&[u8]], room: Option<usize>) -> Vec<usize> {
    let replay = Rc::new(replay(text, &playing(Chunks::Lenient)).expect("a recording"));
    let peer = peer();
    let prepared = Service::prepare(&*replay, &site(peer.local.clone()), &mut Plain);
    let mut session = prepared.unwrap().unwrap().open(&peer);
    let counts = Rc::new(RefCell::default());
    let before = {
        let (replay, counts) = (Rc::clone(&replay), Rc::clone(&counts));
        move || RefCell::<Vec<usize>>::borrow_mut(&counts).push(replay.results().len())
    };
    let mut io = FakeIo { room, before: Some(Box::new(before)), ..FakeIo::default() };
    assert!(session.open(&mut io).is_ok());
    for data in said {
        assert_eq!(session.bytes(&mut io, Leg::Client, data).ok(), Some(data.len()));
    }
    if room.is_some() {
        assert!(replay.results().is_empty(), "the last bytes have not left");
        io.room = None;
        assert!(session.low_water(&mut io, Leg::Client).is_ok());
    }
    let [result] = &replay.results()[..] else { panic!("the dialogue has ended") };
    assert!(result.done, "{result:?}");
    counts.take()
}

#[test]
fn the_result_is_there_before_the_client_has_the_last_bytes() {
    let text = |events: &str| format!("{}{events}stop 3\n", header("tcp"));
    let answered = text("1 0 < b\"hi\"\n1 1 > b\"abc\"\n1 2 < b\"ok\"\n");
    assert_eq!(ended_before(&answered, &[b"ab", b"c"], None), [0, 1, 1]);
    // Taken back, for the rest is sent later.
    assert_eq!(ended_before(&answered, &[b"abc"], Some(3)), [0, 1, 1, 1]);
    let finished = text("1 1 > b\"abc\"\n1 2 < b\"ok\"\n1 2 < end\n");
    assert_eq!(ended_before(&finished, &[b"abc"], None), [1, 1, 1]);
    let silent = text("1 1 > b\"abc\"\n1 2 < end\n");
    assert_eq!(ended_before(&silent, &[b"abc"], None), [1, 1]);
    let reset = text("1 1 > b\"abc\"\n1 2 < reset\n");
    assert_eq!(ended_before(&reset, &[b"abc"], None), [1]);
    // The last bytes of many leave apart.
    let letters = "x".repeat(20_000);
    let many = text(&format!("1 1 > b\"a\"\n1 2 < b\"{letters}\"\n"));
    assert_eq!(ended_before(&many, &[b"a"], None), [0, 1, 1]);
}

#[test]
fn the_position_is_that_of_what_the_client_has_noticed() {
    let events =
        "1 0 > b\"abc\"\n1 1 < b\"one\"\n1 2 < b\"two\"\n1 3 < end\n1 4 > b\"d\"\nstop 5\n";
    let text = format!("{}{events}", header("tcp"));
    let replay = Rc::new(replay(&text, &playing(Chunks::Lenient)).expect("a recording"));
    let peer = peer();
    let prepared = Service::prepare(&*replay, &site(peer.local.clone()), &mut Plain);
    let mut session = prepared.unwrap().unwrap().open(&peer);
    let seen = Rc::new(RefCell::<Vec<String>>::default());
    let before = {
        let (replay, seen) = (Rc::clone(&replay), Rc::clone(&seen));
        move || {
            let [result] = &replay.results_of(1)[..] else { panic!("one dialogue goes on") };
            let position = result.position.clone().expect("a position");
            seen.borrow_mut().push(position.split_once("): ").expect("a place").1.to_owned());
        }
    };
    let mut io = FakeIo { before: Some(Box::new(before)), ..FakeIo::default() };
    assert!(session.open(&mut io).is_ok());
    assert_eq!(session.bytes(&mut io, Leg::Client, b"abc").ok(), Some(3));
    assert_eq!(*seen.borrow(), ["sends b\"one\"", "sends b\"two\"", "sends the end (FIN)"]);
}
