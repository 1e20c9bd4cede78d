//! The services of the RFCs with bytes alone, held to the RFCs' own words; no socket is opened
//! here.

use std::sync::Arc;
use std::time::Duration;

use _rsock::net::service::{Drain, Leg, Peer, Service};
use _rsock::net::services::{
    ByConnection, Chargen, Daytime, Discard, Greeting, LineEcho, Quote, Time, chargen, daytime,
    time,
};

use crate::fake_io::{FakeIo, Replies, peer};
use crate::support::noise;

/// Seconds of a date, each day a whole one, so that the test's calendar is not the tested one.
fn at(days: u64, seconds: u64) -> Duration {
    Duration::from_secs(days * 86_400 + seconds)
}

#[test]
fn a_line_of_chargen_is_what_rfc_864_says() {
    let ring: Vec<u8> = (b' '..=b'~').collect();
    assert_eq!(ring.len(), 95);
    for number in [0, 1, 22, 23, 24, 71, 94, 95, 96, 1_000_000] {
        let line = chargen::line(number);
        let expected: Vec<u8> = (0..72).map(|at| ring[(number + at) % 95]).collect();
        assert_eq!(&line[..72], &expected[..], "line {number}");
        assert_eq!(&line[72..], b"\r\n");
    }
    assert_eq!(chargen::line(0), chargen::line(95));
}

#[test]
fn chargen_writes_exactly_as_much_as_there_is_room_for_and_goes_on_where_it_stopped() {
    let mut io = FakeIo { room: Some(10_001), ..FakeIo::default() };
    let mut session = Chargen.open(&peer());
    session.open(&mut io).unwrap();
    assert_eq!(io.near.len(), 10_001);
    for room in [1, 73, 74, 75, 20_000] {
        io.room = Some(room);
        session.low_water(&mut io, Leg::Client).unwrap();
    }
    let lines: Vec<u8> = (0..500).flat_map(chargen::line).collect();
    assert!(io.near == lines[..10_001 + 1 + 73 + 74 + 75 + 20_000]);
    assert_eq!(session.bytes(&mut io, Leg::Client, b"thrown away").unwrap(), 11);
    assert!(!io.closed, "it would go on for ever");
    session.eof(&mut io, Leg::Client, b"").unwrap();
    assert!(io.closed);
}

#[test]
fn chargen_ends_when_its_server_does() {
    let mut io = FakeIo { room: Some(0), ..FakeIo::default() };
    Chargen.open(&peer()).drain(&mut io).unwrap();
    assert!(io.closed);
}

#[test]
fn chargen_answers_a_datagram_with_up_to_512_characters() {
    let chargen = Arc::new(Chargen).datagrams().unwrap();
    let mut replies = Replies::default();
    for _ in 0..3000 {
        chargen.on_datagram(b"ignored", &peer(), &mut replies).unwrap();
    }
    let lines: Vec<u8> = (0..7).flat_map(chargen::line).collect();
    assert!(replies.sent.iter().all(|reply| lines.starts_with(reply)));
    let lengths: Vec<usize> = replies.sent.iter().map(Vec::len).collect();
    assert!(*lengths.iter().max().unwrap() <= 512);
    // Each half, and neither end alone: that much any fair draw does 3000 times.
    assert!(lengths.iter().any(|&length| length < 20));
    assert!(lengths.iter().any(|&length| length > 492));
    assert_eq!(lengths.len(), 3000);
}

#[test]
fn daytime_is_in_the_first_syntax_of_rfc_867() {
    // Its example, in UTC: day 4435 is 22 February 1982.
    let example = daytime::text(at(4435, 17 * 3600 + 37 * 60 + 43));
    assert_eq!(example, "Monday, February 22, 1982 17:37:43-UTC\r\n");
    for (days, seconds, expected) in [
        (0, 0, "Thursday, January 1, 1970 00:00:00-UTC\r\n"),
        (365, 86_399, "Friday, January 1, 1971 23:59:59-UTC\r\n"),
        (11_016, 1, "Tuesday, February 29, 2000 00:00:01-UTC\r\n"),
        (11_017, 60, "Wednesday, March 1, 2000 00:01:00-UTC\r\n"),
        (20_778, 0, "Saturday, November 21, 2026 00:00:00-UTC\r\n"),
        (24_143, 23_296, "Thursday, February 7, 2036 06:28:16-UTC\r\n"),
        (47_540, 0, "Sunday, February 28, 2100 00:00:00-UTC\r\n"),
        (47_541, 0, "Monday, March 1, 2100 00:00:00-UTC\r\n"),
        (146_097, 0, "Thursday, January 1, 2370 00:00:00-UTC\r\n"),
        (146_096, 0, "Wednesday, December 31, 2369 00:00:00-UTC\r\n"),
    ] {
        assert_eq!(daytime::text(at(days, seconds)), expected, "day {days}");
    }
}

#[test]
fn time_is_the_number_of_rfc_868() {
    let number = |days, seconds| u32::from_be_bytes(time::word(at(days, seconds)));
    // The RFC's own list, as far as it lies behind 1970.
    assert_eq!(number(0, 0), 2_208_988_800);
    assert_eq!(number(2191, 0), 2_398_291_200, "1 January 1976");
    assert_eq!(number(3652, 0), 2_524_521_600, "1 January 1980");
    assert_eq!(number(4868, 0), 2_629_584_000, "1 May 1983");
    // The most significant byte comes first.
    assert_eq!(time::word(at(0, 0)), [0x83, 0xaa, 0x7e, 0x80]);
}

#[test]
fn time_begins_anew_in_2036() {
    let last = at(24_143, 6 * 3600 + 28 * 60 + 15);
    assert_eq!(time::word(last), [0xff; 4]);
    assert_eq!(time::word(last + Duration::from_secs(1)), [0; 4]);
    assert_eq!(time::word(last + Duration::from_secs(2)), [0, 0, 0, 1]);
}

/// What a service that only speaks says to one who does not read at once.
fn speech_of(service: &dyn Service, room: usize) -> Vec<u8> {
    let mut io = FakeIo { room: Some(room), ..FakeIo::default() };
    let mut session = service.open(&peer());
    session.open(&mut io).unwrap();
    assert_eq!(session.drain(&mut io).unwrap(), Drain::Hold, "a stop lets it finish");
    // A peer that floods, and one that has nothing to say at all: it hears the rest all the same.
    assert_eq!(session.bytes(&mut io, Leg::Client, &noise(5000)).unwrap(), 5000);
    session.eof(&mut io, Leg::Client, b"").unwrap();
    while !io.closed {
        io.room = Some(7);
        session.low_water(&mut io, Leg::Client).unwrap();
    }
    io.near
}

#[test]
fn greeting_and_quote_say_their_text_and_close_however_little_room_there_is() {
    for room in [0, 1, 13, 1000] {
        assert_eq!(speech_of(&Greeting::new(b"Hello, Client!\0"), room), b"Hello, Client!\0");
        assert_eq!(
            speech_of(&Quote::new(b"Less is more.\r\n").unwrap(), room),
            b"Less is more.\r\n"
        );
    }
    assert_eq!(speech_of(&Greeting::new(b""), 0), b"");
    let long = noise(1_000_000);
    assert!(speech_of(&Greeting::new(&long), 999_000) == long);
}

#[test]
fn daytime_and_time_close_behind_what_they_say() {
    let line = String::from_utf8(speech_of(&Daytime, 5)).unwrap();
    assert!(line.ends_with("-UTC\r\n") && line.is_ascii(), "{line:?}");
    let number = u32::from_be_bytes(speech_of(&Time, 0).try_into().unwrap());
    assert!(number > 3_900_000_000, "later than 2023");
}

#[test]
fn a_quote_is_shorter_than_512_characters() {
    assert!(Quote::new(&[b'x'; 511]).is_ok());
    let error = Quote::new(&[b'x'; 512]).err().unwrap().to_string();
    assert!(error.contains("512 bytes"), "{error}");
}

#[test]
fn each_datagram_is_answered_with_the_same_as_a_connection() {
    let mut replies = Replies::default();
    let services: [Arc<dyn Service>; 4] = [
        Arc::new(Quote::new(b"quoted").unwrap()),
        Arc::new(Greeting::new(b"greeted")),
        Arc::new(Daytime),
        Arc::new(Time),
    ];
    for service in services {
        service.datagrams().unwrap().on_datagram(b"", &peer(), &mut replies).unwrap();
    }
    assert_eq!(replies.sent[..2], [&b"quoted"[..], b"greeted"]);
    assert!(replies.sent[2].ends_with(b"-UTC\r\n"));
    assert_eq!((replies.sent.len(), replies.sent[3].len()), (4, 4));
}

#[test]
fn a_greeting_that_no_datagram_can_hold_has_no_such_form() {
    let form = |length| Arc::new(Greeting::new(&vec![0; length])).datagrams();
    assert!(form(65_507).is_some());
    assert!(form(65_508).is_none());
}

#[test]
fn discard_uses_all_and_says_nothing() {
    let mut io = FakeIo::default();
    let mut session = Discard.open(&peer());
    session.open(&mut io).unwrap();
    assert_eq!(session.bytes(&mut io, Leg::Client, &noise(1000)).unwrap(), 1000);
    session.eof(&mut io, Leg::Client, b"").unwrap();
    assert!(io.near.is_empty() && io.closed);
    let mut replies = Replies::default();
    Arc::new(Discard).datagrams().unwrap().on_datagram(b"x", &peer(), &mut replies).unwrap();
    assert!(replies.sent.is_empty());
}

/// A session of LineEcho fed with `input` in pieces of `size`, as the engine would, with `room` for
/// the answer each time: the answer, and whether it closed before the peer did.
fn lines(service: &LineEcho, input: &[u8], size: usize, room: usize) -> (Vec<u8>, bool) {
    let mut io = FakeIo::default();
    let mut session = service.open(&peer());
    session.open(&mut io).unwrap();
    let mut rest = Vec::new();
    for piece in input.chunks(size) {
        rest.extend_from_slice(piece);
        loop {
            io.room = Some(room);
            let used = session.bytes(&mut io, Leg::Client, &rest).unwrap();
            rest.drain(..used);
            if io.closed {
                return (io.near, true);
            }
            if io.room != Some(0) {
                break;
            }
            session.low_water(&mut io, Leg::Client).unwrap();
        }
    }
    io.room = Some(room);
    session.eof(&mut io, Leg::Client, &rest).unwrap();
    while !io.closed {
        io.room = Some(room);
        session.low_water(&mut io, Leg::Client).unwrap();
    }
    (io.near, false)
}

#[test]
fn lines_come_back_whole_whatever_they_are_cut_into() {
    let echo = LineEcho::new(Some(b"exit"), true, 65_536).unwrap();
    let bare = LineEcho::new(Some(b"exit"), false, 65_536).unwrap();
    let input = b"a\n\nbc\r\n\r\nfooexit\nexit \nEXIT\n exit\nno end";
    for size in [1, 2, 3, 5, 100] {
        for room in [1, 2, 3, 1000] {
            let (said, closed) = lines(&echo, input, size, room);
            assert_eq!((&said[..], closed), (&input[..], false), "{size} {room}");
            let (said, closed) = lines(&bare, input, size, room);
            assert_eq!((&said[..], closed), (&b"abcfooexitexit EXIT exitno end"[..], false));
        }
    }
}

#[test]
fn the_quit_line_is_not_echoed_and_closes() {
    let echo = LineEcho::new(Some(b"exit"), true, 65_536).unwrap();
    for input in [&b"one\nexit\nnever\n"[..], b"one\nexit\r\nnever\n"] {
        for size in [1, 4, 100] {
            assert_eq!(lines(&echo, input, size, 2), (b"one\n".to_vec(), true));
        }
    }
    // Without an ending it is one when nothing can follow.
    assert_eq!(lines(&echo, b"one\nexit", 3, 2), (b"one\n".to_vec(), false));
    let never = LineEcho::new(None, true, 65_536).unwrap();
    assert_eq!(lines(&never, b"exit\n\n", 3, 2), (b"exit\n\n".to_vec(), false));
    let empty = LineEcho::new(Some(b""), true, 65_536).unwrap();
    assert_eq!(lines(&empty, b"a\n\nb\n", 9, 2), (b"a\n".to_vec(), true));
}

#[test]
fn the_smaller_limit_of_a_line_holds() {
    let echo = |limit| LineEcho::new(None, true, limit).unwrap();
    let of = |limit, line| echo(limit).open(&Peer { line, ..peer() }).input_limit();
    assert_eq!((of(100, 65_536), of(65_536, 100), of(70_000, 80_000)), (100, 100, 70_000));
}

#[test]
fn a_slow_line_is_searched_once() {
    // Byte by byte, 256 KiB: searched from its start each time, it would be 34 thousand million.
    let echo = LineEcho::new(None, true, 1 << 20).unwrap();
    let mut input = noise(1 << 18);
    input.retain(|&byte| byte != b'\n');
    let mut io = FakeIo::default();
    let mut session = echo.open(&peer());
    for end in 1..=input.len() {
        assert_eq!(session.bytes(&mut io, Leg::Client, &input[..end]).unwrap(), 0);
    }
    input.push(b'\n');
    assert_eq!(session.bytes(&mut io, Leg::Client, &input).unwrap(), input.len());
    assert!(io.near == input);
}

#[test]
fn a_quit_line_that_can_never_come_is_refused() {
    for (quit, limit) in [(&b"a\nb"[..], 100), (b"a\r", 100), (b"exit", 4)] {
        let error = LineEcho::new(Some(quit), true, limit).err().unwrap().to_string();
        assert!(error.starts_with("quit=b'") && error.contains("never"), "{error}");
    }
    assert!(LineEcho::new(Some(b"exit"), true, 5).is_ok());
}

#[test]
fn each_connection_gets_the_service_of_its_number() {
    let say = |words: &[u8]| Arc::new(Greeting::new(words)) as Arc<dyn Service>;
    let said = |service: &ByConnection, id| {
        let mut io = FakeIo::default();
        service.open(&Peer { id, ..peer() }).open(&mut io).unwrap();
        io.near
    };
    let first = || vec![say(b"one"), say(b"two")];
    let service = ByConnection::new(first(), Some(say(b"rest"))).unwrap();
    let all: Vec<_> = (1..=4).map(|id| said(&service, id)).collect();
    assert_eq!(all, [&b"one"[..], b"two", b"rest", b"rest"]);
    let service = ByConnection::new(first(), None).unwrap();
    let all: Vec<_> = [1, 2, 3, u64::MAX].map(|id| said(&service, id)).into();
    assert_eq!(all, [&b"one"[..], b"two", b"two", b"two"]);
    assert!(ByConnection::new(Vec::new(), None).is_none());
    assert_eq!(service.name(), "ByConnection(Greeting(b'one'), Greeting(b'two'))");
}

#[test]
fn names_are_what_one_would_write() {
    let echo = |quit, newline, limit| LineEcho::new(quit, newline, limit).unwrap().name();
    assert_eq!(echo(Some(b"exit"), true, 65_536), "LineEcho()");
    assert_eq!(
        echo(Some(b"it's \"\\\x00\xff\t"), false, 100),
        r#"LineEcho(quit=b'it\'s "\\\x00\xff\t', newline=False, limit=100)"#
    );
    assert_eq!(echo(Some(b"it's"), true, 65_536), r#"LineEcho(quit=b"it's")"#);
    assert_eq!(echo(None, true, 65_536), "LineEcho(quit=None)");
    let long = Greeting::new(&[b'x'; 400_000]).name();
    assert_eq!(long, format!("Greeting(b'{}'… of 400000 bytes)", "x".repeat(60)));
}
