//! Stages: a chain with bytes alone and a clock of the test's own, then stages of all the kinds
//! there will be between real sockets and real sessions. The other modules run their tests through
//! stages as well (`through_stages`).

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use _rsock::net::base::{Mutex, Plain};
use _rsock::net::control::{Cause, Config, Limits};
use _rsock::net::ledger::{ClosedBy, ProxyHeader};
use _rsock::net::server::Server;
use _rsock::net::service::{Io, Leg, Peer, Service, Session, SessionResult, Waker};
use _rsock::net::services::Echo;
use _rsock::net::stage::{
    Bytewise, Chain, Delayed, Direction, Flow, Inbound, Outbound, Stage, StageEnd, StageError,
    StageFactory, StageResult, each,
};
use socket2::SockRef;

use crate::support::{PATIENCE, closed, config, dial, ip, noise, open, start, stop, until};
use crate::test_services::{Relay, Shout};

const MS: Duration = Duration::from_millis(1);

fn chain(stages: Vec<Box<dyn Stage>>) -> Chain {
    Chain::new(stages)
}

/// What leaves a chain, in words: chunks as they are, ends by their names.
fn leaving(chain: &mut Chain, direction: Direction) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let (words, count) = match direction {
            Direction::Inbound => match chain.next_inbound() {
                None => return all,
                Some(Inbound::Bytes(chunk)) => (String::from_utf8_lossy(chunk).into(), chunk.len()),
                Some(end) => (format!("{end:?}"), 0),
            },
            Direction::Outbound => match chain.next_outbound() {
                None => return all,
                Some(Outbound::Bytes(chunk)) => {
                    (String::from_utf8_lossy(chunk).into(), chunk.len())
                }
                Some(end) => (format!("{end:?}"), 0),
            },
        };
        all.push(words);
        match direction {
            Direction::Inbound => chain.consume_inbound(count),
            Direction::Outbound => chain.consume_outbound(count),
        }
    }
}

#[test]
fn bytewise_makes_a_chunk_of_each_byte() {
    let now = Instant::now();
    let mut chain = chain(vec![Box::new(Bytewise)]);
    chain.open(now, None).unwrap();
    chain.inbound(now, Inbound::Bytes(b"abc")).unwrap();
    chain.inbound(now, Inbound::End).unwrap();
    chain.outbound(now, Outbound::Bytes(b"de")).unwrap();
    chain.outbound(now, Outbound::Reset).unwrap();
    assert_eq!(chain.held(Direction::Inbound), 3, "what has not been taken counts");
    assert_eq!(leaving(&mut chain, Direction::Inbound), ["a", "b", "c", "End"]);
    assert_eq!(leaving(&mut chain, Direction::Outbound), ["d", "e", "Reset"]);
    assert!(!chain.is_owed() && chain.is_ready() && chain.next_call().is_none());
}

#[test]
fn delayed_lets_everything_go_in_its_time_and_in_order() {
    let now = Instant::now();
    let mut chain = chain(vec![Box::new(Delayed::new(5 * MS))]);
    chain.inbound(now, Inbound::Bytes(b"one")).unwrap();
    chain.inbound(now + 2 * MS, Inbound::Bytes(b"two")).unwrap();
    chain.inbound(now + 2 * MS, Inbound::End).unwrap();
    chain.outbound(now + 3 * MS, Outbound::End).unwrap();
    assert_eq!((chain.held(Direction::Inbound), chain.held(Direction::Outbound)), (6, 0));
    assert_eq!(chain.next_call(), Some(now + 5 * MS));
    chain.turn(now + 4 * MS).unwrap();
    assert!(leaving(&mut chain, Direction::Inbound).is_empty());
    chain.turn(now + 6 * MS).unwrap();
    assert_eq!(leaving(&mut chain, Direction::Inbound), ["one"]);
    assert_eq!(chain.next_call(), Some(now + 7 * MS));
    chain.turn(now + 7 * MS).unwrap();
    assert_eq!(leaving(&mut chain, Direction::Inbound), ["two", "End"]);
    assert_eq!((chain.held(Direction::Inbound), chain.next_call()), (0, Some(now + 8 * MS)));
    assert!(chain.is_owed(), "an end that is held is owed");
    chain.turn(now + 8 * MS).unwrap();
    assert_eq!(leaving(&mut chain, Direction::Outbound), ["End"]);
    assert!(!chain.is_owed());
    chain.inbound(now, Inbound::Error(libc::ECONNRESET)).unwrap();
    chain.turn(now + 5 * MS).unwrap();
    assert_eq!(leaving(&mut chain, Direction::Inbound), ["Error(104)"]);
}

#[test]
fn stages_are_passed_from_the_socket_up_and_back() {
    let now = Instant::now();
    // Next to the socket, so that what comes in is cut after the delay and what goes out before it.
    let mut chain = chain(vec![Box::new(Delayed::new(MS)), Box::new(Bytewise)]);
    chain.inbound(now, Inbound::Bytes(b"in")).unwrap();
    chain.outbound(now, Outbound::Bytes(b"out")).unwrap();
    assert_eq!((chain.held(Direction::Inbound), chain.held(Direction::Outbound)), (2, 3));
    chain.turn(now + MS).unwrap();
    assert_eq!(leaving(&mut chain, Direction::Inbound), ["i", "n"]);
    assert_eq!(leaving(&mut chain, Direction::Outbound), ["o", "u", "t"]);
}

/// Ends the connection when `after` bytes have come in, or when `at` has come.
struct EndAfter {
    bytes: usize,
    time: Option<Duration>,
    reset: bool,
    at: Option<Instant>,
}

impl EndAfter {
    fn bytes(bytes: usize, reset: bool) -> Self {
        Self { bytes, time: None, reset, at: None }
    }

    fn time(time: Duration, reset: bool) -> Self {
        Self { bytes: usize::MAX, time: Some(time), reset, at: None }
    }

    fn end(&mut self, flow: &mut Flow<'_>) {
        self.at = None;
        if self.reset {
            flow.reset(ClosedBy::Service, Some("a fault".to_owned()));
        } else {
            flow.close(ClosedBy::Service, Some("a fault".to_owned()));
        }
    }
}

impl Stage for EndAfter {
    fn open(&mut self, flow: &mut Flow<'_>) -> StageResult {
        self.at = self.time.map(|time| flow.now() + time);
        Ok(())
    }

    fn inbound(&mut self, flow: &mut Flow<'_>, event: Inbound<'_>) -> StageResult {
        let Inbound::Bytes(bytes) = event else {
            flow.pass_in(event);
            return Ok(());
        };
        let passed = bytes.len().min(self.bytes);
        self.bytes -= passed;
        if passed > 0 {
            flow.pass_in(Inbound::Bytes(&bytes[..passed]));
        }
        if passed < bytes.len() {
            self.end(flow);
        }
        Ok(())
    }

    fn turn(&mut self, flow: &mut Flow<'_>) -> StageResult {
        if self.at.is_some_and(|at| at <= flow.now()) {
            self.end(flow);
        }
        Ok(())
    }

    fn next_call(&self) -> Option<Instant> {
        self.at
    }
}

#[test]
fn a_stage_that_ends_a_connection_is_called_no_more_and_those_below_go_on() {
    let now = Instant::now();
    let below = Box::new(Delayed::new(MS));
    let mut chain = chain(vec![below, Box::new(EndAfter::bytes(2, false)), Box::new(Bytewise)]);
    chain.open(now, None).unwrap();
    chain.inbound(now, Inbound::Bytes(b"abc")).unwrap();
    chain.turn(now + MS).unwrap();
    let end = StageEnd {
        reset: false,
        delivered: false,
        cut: false,
        by: ClosedBy::Service,
        error: Some("a fault".to_owned()),
    };
    assert_eq!(chain.take_end(), Some(end));
    assert_eq!(chain.take_end(), None);
    assert_eq!(leaving(&mut chain, Direction::Inbound), ["a", "b"], "what came before the end");
    chain.outbound(now + MS, Outbound::Bytes(b"never")).unwrap();
    chain.inbound(now + MS, Inbound::Bytes(b"never")).unwrap();
    chain.turn(now + 9 * MS).unwrap();
    assert!(leaving(&mut chain, Direction::Inbound).is_empty());
    assert_eq!(leaving(&mut chain, Direction::Outbound), ["End"]);
}

/// Waits for a line before the session opens, and answers it by itself: as a handshake, or a
/// header.
struct Handshake {
    line: Vec<u8>,
    done: bool,
}

impl Handshake {
    fn new() -> Self {
        Self { line: Vec::new(), done: false }
    }
}

impl Stage for Handshake {
    fn inbound(&mut self, flow: &mut Flow<'_>, event: Inbound<'_>) -> StageResult {
        let Inbound::Bytes(bytes) = event else {
            if event == Inbound::End && !self.done {
                return Err(StageError { 0: "cut short".to_owned() });
            }
            flow.pass_in(event);
            return Ok(());
        };
        if self.done {
            flow.pass_in(event);
            return Ok(());
        }
        self.line.extend_from_slice(bytes);
        let Some(end) = self.line.iter().position(|&byte| byte == b'\n') else { return Ok(()) };
        let rest = self.line.split_off(end + 1);
        if self.line == b"alert\n" {
            flow.pass_out(Outbound::Bytes(b"alerted"));
            flow.close(ClosedBy::Error, Some("a bad handshake".to_owned()));
            return Ok(());
        }
        self.done = true;
        let source = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 7), 7));
        flow.set_proxy(ProxyHeader {
            version: 1,
            source: Some(source.into()),
            destination: None,
            tlvs: Vec::new(),
            length: 0,
        });
        flow.pass_out(Outbound::Bytes(b"welcome\n"));
        if !rest.is_empty() {
            flow.pass_in(Inbound::Bytes(&rest));
        }
        Ok(())
    }

    fn held(&self, direction: Direction) -> usize {
        if direction == Direction::Inbound && !self.done { self.line.len() } else { 0 }
    }

    fn capacity(&self, direction: Direction) -> usize {
        if direction == Direction::Inbound { 10_000 } else { 0 }
    }

    fn is_ready(&self) -> bool {
        self.done
    }
}

#[test]
fn a_handshake_is_answered_before_the_session_opens() {
    let now = Instant::now();
    let mut chain = chain(vec![Box::new(Handshake::new())]);
    chain.inbound(now, Inbound::Bytes(b"hel")).unwrap();
    assert!(!chain.is_ready() && chain.is_owed());
    chain.inbound(now, Inbound::Bytes(b"lo\nfirst")).unwrap();
    assert!(chain.is_ready());
    assert_eq!(leaving(&mut chain, Direction::Outbound), ["welcome\n"]);
    assert_eq!(leaving(&mut chain, Direction::Inbound), ["first"]);
    assert_eq!(chain.take_proxy().unwrap().source.unwrap().to_string(), "192.0.2.7:7");
}

/// A server of `service` with stages from `factory`.
fn staged(service: impl Service + 'static, factory: Arc<dyn StageFactory>) -> Server {
    start(staged_config(service, factory))
}

fn staged_config(service: impl Service + 'static, factory: Arc<dyn StageFactory>) -> Config {
    Config { stages: Some(factory), ..config(service) }
}

fn both() -> [Arc<dyn StageFactory>; 2] {
    [each(|| Bytewise), each(|| Delayed::new(5 * MS))]
}

fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_half_close_goes_through_behind_the_bytes() {
    for factory in both() {
        let server = staged(Echo, factory);
        let mut client = dial(server.address().unwrap());
        client.write_all(b"some bytes").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client), b"some bytes");
        let record = &closed(&server.ledger(), 1)[0];
        assert_eq!(record.closed_by(), Some(ClosedBy::Peer));
        assert_eq!((record.received().bytes, record.sent().bytes), (10, 10));
        stop(&server);
    }
}

#[test]
fn ends_are_delayed_like_bytes() {
    let server = staged(Echo, each(|| Delayed::new(50 * MS)));
    let mut client = dial(server.address().unwrap());
    let started = Instant::now();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    assert!(started.elapsed() >= 100 * MS, "there and back");
    let started = Instant::now();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert!(started.elapsed() >= 100 * MS);
    stop(&server);
}

#[test]
fn a_reset_by_the_peer_goes_through_behind_the_bytes() {
    for factory in both() {
        let server = staged(Echo, factory);
        let mut client = dial(server.address().unwrap());
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
        reset(client);
        let record = &closed(&server.ledger(), 1)[0];
        assert_eq!((record.closed_by(), record.error()), (Some(ClosedBy::Reset), None));
        assert_eq!(stop(&server).errors, 0);
    }
}

#[test]
fn a_reset_by_the_session_goes_through() {
    for factory in both() {
        let server = staged(Shout, factory);
        let mut client = dial(server.address().unwrap());
        client.write_all(b"cut\n").unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Service));
        stop(&server);
    }
}

#[test]
fn a_drain_waits_for_what_stages_hold() {
    let server = staged(Echo, each(|| Delayed::new(100 * MS)));
    let mut client = dial(server.address().unwrap());
    client.write_all(b"held").unwrap();
    until("it has come", || server.ledger().totals().received.bytes == 4);
    let report = stop(&server);
    assert_eq!((report.drained, report.forced), (1, 0));
    assert!(report.seconds >= 150 * MS, "there, back, and the end: {report:?}");
    assert_eq!(read_all(&mut client), b"held");
}

#[test]
fn a_drain_does_not_wait_beyond_its_deadline() {
    let server = staged(Echo, each(|| Delayed::new(Duration::from_secs(60))));
    let mut client = dial(server.address().unwrap());
    client.write_all(b"held").unwrap();
    until("it has come", || server.ledger().totals().received.bytes == 4);
    let report = server.stop(Some(100 * MS), Cause::Stop, &mut Plain).unwrap();
    assert_eq!((report.drained, report.forced), (0, 1));
    assert!(report.seconds < Duration::from_secs(1), "{report:?}");
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_quiet_connection_is_drained_at_once() {
    let server = staged(Echo, each(|| Delayed::new(5 * MS)));
    let mut client = dial(server.address().unwrap());
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    let report = stop(&server);
    assert!(report.seconds < 200 * MS, "{report:?}");
    assert_eq!((report.drained, report.forced), (1, 0));
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Stop));
}

#[test]
fn the_idle_limit_holds() {
    for factory in both() {
        let mut config = staged_config(Echo, factory);
        config.limits = Limits { idle: Some(60 * MS), ..Limits::default() };
        let server = start(config);
        let mut client = dial(server.address().unwrap());
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "it is owed nothing");
        assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Limit("idle")));
        stop(&server);
    }
}

#[test]
fn the_write_limit_holds_for_a_peer_that_does_not_read() {
    for factory in both() {
        let mut config = staged_config(Echo, factory);
        config.limits = Limits { write: Some(200 * MS), ..Limits::default() };
        config.options.send_buffer = Some(16 * 1024);
        config.options.receive_buffer = Some(16 * 1024);
        let server = start(config);
        let client = dial(server.address().unwrap());
        SockRef::from(&client).set_recv_buffer_size(16 * 1024).unwrap();
        let mut sending = client.try_clone().unwrap();
        sending.set_write_timeout(Some(PATIENCE)).unwrap();
        while sending.write_all(&[1; 4096]).is_ok() {}
        assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Limit("write")));
        stop(&server);
    }
}

#[test]
fn a_slow_reader_bounds_what_is_held() {
    const HIGH: usize = 16 * 1024;
    for factory in both() {
        let mut config = staged_config(Echo, factory);
        config.limits = Limits { write_buffer: HIGH, ..Limits::default() };
        config.options.send_buffer = Some(16 * 1024);
        config.options.receive_buffer = Some(16 * 1024);
        let server = start(config);
        let client = dial(server.address().unwrap());
        SockRef::from(&client).set_recv_buffer_size(16 * 1024).unwrap();
        let data = noise(300_000);
        let sent = data.clone();
        let mut sending = client.try_clone().unwrap();
        let sender = thread::spawn(move || {
            sending.write_all(&sent).unwrap();
            sending.shutdown(Shutdown::Write).unwrap();
        });
        open(&server.ledger(), 1);
        let record = server.ledger().open_records().remove(0);
        let mut before = u64::MAX;
        until("the server reads no more", || {
            thread::sleep(30 * MS);
            let now = record.received().bytes;
            now > 0 && std::mem::replace(&mut before, now) == now
        });
        let held = record.received().bytes - record.sent().bytes;
        assert!(held <= HIGH as u64, "{held}");
        assert!(record.received().bytes < 300_000, "it was stopped before all had come");
        let mut reading = client;
        assert!(read_all(&mut reading) == data);
        sender.join().unwrap();
        stop(&server);
    }
}

#[test]
fn a_mebibyte_in_random_chunks_comes_back_whole() {
    let mut state = 7_u32;
    let mut random = move |bound: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 8) as usize % bound
    };
    for (factory, length) in both().into_iter().zip([1 << 17, 1 << 20]) {
        let server = staged(Echo, factory);
        let mut client = dial(server.address().unwrap());
        let data = noise(length);
        let mut chunks = Vec::new();
        let mut rest = &data[..];
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at(random(20_000).min(rest.len()));
            chunks.push(chunk.to_vec());
            rest = behind;
        }
        let mut sending = client.try_clone().unwrap();
        let sender = thread::spawn(move || {
            for chunk in chunks {
                sending.write_all(&chunk).unwrap();
            }
            sending.shutdown(Shutdown::Write).unwrap();
        });
        assert!(read_all(&mut client) == data);
        sender.join().unwrap();
        let record = &closed(&server.ledger(), 1)[0];
        assert_eq!(record.received().bytes, length as u64);
        assert_eq!(record.sent().bytes, length as u64);
        stop(&server);
    }
}

#[test]
fn a_stop_while_the_peer_sends_is_bounded() {
    for factory in both() {
        let server = staged(Echo, factory);
        let client = dial(server.address().unwrap());
        let (mut writing, mut reading) = (client.try_clone().unwrap(), client);
        let writer = thread::spawn(move || while writing.write_all(&[5; 10_000]).is_ok() {});
        let reader = thread::spawn(move || {
            let mut buffer = [0; 10_000];
            while reading.read(&mut buffer).is_ok_and(|count| count > 0) {}
        });
        until("bytes come", || server.ledger().totals().sent.bytes > 10_000);
        let report = server.stop(Some(100 * MS), Cause::Stop, &mut Plain).unwrap();
        assert!(report.seconds < Duration::from_secs(2), "{report:?}");
        assert_eq!(report.drained + report.forced, 1);
        writer.join().unwrap();
        reader.join().unwrap();
        let totals = server.ledger().totals();
        assert_eq!((totals.open, totals.closed), (0, 1));
    }
}

/// Fails at the first byte that it is to fail at.
struct Failing;

impl Stage for Failing {
    fn inbound(&mut self, flow: &mut Flow<'_>, event: Inbound<'_>) -> StageResult {
        match event {
            Inbound::Bytes(b"panic") => panic!("as asked"),
            Inbound::Bytes(b"error") => Err("as asked".parse::<u8>().unwrap_err().into()),
            event => {
                flow.pass_in(event);
                Ok(())
            }
        }
    }
}

#[test]
fn a_panic_or_an_error_of_a_stage_ends_one_connection() {
    let server = staged(Echo, each(|| Failing));
    let mut bystander = dial(server.address().unwrap());
    bystander.write_all(b"x").unwrap();
    bystander.read_exact(&mut [0; 1]).unwrap();
    for words in ["panic", "error"] {
        let mut client = dial(server.address().unwrap());
        client.write_all(words.as_bytes()).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    open(&server.ledger(), 1);
    let records = server.ledger().closed_records();
    assert!(records.iter().all(|record| record.closed_by() == Some(ClosedBy::Error)));
    let texts: Vec<_> = records.iter().map(|record| record.error().unwrap().to_owned()).collect();
    assert_eq!(texts, ["panic: as asked", "invalid digit found in string"]);
    bystander.write_all(b"y").unwrap();
    bystander.read_exact(&mut [0; 1]).unwrap();
    drop(bystander);
    assert_eq!(stop(&server).errors, 2);
}

#[test]
fn a_factory_that_panics_costs_one_connection() {
    let factory = |peer: &Peer| -> Option<Box<Chain>> {
        assert!(peer.id != 1, "not the first");
        None
    };
    let server = staged(Echo, Arc::new(factory));
    assert_eq!(crate::support::rejection(server.address().unwrap()), ErrorKind::ConnectionReset);
    let mut client = dial(server.address().unwrap());
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    assert_eq!(server.ledger().closed_records()[0].error(), Some("panic: not the first"));
    drop(client);
    assert_eq!(stop(&server).errors, 1);
}

/// Says who it was opened for, then echoes.
struct Introduction;

impl Service for Introduction {
    fn name(&self) -> String {
        "Introduction()".to_owned()
    }

    fn open(&self, peer: &Peer) -> Box<dyn Session> {
        Box::new(Introduced(format!("you are {}\n", peer.remote)))
    }
}

struct Introduced(String);

impl Session for Introduced {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        io.write(Leg::Client, self.0.as_bytes());
        io.pipe(Leg::Client, Leg::Client);
        Ok(())
    }
}

#[test]
fn a_session_opens_behind_a_handshake_and_knows_what_that_has_found_out() {
    let server = staged(Introduction, each(Handshake::new));
    let mut client = dial(server.address().unwrap());
    client.write_all(b"hel").unwrap();
    client.set_read_timeout(Some(50 * MS)).unwrap();
    assert!(client.read(&mut [0; 1]).is_err(), "nothing is said before the handshake");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"lo\nfirst").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut client), b"welcome\nyou are 192.0.2.7:7\nfirst");
    assert_eq!(stop(&server).errors, 0);
}

#[test]
fn a_handshake_may_fail_and_say_why() {
    let server = staged(Introduction, each(Handshake::new));
    let mut client = dial(server.address().unwrap());
    client.write_all(b"alert\n").unwrap();
    assert_eq!(read_all(&mut client), b"alerted");
    drop(client);
    let mut client = dial(server.address().unwrap());
    client.write_all(b"hal").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let records = closed(&server.ledger(), 2);
    assert!(records.iter().all(|record| record.closed_by() == Some(ClosedBy::Error)));
    let texts: Vec<_> = records.iter().map(|record| record.error().unwrap().to_owned()).collect();
    assert_eq!(texts, ["a bad handshake", "cut short"]);
    assert_eq!(stop(&server).errors, 2);
}

#[test]
fn a_handshake_that_never_comes_does_not_hold_up_a_stop() {
    let server = staged(Introduction, each(Handshake::new));
    let mut client = dial(server.address().unwrap());
    open(&server.ledger(), 1);
    let report = stop(&server);
    assert!(report.seconds < Duration::from_millis(700), "{report:?}");
    assert_eq!((report.drained, report.forced), (1, 0));
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_stage_ends_a_connection_after_bytes_or_time() {
    let server = staged(Echo, each(|| EndAfter::bytes(3, false)));
    let mut client = dial(server.address().unwrap());
    client.write_all(b"abc").unwrap();
    client.read_exact(&mut [0; 3]).unwrap();
    client.write_all(b"d").unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    drop(client);
    let record = &closed(&server.ledger(), 1)[0];
    assert_eq!((record.closed_by(), record.error()), (Some(ClosedBy::Service), Some("a fault")));
    stop(&server);

    // What came before the end goes on to the other side.
    let (server, mut client, mut far) =
        relayed(each(|| EndAfter::bytes(3, false)), Limits::default());
    client.write_all(b"abcd").unwrap();
    assert_eq!(read_all(&mut far), b"ab");
    drop((client, far));
    closed(&server.ledger(), 1);
    stop(&server);

    // Also one that is idle, of which no byte has come.
    for reset in [false, true] {
        let server = staged(Echo, each(move || EndAfter::time(30 * MS, reset)));
        let mut client = dial(server.address().unwrap());
        let read = client.read(&mut [0; 1]);
        if reset {
            assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
        } else {
            assert_eq!(read.unwrap(), 0);
        }
        drop(client);
        let record = &closed(&server.ledger(), 1)[0];
        assert_eq!(record.error(), Some("a fault"));
        stop(&server);
    }
}

/// Takes everything in both directions and passes on nothing.
struct BlackHole;

impl Stage for BlackHole {
    fn inbound(&mut self, _flow: &mut Flow<'_>, _event: Inbound<'_>) -> StageResult {
        Ok(())
    }

    fn outbound(&mut self, _flow: &mut Flow<'_>, _event: Outbound<'_>) -> StageResult {
        Ok(())
    }
}

#[test]
fn a_black_hole_swallows_everything_but_the_end_of_its_connection() {
    let server = staged(Echo, each(|| BlackHole));
    let mut client = dial(server.address().unwrap());
    client.write_all(&noise(1000)).unwrap();
    until("it has come", || server.ledger().totals().received.bytes == 1000);
    client.set_read_timeout(Some(30 * MS)).unwrap();
    assert!(client.read(&mut [0; 1]).is_err());
    // Nothing can come of a connection whose socket has failed.
    reset(client);
    assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Reset));
    stop(&server);
}

/// Holds everything while its gate is shut, as a recorder does whose queue is full.
#[derive(Clone, Default)]
struct Gate(Arc<Mutex<(AtomicBool, Option<Waker>)>>);

struct Gated {
    gate: Gate,
    held: Vec<u8>,
}

impl Gate {
    fn open(&self) {
        let state = self.0.lock();
        state.0.store(true, SeqCst);
        state.1.as_ref().expect("a connection").wake();
    }
}

impl Stage for Gated {
    fn open(&mut self, flow: &mut Flow<'_>) -> StageResult {
        self.gate.0.lock().1 = flow.waker();
        Ok(())
    }

    fn inbound(&mut self, flow: &mut Flow<'_>, event: Inbound<'_>) -> StageResult {
        match event {
            Inbound::Bytes(bytes) => {
                self.held.extend_from_slice(bytes);
                self.turn(flow)?;
            }
            end => flow.pass_in(end),
        }
        Ok(())
    }

    fn turn(&mut self, flow: &mut Flow<'_>) -> StageResult {
        if self.gate.0.lock().0.load(SeqCst) && !self.held.is_empty() {
            flow.pass_in(Inbound::Bytes(&self.held));
            self.held.clear();
        }
        Ok(())
    }

    fn held(&self, direction: Direction) -> usize {
        if direction == Direction::Inbound { self.held.len() } else { 0 }
    }
}

#[test]
fn a_stage_may_stop_the_reading_until_another_thread_wakes_it() {
    let gate = Gate::default();
    let shared = gate.clone();
    let mut config =
        staged_config(Echo, each(move || Gated { gate: shared.clone(), held: Vec::new() }));
    config.limits = Limits { write_buffer: 8192, ..Limits::default() };
    let server = start(config);
    let mut client = dial(server.address().unwrap());
    let data = noise(100_000);
    client.write_all(&data).unwrap();
    until("as much is held as may be", || server.ledger().totals().received.bytes == 8192);
    thread::sleep(30 * MS);
    assert_eq!(server.ledger().totals().received.bytes, 8192, "and the peer is read no more");
    gate.open();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&mut client) == data);
    stop(&server);
}

/// A target of the test's own, and a relay to it through stages.
fn relayed(factory: Arc<dyn StageFactory>, limits: Limits) -> (Server, TcpStream, TcpStream) {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = Relay { target: ip(target.local_addr().unwrap()) };
    let mut config = staged_config(service, factory);
    config.limits = limits;
    config.options.send_buffer = Some(16 * 1024);
    config.options.receive_buffer = Some(16 * 1024);
    let server = start(config);
    let mut client = dial(server.address().unwrap());
    client.write_all(b"?").unwrap();
    let (mut far, _) = target.accept().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    far.set_write_timeout(Some(PATIENCE)).unwrap();
    far.read_exact(&mut [0; 1]).unwrap();
    (server, client, far)
}

#[test]
fn a_forwarder_passes_half_closes_on_both_ways() {
    for factory in both() {
        let (server, mut client, mut far) = relayed(Arc::clone(&factory), Limits::default());
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(far.read(&mut [0; 1]).unwrap(), 0);
        far.write_all(b"answer").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client), b"answer");
        assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Peer));
        stop(&server);

        let (server, mut client, mut far) = relayed(factory, Limits::default());
        far.write_all(b"answer").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client), b"answer");
        client.write_all(b"late").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut far), b"late");
        assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Service));
        stop(&server);
    }
}

#[test]
fn a_forwarder_passes_resets_on_both_ways() {
    for factory in both() {
        let (server, client, mut far) = relayed(Arc::clone(&factory), Limits::default());
        reset(client);
        assert_eq!(far.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Reset));
        stop(&server);

        let (server, mut client, far) = relayed(factory, Limits::default());
        reset(far);
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Error));
        stop(&server);
    }
}

#[test]
fn a_forwarder_holds_no_more_than_high_water_for_a_side_that_does_not_read() {
    const HIGH: u64 = 16 * 1024;
    let limits = || Limits { write_buffer: HIGH as usize, ..Limits::default() };
    for factory in both() {
        for up in [true, false] {
            let (server, client, far) = relayed(Arc::clone(&factory), limits());
            let record = server.ledger().open_records().remove(0);
            let (mut from, mut to) = if up { (client, far) } else { (far, client) };
            let data = noise(300_000);
            let sent = data.clone();
            let sender = thread::spawn(move || {
                from.write_all(&sent).unwrap();
                from.shutdown(Shutdown::Write).unwrap();
                from
            });
            let counts = || {
                let far = record.far().expect("it is connected");
                if up {
                    (record.received().bytes, far.sent().bytes)
                } else {
                    (far.received().bytes, record.sent().bytes)
                }
            };
            let mut before = u64::MAX;
            until("nothing moves", || {
                thread::sleep(30 * MS);
                let (now, _) = counts();
                now > 1 && std::mem::replace(&mut before, now) == now
            });
            let (received, passed_on) = counts();
            assert!(received - passed_on <= HIGH, "up: {up}, {received}, {passed_on}");
            assert!(read_all(&mut to) == data);
            drop(sender.join().unwrap());
            stop(&server);
        }
    }
}

/// Adds one to every byte that comes in, and takes it off what goes out: bytes that miss it are
/// seen.
struct Cipher;

impl Stage for Cipher {
    fn inbound(&mut self, flow: &mut Flow<'_>, event: Inbound<'_>) -> StageResult {
        match event {
            Inbound::Bytes(bytes) => {
                let bytes: Vec<u8> = bytes.iter().map(|byte| byte.wrapping_sub(1)).collect();
                flow.pass_in(Inbound::Bytes(&bytes));
            }
            end => flow.pass_in(end),
        }
        Ok(())
    }

    fn outbound(&mut self, flow: &mut Flow<'_>, event: Outbound<'_>) -> StageResult {
        match event {
            Outbound::Bytes(bytes) => {
                let bytes: Vec<u8> = bytes.iter().map(|byte| byte.wrapping_add(1)).collect();
                flow.pass_out(Outbound::Bytes(&bytes));
            }
            end => flow.pass_out(end),
        }
        Ok(())
    }
}

#[test]
fn no_byte_of_a_bulk_transfer_goes_past_its_stages() {
    // Both directions are bulk, which without stages is spliced.
    let (server, client, far) = relayed(each(|| Cipher), Limits::default());
    let data = noise(3_000_000);
    let shifted: Vec<u8> = data.iter().map(|byte| byte.wrapping_add(1)).collect();
    thread::scope(|scope| {
        for (stream, bytes) in [(&client, &shifted), (&far, &data)] {
            let mut sending = stream.try_clone().unwrap();
            scope.spawn(move || {
                sending.write_all(bytes).unwrap();
                sending.shutdown(Shutdown::Write).unwrap();
            });
        }
        let mut reading = far.try_clone().unwrap();
        let up = scope.spawn(move || read_all(&mut reading));
        assert!(read_all(&mut client.try_clone().unwrap()) == shifted);
        assert!(up.join().unwrap() == data);
    });
    stop(&server);
}

#[test]
fn every_test_over_streams_runs_through_stages_too() {
    let sources = [
        ("services", include_str!("services.rs")),
        ("edges", include_str!("edges.rs")),
        ("fuzz", include_str!("fuzz.rs")),
    ];
    // Not over sockets.
    let others = ["fuzz_addresses"];
    for (module, source) in sources {
        let (_, list) = source.split_once("through_stages! {").expect("it has the list");
        let tests = source.split("#[test]\nfn ").skip(1);
        for test in tests.map(|test| test.split('(').next().unwrap()) {
            let there = list.lines().any(|line| line.trim() == format!("{test},"));
            assert!(there || others.contains(&test), "{module}: {test} is not in through_stages!");
        }
    }
}
