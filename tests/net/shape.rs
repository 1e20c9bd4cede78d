//! The shapes of a service, with bytes alone: no socket is opened here.

use std::sync::Arc;
use std::time::Duration;

use _rsock::net::address::Endpoint;
use _rsock::net::service::{Drain, Leg, Service};
use _rsock::net::services::Echo;

use crate::fake_io::{FakeIo, Replies, peer};
use crate::test_services::{Board, Clock, Relay, Shout, Speaker, speech};

#[test]
fn echo_is_a_pipe_from_a_leg_to_itself() {
    let mut io = FakeIo::default();
    Echo.open(&peer()).open(&mut io).unwrap();
    assert_eq!(io.pipes, [(Leg::Client, Leg::Client)]);
}

#[test]
fn echo_answers_each_datagram_with_itself() {
    let echo = Arc::new(Echo).datagrams().unwrap();
    let mut replies = Replies::default();
    for data in [&b"one"[..], b"", b"three"] {
        echo.on_datagram(data, &peer(), &mut replies).unwrap();
    }
    assert_eq!(replies.sent, [&b"one"[..], b"", b"three"]);
}

#[test]
fn a_service_writes_without_input_as_far_as_there_is_room() {
    let mut io = FakeIo { room: Some(15_000), ..FakeIo::default() };
    let mut session = Speaker { length: 40_000 }.open(&peer());
    session.open(&mut io).unwrap();
    assert_eq!(io.near, speech(0..15_000));
    assert!(!io.closed, "there is more to say");
    io.room = Some(1);
    session.low_water(&mut io, Leg::Client).unwrap();
    io.room = None;
    session.low_water(&mut io, Leg::Client).unwrap();
    assert_eq!(io.near, speech(0..40_000));
    assert!(io.closed);
    assert_eq!(session.drain(&mut io).unwrap(), Drain::Hold);
}

#[test]
fn a_service_waits_on_a_timer() {
    let mut io = FakeIo::default();
    let after = Duration::from_millis(5);
    let mut session = Clock { after }.open(&peer());
    session.open(&mut io).unwrap();
    assert_eq!(io.timers.iter().collect::<Vec<_>>(), [(&0, &after)]);
    assert!(io.near.is_empty());
    session.timer(&mut io, 0).unwrap();
    session.timer(&mut io, 0).unwrap();
    assert_eq!(io.near, b"ticktick");
    assert!(io.closed);
}

#[test]
fn a_service_has_two_legs_through_connect() {
    let mut io = FakeIo::default();
    let target = "127.0.0.1:9".parse().unwrap();
    let mut session = Relay { target }.open(&peer());
    session.open(&mut io).unwrap();
    assert_eq!(io.connects, [Endpoint::tcp(target)]);
    assert_eq!(io.paused, [Leg::Client], "nothing is read before there is somewhere to send it");
    session.connected(&mut io, Ok(())).unwrap();
    assert_eq!(io.pipes, [(Leg::Client, Leg::Upstream), (Leg::Upstream, Leg::Client)]);
    assert!(io.paused.is_empty());
    assert!(Relay { target }.open(&peer()).connected(&mut io, Err(111)).is_err());
}

#[test]
fn a_service_is_woken_by_another_threads_message() {
    let board = Board::default();
    let mut io = FakeIo::default();
    let mut session = board.open(&peer());
    session.open(&mut io).unwrap();
    std::thread::scope(|scope| scope.spawn(|| board.say(b"hello")).join()).unwrap();
    assert_eq!(io.notifies.count(), 1);
    session.wake(&mut io).unwrap();
    assert_eq!(io.near, b"hello");
}

#[test]
fn a_waker_rings_once_until_it_is_heard() {
    let mut io = FakeIo::default();
    let waker = _rsock::net::service::Io::waker(&mut io);
    waker.wake();
    waker.clone().wake();
    assert_eq!(io.notifies.count(), 1);
    waker.heard();
    waker.wake();
    assert_eq!(io.notifies.count(), 2);
}

#[test]
fn a_session_uses_whole_lines_and_leaves_the_rest() {
    let mut io = FakeIo::default();
    let mut session = Shout.open(&peer());
    assert_eq!(session.bytes(&mut io, Leg::Client, b"one\ntwo\nthr").unwrap(), 8);
    assert_eq!(io.near, b"ONE\nTWO\n");
    session.eof(&mut io, Leg::Client, b"thr").unwrap();
    assert_eq!(io.near, b"ONE\nTWO\nTHR");
    assert!(io.closed);
}
