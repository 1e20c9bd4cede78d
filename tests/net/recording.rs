//! The reader of recordings against files that are cut, changed and random: no panic, no more memory
//! than the file explains, and what is read is what was written. Reproducible:
//! `RSOCK_FUZZ_SEED=7 cargo test … recording`; longer: `RSOCK_FUZZ_ROUNDS=1000000`.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use _rsock::net::address::{Endpoint, Transport};
use _rsock::net::error::Error;
use _rsock::net::recording::{Content, Direction, Moment, Piece, Recording, Timeline, What};

use crate::fuzz::{Dice, from_environment};

const EXAMPLE: &str = r#"rsock recording 1
transport tcp
started 2026-11-28T09:05:00.000001Z
target redis.example:6379
1 0.000000 open 127.0.0.1:53422 127.0.0.1:40000
1 0.000123 > b"AUTH " any b"[redacted]" b"\r\n"
2 0.000200 open [::1]:53423
1 0.000345 < b"+OK\r\n"
2 0.000400 < b"\x00\xff\"'\\"
1 0.100000 > end
1 0.100100 < end
2 0.200000 > reset
stop 2.000000
"#;

fn wrong(text: impl AsRef<[u8]>) -> String {
    match Recording::parse(text.as_ref()) {
        Err(Error::Value(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn connections_and_their_events_are_read() {
    let recording = Recording::parse(EXAMPLE.as_bytes()).unwrap();
    assert_eq!((recording.transport, &*recording.target), (Transport::Tcp, "redis.example:6379"));
    assert_eq!((recording.stopped, &recording.torn), (Some(Duration::from_secs(2)), &None));
    let [first, second] = &recording.connections[..] else { panic!("{recording:?}") };
    assert_eq!((first.number, second.number), (1, 2));
    assert_eq!(first.client, Endpoint::tcp("127.0.0.1:53422".parse().unwrap()));
    assert_eq!(first.local, Some(Endpoint::tcp("127.0.0.1:40000".parse().unwrap())));
    assert_eq!((second.at, &second.local), (Duration::from_micros(200), &None));
    let What::Bytes(auth) = &first.events[0].what else { panic!("{first:?}") };
    let pieces: Vec<_> = auth.pieces().collect();
    let any = Piece::Any(b"[redacted]");
    assert_eq!(pieces, [Piece::Exactly(b"AUTH "), any, Piece::Exactly(b"\r\n")]);
    let seen: Vec<_> = second.events.iter().map(|event| (event.direction, &event.what)).collect();
    let bytes = What::Bytes(Content::from(b"\x00\xff\"'\\".as_slice()));
    assert_eq!(seen, [(Direction::Down, &bytes), (Direction::Up, &What::Reset)]);
    assert_eq!(recording.text(), EXAMPLE);
}

#[test]
fn a_datagram_may_be_empty_and_the_name_of_a_unix_socket_may_be_any() {
    let udp = EXAMPLE.lines().take(5).collect::<Vec<_>>().join("\n").replace("tcp", "udp");
    let udp = format!("{udp}\n1 0.000001 > b\"\"\nstop 1.000000\n");
    let recording = Recording::parse(udp.as_bytes()).unwrap();
    assert_eq!(recording.connections[0].events[0].what, What::Datagram(Content::default()));
    assert_eq!(recording.text(), udp);
    let unix = EXAMPLE.lines().take(4).collect::<Vec<_>>().join("\n").replace("tcp", "unix");
    let unix = format!(
        "{unix}\n1 0.000000 open b\"\" b\"/b c\"\n2 0.000001 open b\"/a \\n\"\nstop 1.000000\n"
    );
    let recording = Recording::parse(unix.as_bytes()).unwrap();
    assert!(recording.connections[0].client.address.as_unix().unwrap().is_unnamed());
    assert_eq!(recording.text(), unix);
}

#[test]
fn a_file_that_is_cut_is_read_up_to_the_tear() {
    let whole = Recording::parse(EXAMPLE.as_bytes()).unwrap();
    for cut in 0..EXAMPLE.len() {
        let part = &EXAMPLE.as_bytes()[..cut];
        let recording = Recording::parse(part).unwrap_or_else(|error| panic!("{cut}: {error}"));
        let torn = recording.torn.as_ref().unwrap_or_else(|| panic!("{cut}: not torn"));
        let start = part.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        assert_eq!((torn.offset, recording.stopped), (start as u64, None), "{cut}");
        assert_eq!(torn.line, part.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1);
        if part[..start].iter().filter(|&&byte| byte == b'\n').count() >= 4 {
            assert_eq!(recording.text().as_bytes(), &part[..start], "{cut}");
        }
        let events: usize = recording.connections.iter().map(|c| c.events.len()).sum();
        assert!(events <= whole.connections.iter().map(|c| c.events.len()).sum());
        // What a file system may leave of a file behind a crash.
        if start > 0 {
            let padded = [part, &[0; 70_000]].concat();
            assert_eq!(Recording::parse(&padded).unwrap(), recording, "{cut}");
        }
    }
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let line = |line: &str| EXAMPLE.replace("stop 2.000000", line);
    for (text, part) in [
        ("hello\n".to_owned(), "line 1: \"hello\" is not how a recording begins"),
        ("hello".to_owned(), "line 1: \"hello\" is not how a recording begins"),
        (EXAMPLE.replace("recording 1", "recording 2"), "line 1: version 2 of the format"),
        (EXAMPLE.replace("recording 1", "recording 0"), "not how a recording begins"),
        (EXAMPLE.replace("recording 1", "recording 1x"), "not how a recording begins"),
        (EXAMPLE.replace("tcp", "sctp"), "line 2: transport \"sctp\""),
        (EXAMPLE.replace("2026-11-28", "2026-11-31"), "line 3: \"2026-11-31T"),
        (EXAMPLE.replace("target", "to"), "line 4: \"to redis.example:6379\""),
        (line("1 0.2 > b\"a\""), "line 13: connection 1 has ended in this direction"),
        (line("2 0.2 > reset"), "connection 2 has ended in this direction"),
        (line("3 0.2 > end"), "line 13: connection 3 has not been opened"),
        (line("2 0.2 open 127.0.0.1:5"), "line 13: connection 2 is opened a second time"),
        (line("3 0.2 open b\"/a\""), "/a is no address of a client by tcp"),
        (line("3 0.2 open [::1]:5 b\"/a\""), "/a is no address of a server by tcp"),
        (line("3 0.2 open [::1]:5 x"), "\"x\" is no address"),
        (line("2 0.2 < b\"\""), "at least one"),
        (line("2 0.2 < b\"é\""), "not ASCII"),
        (line("2 0.2 < b\"a\0\""), "line 13: has a NUL byte"),
        (format!("{EXAMPLE}stop 3\n"), "line 14: follows the stop line"),
        (format!("{EXAMPLE}x"), "line 14: follows the stop line"),
        (line(&format!("2 0.2 < b\"{}\"", "a".repeat(600_000))), "line 13: has more than"),
    ] {
        let found = wrong(&text);
        assert!(found.contains(part), "{part}: {found}");
        assert!(found.len() < 300, "{found}");
    }
    assert!(wrong(b"rsock recording 1\n\xff\n").contains("line 2: is no text"));
    assert!(wrong([0; 100]).contains("line 1: has a NUL byte"));
}

#[test]
fn comments_and_the_line_ends_of_other_systems_are_read() {
    let commented = EXAMPLE.replace("stop", "# a comment\n\nstop").replace('\n', "\r\n");
    assert_eq!(Recording::parse(commented.as_bytes()).unwrap().text(), EXAMPLE);
}

#[test]
fn a_file_is_named_where_it_cannot_be_read() {
    for (path, errno) in [("/nowhere/x.rec", libc::ENOENT), ("/tmp", libc::EISDIR)] {
        let Err(Error::File { path: found, errno: seen, .. }) = Recording::read(Path::new(path))
        else {
            panic!("{path}");
        };
        assert_eq!((&*found, seen), (Path::new(path), errno));
    }
    // It never ends.
    let Err(Error::Value(text)) = Recording::read(Path::new("/dev/zero")) else { panic!() };
    assert!(text.starts_with("/dev/zero, line 1: "), "{text}");
    let path = std::env::temp_dir().join(format!("rsock-{}.rec", std::process::id()));
    fs::write(&path, EXAMPLE.repeat(2)).unwrap();
    let error = Recording::read(&path).unwrap_err().to_string();
    fs::remove_file(&path).unwrap();
    assert!(error.starts_with(&format!("{}, line 14: ", path.display())), "{error}");
}

/// A file of the test's own, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("rsock-{name}-{}.rec", std::process::id())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What a timeline yields, put together again, if its moments are in the order of time.
fn put_together(mut timeline: Timeline) -> Recording {
    let mut recording = timeline.header().clone();
    let (mut last, mut places) = (Duration::ZERO, HashMap::new());
    while let Some(moment) = timeline.next_moment().unwrap() {
        let at = match moment {
            Moment::Opened(connection) => {
                places.insert(connection.number, recording.connections.len());
                let at = connection.at;
                recording.connections.push(connection);
                at
            }
            Moment::Event(number, event) => {
                let at = event.at;
                recording.connections[places[&number]].events.push(event);
                at
            }
        };
        assert!(last <= at, "{last:?} {at:?}");
        last = at;
    }
    recording.connections.sort_by_key(|connection| connection.number);
    recording
}

#[test]
fn a_timeline_has_late_lines_at_their_time() {
    let place = Place::new("late");
    let late = "\
2 0.300000 open [::1]:53423
2 0.400000 < b\"c\"
1 0.100000 open 127.0.0.1:53422
1 0.200000 > b\"a\"
3 0.150000 open [::1]:53424 [::1]:7
1 0.350000 < b\"b\"
2 0.300000 < b\"later than its line says\"
1 0.350000 > end
1 0.500000 < end
2 0.300000 > end
3 0.150000 > reset
";
    let head = EXAMPLE.split("1 0.0").next().unwrap();
    for end in ["stop 2.000000\n", "", "1 0.6 > b\"cu"] {
        fs::write(&place.0, format!("{head}{late}{end}")).unwrap();
        let timeline = Timeline::open(&place.0).unwrap();
        assert_eq!(put_together(timeline), Recording::read(&place.0).unwrap(), "{end}");
    }
}

#[test]
fn a_timeline_needs_a_file_that_can_be_read_twice() {
    let path = Path::new("/proc/self/fd").join("none");
    assert!(matches!(Timeline::open(&path), Err(Error::File { errno: libc::ENOENT, .. })));
    let place = Place::new("changed");
    fs::write(&place.0, EXAMPLE).unwrap();
    let mut timeline = Timeline::open(&place.0).unwrap();
    // What another recorder may do. The moments end, or an error says so.
    fs::write(&place.0, "hello\n").unwrap();
    let Err(Error::Value(text)) = timeline.next_moment() else { panic!("read") };
    assert!(text.contains("line 1: \"hello\""), "{text}");
}

/// Bytes of what has been read.
fn size(recording: &Recording) -> usize {
    let of = |what: &What| match what {
        What::Bytes(content) | What::Datagram(content) => content.bytes().len(),
        What::End | What::Reset => 0,
    };
    let events = recording.connections.iter().flat_map(|connection| &connection.events);
    recording.target.len() + events.map(|event| of(&event.what)).sum::<usize>()
}

const PARTS: &[&str] = &[
    "1 0.1 > b\"a\"\n",
    "1 0.1 < any b\"x\" b\"\\x00\"\n",
    "1 0.2 > end\n",
    "1 0.2 < reset\n",
    "9 0.1 open 127.0.0.1:9\n",
    "8 0.3 open 127.0.0.1:9 [::1]:7\n",
    " 127.0.0.1:9",
    "9 0.1 > b\"\"\n",
    "18446744073709551615 4294967295.999999999 open [::]:0\n",
    "stop 4294967295.9\n",
    "rsock recording 18446744073709551616\n",
    "99999999999999999999 0.1 > end\n",
    "transport udp\n",
    "target \n",
    "any any any b\"\n",
    "# \n",
    "\n",
    "\\x",
    "b\"",
    "\0\0\0\0",
];

/// The example, with changes that are drawn.
fn changed(seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut file = if dice.one_in(4) { Vec::new() } else { EXAMPLE.as_bytes().to_vec() };
    for _ in 0..dice.below(5) {
        let at = dice.below(file.len() + 1);
        match dice.below(6) {
            0 => file.truncate(at),
            1 => drop(file.drain(at..(at + dice.below(9)).min(file.len()))),
            2 => drop(file.splice(at..at, (0..dice.below(9)).map(|_| dice.below(256) as u8))),
            3 => file[at..].iter_mut().take(2).for_each(|byte| *byte = dice.below(256) as u8),
            _ => {
                let lines = file[..at].iter().rposition(|&byte| byte == b'\n');
                let at = lines.map_or(at, |end| end + 1);
                drop(file.splice(at..at, PARTS[dice.below(PARTS.len())].bytes()));
            }
        }
    }
    file
}

#[test]
fn no_file_ends_the_reader_nor_makes_it_large() {
    let seed: u64 = from_environment("RSOCK_FUZZ_SEED", 1);
    let rounds: u64 = from_environment("RSOCK_FUZZ_ROUNDS", 20_000);
    let (mut read, mut torn) = (0, 0);
    for round in 0..rounds {
        let file = changed(seed + round);
        match Recording::parse(&file) {
            Ok(recording) => {
                read += 1;
                torn += u64::from(recording.torn.is_some());
                assert!(size(&recording) <= file.len(), "seed {}", seed + round);
                let again = Recording::parse(recording.text().as_bytes());
                let again = again.unwrap_or_else(|error| panic!("seed {}: {error}", seed + round));
                assert_eq!(again.text(), recording.text(), "seed {}", seed + round);
            }
            Err(Error::Value(text)) => {
                assert!(text.starts_with("recording, line "), "seed {}: {text}", seed + round);
                assert!(text.len() < 1_000, "seed {}: {text}", seed + round);
            }
            Err(other) => panic!("seed {}: {other:?}", seed + round),
        }
    }
    assert!(torn > rounds / 50 && read - torn > rounds / 50, "{torn} torn of {read} of {rounds}");
}

#[test]
fn a_timeline_says_what_a_recording_says_or_fails_as_it_does() {
    let seed: u64 = from_environment("RSOCK_FUZZ_SEED", 1);
    let rounds: u64 = from_environment("RSOCK_FUZZ_ROUNDS", 20_000) / 10;
    let place = Place::new("fuzz");
    let mut read = 0;
    for round in 0..rounds {
        fs::write(&place.0, changed(seed + round)).unwrap();
        match (Recording::read(&place.0), Timeline::open(&place.0)) {
            (Ok(recording), Ok(timeline)) => {
                read += 1;
                assert_eq!(put_together(timeline), recording, "seed {}", seed + round);
            }
            (Err(expected), Err(found)) => {
                assert_eq!(expected.to_string(), found.to_string(), "seed {}", seed + round);
            }
            (expected, _) => panic!("seed {}: {expected:?}", seed + round),
        }
    }
    assert!(read > rounds / 10, "{read} of {rounds}");
}
