//! The datagram shape over real sockets: what becomes of replies, of failures, and of the end.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use _rsock::net::address::Transport;
use _rsock::net::control::{Config, Limits};
use _rsock::net::ledger::ClosedBy;
use _rsock::net::server::Server;
use _rsock::net::service::{Datagrams, Peer, Reply, Service, SessionError, SessionResult, Shape};
use _rsock::net::services::Echo;

use crate::support::{PATIENCE, config_of, noise, start, stop, until};

/// Does what it is told by the first byte.
struct Obedient;

impl Datagrams for Obedient {
    fn on_datagram(&self, data: &[u8], from: &Peer, reply: &mut dyn Reply) -> SessionResult {
        match data {
            [b'p', ..] => panic!("as told"),
            [b'e', ..] => return Err(SessionError("as told".to_owned())),
            // A part of what came, and something else beside it.
            [b's', rest @ ..] => {
                reply.send(&rest[1..]);
                reply.send(b"own words");
                reply.send(&[]);
            }
            [b'm', rest @ ..] => rest.iter().for_each(|_| reply.send(&[7; 60_000])),
            [b'n', ..] => reply.send(from.id.to_string().as_bytes()),
            [b'c', ..] => reply.send(if reply.is_cut() { b"cut" } else { b"whole" }),
            [b't', ..] => reply.send(&[0; 65_528]),
            _ => {}
        }
        Ok(())
    }
}

fn config(service: impl Datagrams + 'static) -> Config {
    let shape = Shape::Datagram(Arc::new(service));
    Config { transport: Transport::Udp, ..config_of(shape) }
}

fn echo() -> Config {
    let shape = Shape::Datagram(Arc::new(Echo).datagrams().unwrap());
    Config { transport: Transport::Udp, ..config_of(shape) }
}

fn address(server: &Server) -> SocketAddr {
    server.address().unwrap().as_ip().unwrap()
}

/// A socket connected to a server, whose reads fail rather than hang.
fn dial(server: &Server) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address(server)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn ask(socket: &UdpSocket, data: &[u8]) -> Vec<u8> {
    socket.send(data).unwrap();
    read(socket)
}

fn read(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let count = socket.recv(&mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

#[test]
fn a_failure_closes_the_account_of_one_peer() {
    let server = start(config(Obedient));
    let (bad, good) = (dial(&server), dial(&server));
    assert_eq!(ask(&good, b"n"), b"1");
    for (round, word) in [(1, &b"p"[..]), (2, b"e")] {
        bad.send(word).unwrap();
        until("it is closed", || server.ledger().totals().closed == round);
        assert_eq!(ask(&good, b"n"), b"1", "the others keep theirs");
    }
    let closed = server.ledger().closed_records();
    assert!(closed.iter().all(|record| record.closed_by() == Some(ClosedBy::Error)));
    let words: Vec<_> = closed.iter().map(|record| record.error().unwrap().to_owned()).collect();
    assert_eq!(words, ["panic: as told", "as told"]);
    // It is met anew.
    assert_eq!(ask(&bad, b"n"), b"4");
    let report = stop(&server);
    assert_eq!((report.errors, report.drained), (2, 2));
}

#[test]
fn a_datagram_may_have_several_answers_or_part_of_itself() {
    let server = start(config(Obedient));
    let socket = dial(&server);
    assert_eq!(ask(&socket, b"s-itself"), b"itself");
    assert_eq!(read(&socket), b"own words");
    assert_eq!(read(&socket), b"");
    let record = &server.ledger().open_records()[0];
    until("all are written down", || record.sent().messages == 3);
    assert_eq!((record.received().messages, record.sent().bytes), (1, 15));
    stop(&server);
}

#[test]
fn answers_of_more_than_the_outbox_leave_in_parts() {
    let server = start(config(Obedient));
    let socket = dial(&server);
    socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
    // 20 of 60 000 bytes each; as many as the receiver has room for arrive.
    socket.send(&[b'm'; 21]).unwrap();
    let record = || Arc::clone(&server.ledger().open_records()[0]);
    until("all have left", || {
        !server.ledger().open_records().is_empty() && record().sent().messages == 20
    });
    assert_eq!(record().sent().bytes, 20 * 60_000);
    assert_eq!(read(&socket), [7; 60_000]);
    assert_eq!(server.ledger().totals().dropped, 0);
    stop(&server);
}

#[test]
fn what_cannot_be_sent_is_dropped_and_counted() {
    let server = start(config(Obedient));
    let socket = dial(&server);
    socket.send(b"t").unwrap();
    until("it is dropped", || server.ledger().totals().dropped == 1);
    assert_eq!(ask(&socket, b"n"), b"1", "no harm is done");
    assert_eq!(stop(&server).errors, 0);
}

#[test]
fn what_was_cut_is_said_to_be() {
    let limits = Limits { datagram: 4, ..Limits::default() };
    let server = start(Config { limits, ..config(Obedient) });
    let socket = dial(&server);
    assert_eq!(ask(&socket, b"c234"), b"whole");
    assert_eq!(ask(&socket, b"c2345"), b"cut");
    assert_eq!(server.ledger().totals().truncated, 1);
    stop(&server);
}

#[test]
fn every_byte_of_every_size_comes_back() {
    let server = start(echo());
    let socket = dial(&server);
    let data = noise(65_507);
    let sizes: Vec<_> = (0..300).chain((300..65_507).step_by(997)).chain([65_507]).collect();
    for &size in &sizes {
        assert!(ask(&socket, &data[..size]) == data[..size], "{size} bytes");
    }
    let totals = server.ledger().totals();
    assert_eq!(totals.received.messages, sizes.len() as u64);
    assert_eq!((totals.dropped, totals.suspects, totals.truncated), (0, 0, 0));
    stop(&server);
}

#[test]
fn the_books_balance_under_a_crowd_that_never_fits() {
    // Every datagram of another peer closes an account while replies of its batch are waiting.
    let limits = Limits { connections: Some(3), ..Limits::default() };
    let server = start(Config { limits, ..echo() });
    let sockets: Vec<_> = (0..20).map(|_| dial(&server)).collect();
    for round in 0..20u8 {
        for socket in &sockets {
            socket.send(&[round]).unwrap();
        }
        for socket in &sockets {
            assert_eq!(read(socket), [round]);
        }
    }
    let totals = server.ledger().totals();
    assert!(totals.open <= 3);
    stop(&server);
    let totals = server.ledger().totals();
    assert_eq!(totals.accepted, totals.closed);
    assert_eq!((totals.received.messages, totals.sent.messages), (400, 400));
    assert_eq!((totals.received.bytes, totals.sent.bytes), (400, 400));
}

#[test]
fn a_stop_under_a_flood_comes_to_its_end() {
    for workers in [1, 2] {
        let server = start(Config { workers: Some(workers), ..echo() });
        let over = Arc::new(AtomicBool::new(false));
        let floods: Vec<_> = (0..2)
            .map(|_| {
                let (socket, over) = (dial(&server), Arc::clone(&over));
                thread::spawn(move || {
                    while !over.load(SeqCst) {
                        // Refused once the server is gone.
                        let _ = socket.send(&[1; 64]);
                    }
                })
            })
            .collect();
        until("it is under way", || server.ledger().totals().received.messages > 1000);
        let began = Instant::now();
        let report = stop(&server);
        over.store(true, SeqCst);
        floods.into_iter().for_each(|flood| flood.join().unwrap());
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!((report.forced, report.errors), (0, 0));
        let totals = server.ledger().totals();
        assert_eq!((totals.accepted, totals.open), (totals.closed, 0));
        assert_eq!(totals.received.messages, totals.sent.messages + totals.dropped);
    }
}

#[test]
fn a_hard_stop_answers_nothing_more() {
    let server = Server::new(echo());
    server.bind(None, &mut _rsock::net::base::Plain).unwrap();
    let socket = dial(&server);
    socket.send(b"before the start").unwrap();
    server.start(&mut _rsock::net::base::Plain).unwrap();
    assert_eq!(read(&socket), b"before the start");
    let zero = Some(Duration::ZERO);
    let cause = _rsock::net::control::Cause::Stop;
    let report = server.stop(zero, cause, &mut _rsock::net::base::Plain).unwrap();
    assert_eq!((report.drained, report.forced), (0, 1));
    socket.send(b"after the end").unwrap();
    assert_eq!(socket.recv(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
