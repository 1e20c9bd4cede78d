//! The edge-trigger rules, each where it would hang or lose bytes if it were broken.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use _rsock::net::control::Limits;
use _rsock::net::ledger::ClosedBy;
use _rsock::net::services::Echo;

use crate::support::{
    PATIENCE, closed, config, dial, echo, noise, open, scaled, serve, start, stop, until,
};
use crate::test_services::SlowReturn;

/// Keeps a worker away from its poll for a while, so that the next events come in one edge: a bulk
/// peer whose turns fill the time.
fn flood(stream: &TcpStream) -> thread::JoinHandle<()> {
    let mut writing = stream.try_clone().unwrap();
    let mut reading = stream.try_clone().unwrap();
    let reader = thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while reading.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    thread::spawn(move || {
        let data = vec![7; 1 << 20];
        while writing.write_all(&data).is_ok() {}
        reader.join().unwrap();
    })
}

#[test]
fn data_and_fin_in_one_edge() {
    let server = echo();
    let busy = dial(server.address().unwrap());
    let flooding = flood(&busy);
    for round in 0..200 {
        let mut client = dial(server.address().unwrap());
        let data = noise(1 + round * 7);
        client.write_all(&data).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        assert_eq!(back, data);
    }
    busy.shutdown(Shutdown::Both).unwrap();
    flooding.join().unwrap();
    closed(&server.ledger(), 201);
    let totals = server.ledger().totals();
    // The flood's own end is a matter of luck: it is shut down with its hands full.
    assert!(totals.closed_by[0] >= 200, "the ends were the peers': {totals:?}");
    stop(&server);
}

#[test]
fn urgent_data_does_not_hide_what_is_behind_it() {
    // A read stops at the urgent mark and looks like a short read of an empty queue.
    let server = echo();
    let busy = dial(server.address().unwrap());
    let flooding = flood(&busy);
    for _ in 0..100 {
        let mut client = dial(server.address().unwrap());
        client.write_all(b"before").unwrap();
        // SAFETY: a valid descriptor and one byte of a static.
        let sent =
            unsafe { libc::send(client.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
        assert_eq!(sent, 1);
        client.write_all(b"behind").unwrap();
        let mut back = [0; 12];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"beforebehind", "the urgent byte itself is out of band");
    }
    busy.shutdown(Shutdown::Both).unwrap();
    flooding.join().unwrap();
    stop(&server);
}

#[test]
fn a_spent_budget_neither_starves_others_nor_forgets_the_rest() {
    let server = echo();
    let floods: Vec<_> = (0..4).map(|_| dial(server.address().unwrap())).collect();
    let flooding: Vec<_> = floods.iter().map(flood).collect();
    let mut client = dial(server.address().unwrap());
    let mut slowest = Duration::ZERO;
    for _ in 0..200 {
        let started = Instant::now();
        client.write_all(b"ping").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < PATIENCE / 4, "{slowest:?} beside four floods");
    for stream in &floods {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    // A write ends with the shutdown of its own side; all that was taken comes back before the end.
    for flooding in flooding {
        flooding.join().unwrap();
    }
    drop(client);
    for record in closed(&server.ledger(), 5) {
        assert_eq!(record.received().bytes, record.sent().bytes, "{record:?}");
        assert_eq!(record.closed_by(), Some(ClosedBy::Peer));
    }
    stop(&server);
}

#[test]
fn reading_is_resumed_when_a_blocked_peer_reads_again() {
    let server = start({
        let mut config = config(Echo);
        config.limits = Limits { write_buffer: 16 * 1024, ..Limits::default() };
        config
    });
    let mut client = dial(server.address().unwrap());
    let data = noise(scaled(16 << 20));
    let sent = data.clone();
    let mut sending = client.try_clone().unwrap();
    let sender = thread::spawn(move || {
        sending.write_all(&sent).unwrap();
        sending.shutdown(Shutdown::Write).unwrap();
    });
    // Nothing is read until everything between the two has filled up and the server has stopped.
    let ledger = server.ledger();
    open(&ledger, 1);
    let record = ledger.open_records().remove(0);
    let mut before = u64::MAX;
    until("the server reads no more", || {
        thread::sleep(Duration::from_millis(30));
        let now = record.received().bytes;
        now > 0 && std::mem::replace(&mut before, now) == now
    });
    assert!(record.received().bytes - record.sent().bytes <= 16 * 1024, "high water holds");
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert!(back == data);
    sender.join().unwrap();
    stop(&server);
}

#[test]
fn a_reset_in_the_middle_is_a_reset() {
    let server = echo();
    let mut client = dial(server.address().unwrap());
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Reset));
    stop(&server);
}

#[test]
fn a_reset_that_a_send_finds_first_is_no_limit() {
    // The session used nothing of a full inbox, because it could not send.
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let (has_input, input) = crossbeam_channel::bounded(1);
    let (go_on, waits) = crossbeam_channel::bounded(1);
    let address = target.local_addr().unwrap();
    let server = serve(SlowReturn { target: address, has_input, go_on: waits });
    let client = dial(server.address().unwrap());
    // As the kernel lists the server's socket. Others may have the port of the client.
    let [to, from] = [client.peer_addr(), client.local_addr()]
        .map(|address| format!("0100007F:{:04X}", address.unwrap().port()));
    let listed = format!(" {to} {from} ");
    let (mut answering, _) = target.accept().unwrap();
    answering.write_all(&[b'!'; 16]).unwrap();
    input.recv_timeout(PATIENCE).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    let table = || std::fs::read_to_string("/proc/net/tcp").unwrap();
    until("the connection is listed", || table().contains(&listed));
    drop(client);
    until("the reset has come", || !table().contains(&listed));
    go_on.send(()).unwrap();
    assert_eq!(closed(&server.ledger(), 1)[0].closed_by(), Some(ClosedBy::Reset));
    stop(&server);
}

#[test]
fn a_peer_that_ends_and_never_reads_meets_the_half_close_limit() {
    let server = start({
        let mut config = config(Echo);
        config.limits =
            Limits { half_close: Some(Duration::from_millis(200)), ..Limits::default() };
        config
    });
    let client = dial(server.address().unwrap());
    let mut sending = client.try_clone().unwrap();
    // Far more than buffers hold, so that much is owed when the FIN comes.
    let sender = thread::spawn(move || {
        sending.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        while sending.write_all(&[1; 1 << 16]).is_ok() {}
        sending.shutdown(Shutdown::Write).unwrap();
    });
    sender.join().unwrap();
    // What the kernel holds of the FIN comes only when the server has read all before it: a client
    // that never reads keeps it from that, so this one reads just enough.
    let mut reading = client.try_clone().unwrap();
    let ledger = server.ledger();
    let mut buffer = vec![0; 1 << 16];
    while ledger.totals().closed == 0 && reading.read(&mut buffer).is_ok_and(|count| count > 0) {
        thread::sleep(Duration::from_millis(1));
    }
    let record = &closed(&ledger, 1)[0];
    assert!(matches!(record.closed_by(), Some(ClosedBy::Peer | ClosedBy::Limit("half_close"))));
    stop(&server);
}

crate::support::through_stages! {
    data_and_fin_in_one_edge,
    urgent_data_does_not_hide_what_is_behind_it,
    a_spent_budget_neither_starves_others_nor_forgets_the_rest,
    reading_is_resumed_when_a_blocked_peer_reads_again,
    a_reset_in_the_middle_is_a_reset,
    a_reset_that_a_send_finds_first_is_no_limit,
    a_peer_that_ends_and_never_reads_meets_the_half_close_limit,
}
