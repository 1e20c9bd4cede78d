//! The limits that hold while a call of the caller's waits: idle, first_byte. On the connection
//! itself and behind stages, where a worker holds them, they are the same.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use _rsock::net::base::Plain;
use _rsock::net::control::{Config, Limits};
use _rsock::net::error::{Error, Result};
use _rsock::net::ledger::ClosedBy;
use _rsock::net::server::Server;
use _rsock::net::service::Shape;
use _rsock::net::stream::Stream;

use crate::support::{PATIENCE, closed, config_of, dial, start, stop};

const LIMIT: Duration = Duration::from_millis(400);

fn serve(limits: Limits) -> Server {
    start(Config { limits: Limits { write: None, ..limits }, ..config_of(Shape::Accept) })
}

fn idle() -> Server {
    serve(Limits { idle: Some(LIMIT), ..Limits::default() })
}

fn next(server: &Server) -> std::sync::Arc<Stream> {
    server.accept(Some(Instant::now() + PATIENCE), &mut Plain).unwrap()
}

/// Works without a call of the stream, for longer than the limit.
fn work() {
    thread::sleep(2 * LIMIT);
}

fn read(stream: &Stream) -> Result<usize> {
    stream.recv("recv", &mut [0; 1], 0, &mut Plain)
}

fn is_ended_by(limit: &str, result: Result<usize>) -> bool {
    matches!(result, Err(Error::Os { errno: libc::ETIMEDOUT, hint, .. }) if hint.contains(limit))
}

fn reason(server: &Server) -> Option<ClosedBy> {
    closed(&server.ledger(), 1)[0].closed_by()
}

#[test]
fn a_caller_that_works_is_not_idle_and_one_that_waits_is() {
    let server = idle();
    let mut peer = dial(server.address().unwrap());
    peer.write_all(b"x").unwrap();
    let stream = next(&server);
    assert_eq!(read(&stream).unwrap(), 1);
    work();
    stream.sendall(b"answer", 0, &mut 0, &mut Plain).unwrap();
    let since = Instant::now();
    peer.read_exact(&mut [0; 6]).unwrap();
    assert!(is_ended_by("Limits.idle", read(&stream)));
    assert!(since.elapsed() >= LIMIT, "{:?}", since.elapsed());
    stream.close();
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "it was owed nothing");
    assert_eq!(reason(&server), Some(ClosedBy::Limit("idle")));
    stop(&server);
}

#[test]
fn a_wait_that_begins_after_the_limit_is_ended() {
    let server = idle();
    let mut peer = dial(server.address().unwrap());
    let stream = next(&server);
    work();
    assert!(is_ended_by("Limits.idle", read(&stream)));
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    stream.close();
    assert_eq!(reason(&server), Some(ClosedBy::Limit("idle")));
    stop(&server);
}

#[test]
fn what_a_call_takes_late_counts_from_then_on() {
    let server = idle();
    let mut peer = dial(server.address().unwrap());
    peer.write_all(b"xy").unwrap();
    let stream = next(&server);
    assert_eq!(read(&stream).unwrap(), 1);
    work();
    let since = Instant::now();
    assert_eq!(read(&stream).unwrap(), 1, "it was there");
    assert!(is_ended_by("Limits.idle", read(&stream)));
    assert!(since.elapsed() >= LIMIT, "{:?}", since.elapsed());
    stream.close();
    stop(&server);
}

#[test]
fn waits_that_are_short_reach_the_limit_together() {
    let server = idle();
    let _peer = dial(server.address().unwrap());
    let stream = next(&server);
    stream.set_timeout(Some(Duration::from_millis(10))).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match read(&stream) {
            Err(Error::TimedOut { .. }) => assert!(Instant::now() < deadline, "never"),
            other => break assert!(is_ended_by("Limits.idle", other)),
        }
    }
    stream.close();
    assert_eq!(reason(&server), Some(ClosedBy::Limit("idle")));
    stop(&server);
}

#[test]
fn a_send_to_a_peer_that_takes_nothing_is_ended() {
    let server = idle();
    let _peer = dial(server.address().unwrap());
    let stream = next(&server);
    let data = vec![0; 64 << 20];
    let sent = stream.sendall(&data, 0, &mut 0, &mut Plain);
    assert!(is_ended_by("Limits.idle", sent.map(|()| 0)));
    stream.close();
    assert_eq!(reason(&server), Some(ClosedBy::Limit("idle")));
    stop(&server);
}

#[test]
fn a_peer_that_has_finished_may_wait_for_its_answer() {
    let server = idle();
    let mut peer = dial(server.address().unwrap());
    peer.write_all(b"x").unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    let stream = next(&server);
    assert_eq!((read(&stream).unwrap(), read(&stream).unwrap()), (1, 0));
    work();
    stream.sendall(b"answer", 0, &mut 0, &mut Plain).unwrap();
    stream.close();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    assert_eq!(reason(&server), Some(ClosedBy::Peer));
    stop(&server);
}

#[test]
fn a_first_byte_is_waited_for_only_by_a_call_that_reads() {
    let server = serve(Limits { first_byte: Some(LIMIT), ..Limits::default() });
    let mut peer = dial(server.address().unwrap());
    let stream = next(&server);
    work();
    stream.sendall(b"hello", 0, &mut 0, &mut Plain).unwrap();
    peer.read_exact(&mut [0; 5]).unwrap();
    assert!(is_ended_by("Limits.first_byte", read(&stream)));
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    stream.close();
    assert_eq!(reason(&server), Some(ClosedBy::Limit("first_byte")));
    stop(&server);
}

crate::support::through_stages! {
    a_caller_that_works_is_not_idle_and_one_that_waits_is,
    a_wait_that_begins_after_the_limit_is_ended,
    what_a_call_takes_late_counts_from_then_on,
    waits_that_are_short_reach_the_limit_together,
    a_send_to_a_peer_that_takes_nothing_is_ended,
    a_peer_that_has_finished_may_wait_for_its_answer,
    a_first_byte_is_waited_for_only_by_a_call_that_reads,
}
