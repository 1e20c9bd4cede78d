//! The recorder's stage with bytes and a clock of the test's own; the queue and the thread behind it
//! with files.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use _rsock::net::address::{Endpoint, Transport};
use _rsock::net::error::Error;
use _rsock::net::recording::{Direction, Plan, Recorder, Recording, Redaction, What};
use _rsock::net::stage::{Chain, Direction as Way, Inbound, Outbound, RecorderStage};

/// A file of the test's own, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("rsock-{}-{}.rec", std::process::id(), NEXT.fetch_add(1, SeqCst));
        Self(std::env::temp_dir().join(name))
    }

    fn plan(&self, rules: &[(&str, &[u8])]) -> Plan {
        Plan { path: self.0.clone(), redaction: Redaction::new(rules).unwrap() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn recorder(place: &Place, rules: &[(&str, &[u8])]) -> Arc<Recorder> {
    Recorder::open(&place.plan(rules), Transport::Tcp, "example:1").unwrap()
}

fn stage(recorder: &Arc<Recorder>, number: u64, now: Instant) -> RecorderStage {
    let [client, local] =
        ["127.0.0.1:1000", "[::1]:7"].map(|text| Endpoint::tcp(text.parse().unwrap()));
    RecorderStage::new(recorder.track(number, &client, &local, now), now)
}

fn chain(recorder: &Arc<Recorder>, number: u64, now: Instant) -> Chain {
    let mut chain = Chain::new(vec![Box::new(stage(recorder, number, now))]);
    chain.open(now, None).unwrap();
    chain
}

/// What has been recorded, without times: "> abc", "< end".
fn told(recorder: &Recorder, place: &Path) -> Vec<String> {
    recorder.finish();
    recorder.run(&|| None).unwrap();
    let recording = Recording::read(place).unwrap();
    assert_eq!(recording.torn, None);
    let events = recording.connections.iter().flat_map(|connection| &connection.events);
    events
        .map(|event| {
            let arrow = if event.direction == Direction::Up { ">" } else { "<" };
            match &event.what {
                What::Bytes(content) | What::Datagram(content) => {
                    format!("{arrow} {}", String::from_utf8_lossy(content.bytes()))
                }
                What::End => format!("{arrow} end"),
                What::Reset => format!("{arrow} reset"),
            }
        })
        .collect()
}

/// All that has left a chain inbound.
fn taken(chain: &mut Chain) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(Inbound::Bytes(chunk)) = chain.next_inbound() {
        bytes.extend_from_slice(chunk);
        let count = chunk.len();
        chain.consume_inbound(count);
    }
    bytes
}

#[test]
fn what_passes_is_recorded_and_stays_as_it_is() {
    let place = Place::new();
    let recorder = recorder(&place, &[]);
    let now = Instant::now();
    let mut chain = chain(&recorder, 7, now);
    let later = now + Duration::from_millis(1500);
    chain.inbound(now, Inbound::Bytes(b"ab")).unwrap();
    chain.outbound(later, Outbound::Bytes(b"cd")).unwrap();
    chain.inbound(later, Inbound::End).unwrap();
    chain.outbound(later, Outbound::End).unwrap();
    assert_eq!(taken(&mut chain), b"ab");
    assert_eq!(chain.next_inbound(), Some(Inbound::End));
    assert_eq!(chain.next_outbound(), Some(Outbound::Bytes(b"cd")));
    assert_eq!((chain.next_call(), chain.room()), (None, usize::MAX));
    drop(chain);
    assert_eq!(told(&recorder, &place.0), ["> ab", "< cd", "> end", "< end"]);
    let recording = Recording::read(&place.0).unwrap();
    let [connection] = &recording.connections[..] else { panic!("{recording:?}") };
    assert_eq!((connection.number, &*recording.target), (7, "example:1"));
    let addresses = [Some(&connection.client), connection.local.as_ref()];
    assert_eq!(addresses.map(|it| it.unwrap().to_string()), ["127.0.0.1:1000", "[::1]:7"]);
    let passed = connection.events[1].at - connection.events[0].at;
    let exact = passed.abs_diff(Duration::from_millis(1500));
    assert!(exact <= Duration::from_micros(1), "{passed:?}");
}

#[test]
fn a_reset_is_recorded_on_the_side_that_it_comes_from() {
    for (event, expected) in [(true, "> reset"), (false, "< reset")] {
        let (place, now) = (Place::new(), Instant::now());
        let recorder = recorder(&place, &[]);
        let mut chain = chain(&recorder, 1, now);
        if event {
            chain.inbound(now, Inbound::Error(libc::ECONNRESET)).unwrap();
        } else {
            chain.outbound(now, Outbound::Reset).unwrap();
        }
        drop(chain);
        assert_eq!(told(&recorder, &place.0), [expected]);
    }
}

#[test]
fn a_connection_that_the_server_drops_is_reset_in_the_recording() {
    let (place, now) = (Place::new(), Instant::now());
    let recorder = recorder(&place, &[]);
    let mut chain = chain(&recorder, 1, now);
    chain.inbound(now, Inbound::Bytes(b"a")).unwrap();
    drop(chain);
    assert_eq!(told(&recorder, &place.0), ["> a", "< reset"]);
}

#[test]
fn while_the_queue_is_full_nothing_is_received_and_output_is_held() {
    let (place, now) = (Place::new(), Instant::now());
    let recorder = recorder(&place, &[]);
    let (mut first, mut second) = (chain(&recorder, 1, now), chain(&recorder, 2, now));
    let chunk = vec![b'x'; 60_000];
    let mut pushed = 0;
    while first.room() > 0 {
        first.inbound(now, Inbound::Bytes(&chunk)).unwrap();
        pushed += 1;
        assert!(pushed < 100, "the queue is never full");
    }
    // Also the connection that has not filled it is told to take no more, and when to look again.
    assert_eq!((second.room(), second.next_call()), (0, Some(now)));
    second.outbound(now, Outbound::Bytes(b"ab")).unwrap();
    second.outbound(now, Outbound::Bytes(b"cd")).unwrap();
    second.outbound(now, Outbound::End).unwrap();
    assert_eq!((second.next_outbound(), second.held(Way::Outbound)), (None, 4));
    second.turn(now).unwrap();
    assert!(second.next_call().is_some_and(|at| at > now));
    assert!(second.is_owed());
    let writing = {
        let recorder = Arc::clone(&recorder);
        thread::spawn(move || recorder.run(&|| None))
    };
    let mut at = now;
    let end = Instant::now() + Duration::from_secs(30);
    while second.room() == 0 {
        at += Duration::from_millis(100);
        second.turn(at).unwrap();
        assert!(Instant::now() < end, "there is never room");
        thread::yield_now();
    }
    assert_eq!(second.next_outbound(), Some(Outbound::Bytes(b"ab")));
    second.consume_outbound(2);
    assert_eq!(second.next_outbound(), Some(Outbound::Bytes(b"cd")));
    second.consume_outbound(2);
    assert_eq!(second.next_outbound(), Some(Outbound::End));
    assert_eq!((second.next_call(), second.is_owed()), (None, true));
    assert_eq!(taken(&mut first).len(), pushed * chunk.len());
    drop((first, second));
    recorder.finish();
    writing.join().unwrap().unwrap();
    let recording = Recording::read(&place.0).unwrap();
    assert_eq!(recording.connections[0].events.len(), pushed + 1);
    assert_eq!(recording.connections[1].events.len(), 3);
}

#[test]
fn the_queue_is_bounded_whatever_a_connection_gives() {
    let (place, now) = (Place::new(), Instant::now());
    let recorder = recorder(&place, &[]);
    let mut chain = chain(&recorder, 1, now);
    // One that ignores that there is no room, as the stages below one may.
    for _ in 0..1_000 {
        chain.inbound(now, Inbound::Bytes(&[b'x'; 10_000])).unwrap();
    }
    // What the queue did not take is held, in order, and not passed on.
    let passed = taken(&mut chain).len();
    assert!(passed <= 1024 * 1024 + 10_000, "{passed}");
    assert_eq!(passed + chain.held(Way::Inbound), 10_000_000);
}

#[test]
fn nothing_of_a_secret_is_in_the_file_wherever_it_is_cut() {
    let secret = b"SECRET-0123456789";
    let text = [b"begin ".as_slice(), secret, b" middle ", secret, b" end"].concat();
    for cut in 1..text.len() {
        let (place, now) = (Place::new(), Instant::now());
        let recorder = recorder(&place, &[("SECRET-[0-9]+", b"***")]);
        let mut chain = chain(&recorder, 1, now);
        for chunk in [&text[..cut], &text[cut..]] {
            chain.inbound(now, Inbound::Bytes(chunk)).unwrap();
            chain.outbound(now, Outbound::Bytes(chunk)).unwrap();
        }
        drop(chain);
        let up: String =
            told(&recorder, &place.0).iter().filter_map(|event| event.strip_prefix("> ")).collect();
        assert_eq!(up, "begin *** middle *** end", "{cut}");
        let file = fs::read(&place.0).unwrap();
        for length in 3..secret.len() {
            let part = &secret[..length];
            // The name of the pattern may be there, as the start of a match that it is not.
            let found = file.windows(length).filter(|window| *window == part).count();
            assert_eq!(found, 0, "{cut}: {}", String::from_utf8_lossy(&file));
        }
    }
}

#[test]
fn what_was_held_is_in_order_once_it_is_read() {
    let (place, now) = (Place::new(), Instant::now());
    let recorder = recorder(&place, &[("ab+c", b"***")]);
    let mut chain = chain(&recorder, 1, now);
    // All at the same time: the second and the third are written in front of the first.
    chain.inbound(now, Inbound::Bytes(b"1 ab")).unwrap();
    chain.outbound(now, Outbound::Bytes(b"2")).unwrap();
    chain.outbound(now, Outbound::Bytes(b"3 ab")).unwrap();
    chain.inbound(now, Inbound::Bytes(b"b")).unwrap();
    chain.inbound(now, Inbound::Bytes(b" 4")).unwrap();
    chain.inbound(now, Inbound::End).unwrap();
    chain.outbound(now, Outbound::End).unwrap();
    drop(chain);
    let seen = told(&recorder, &place.0);
    assert_eq!(seen, ["> 1 ab", "< 2", "< 3 ab", "> b", ">  4", "> end", "< end"]);
}

#[test]
fn an_older_recording_is_replaced_and_no_other_file() {
    let (place, link) = (Place::new(), Place::new());
    for _ in 0..2 {
        assert_eq!(told(&recorder(&place, &[]), &place.0), [""; 0]);
    }
    symlink(&place.0, &link.0).unwrap();
    assert_eq!(told(&recorder(&link, &[]), &link.0), [""; 0]);
    fs::write(&place.0, "rsock rec").unwrap();
    assert_eq!(told(&recorder(&place, &[]), &place.0), [""; 0]);
    fs::write(&place.0, "import os\n").unwrap();
    let failed = Recorder::open(&place.plan(&[]), Transport::Tcp, "x").unwrap_err();
    assert!(matches!(failed, Error::File { errno: libc::EEXIST, .. }), "{failed:?}");
    assert_eq!(fs::read(&place.0).unwrap(), b"import os\n");
    fs::write(&place.0, "").unwrap();
    let open = recorder(&place, &[]);
    let failed = Recorder::open(&place.plan(&[]), Transport::Tcp, "x").unwrap_err();
    assert!(matches!(failed, Error::File { errno: libc::EBUSY, .. }), "{failed:?}");
    drop(open);
    recorder(&place, &[]);
}

#[test]
fn a_pipe_that_is_not_read_is_given_up_at_the_deadline() {
    let place = Place::new();
    let made = std::process::Command::new("mkfifo").arg(&place.0).status().unwrap();
    assert!(made.success());
    let absent = Recorder::open(&place.plan(&[]), Transport::Tcp, "x").unwrap_err();
    assert!(matches!(absent, Error::File { errno: libc::ENXIO, .. }), "{absent:?}");
    let opened = {
        let path = place.0.clone();
        thread::spawn(move || fs::File::open(path).unwrap())
    };
    let end = Instant::now() + Duration::from_secs(30);
    let recorder = loop {
        match Recorder::open(&place.plan(&[]), Transport::Tcp, "x") {
            Ok(recorder) => break recorder,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        thread::yield_now();
    };
    let mut reader = opened.join().unwrap();
    let now = Instant::now();
    let mut chain = chain(&recorder, 1, now);
    for _ in 0..10 {
        chain.inbound(now, Inbound::Bytes(&[b'x'; 60_000])).unwrap();
    }
    recorder.finish();
    let deadline = now + Duration::from_millis(100);
    let failed = recorder.run(&|| Some(deadline)).unwrap_err();
    assert!(matches!(failed, Error::File { errno: libc::ETIMEDOUT, .. }), "{failed:?}");
    assert!(Instant::now() >= deadline);
    // Everything is taken all the same.
    chain.inbound(now, Inbound::Bytes(b"more")).unwrap();
    assert_eq!((chain.room(), chain.held(Way::Inbound)), (usize::MAX, 600_004));
    drop((chain, recorder));
    let mut text = Vec::new();
    reader.read_to_end(&mut text).unwrap();
    assert!(Recording::parse(&text).unwrap().torn.is_some());
}
