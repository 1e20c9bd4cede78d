//! Steps, states, stop and the books, without Python.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use _rsock::net::address::Target;
use _rsock::net::base::{Plain, Waiter};
use _rsock::net::control::{Cause, Limits, Overflow};
use _rsock::net::error::{Error, Result};
use _rsock::net::server::{Server, State};
use _rsock::net::services::Echo;
use _rsock::net::sys::PollFd;

use crate::support::{closed, config, dial, echo, ip, open, rejection, start, stop, until};

#[test]
fn each_step_does_what_is_missing_before_it() {
    let server = Server::new(config(Echo));
    assert_eq!(server.state(), State::New);
    assert!(matches!(server.address(), Err(Error::State { .. })));
    server.create(None, &mut Plain).unwrap();
    assert_eq!(server.state(), State::Created);
    server.listen(None, &mut Plain).unwrap();
    assert_eq!(server.state(), State::Listening);
    assert!(matches!(server.bind(None, &mut Plain), Err(Error::State { asked: "bind", .. })));
    // The queue takes connections before the server serves them.
    let mut early = dial(server.address().unwrap());
    early.write_all(b"early").unwrap();
    server.start(&mut Plain).unwrap();
    early.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(server.state(), State::Serving);
    stop(&server);
    assert_eq!(server.state(), State::Stopped);
    assert!(matches!(server.start(&mut Plain), Err(Error::State { .. })));
}

#[test]
fn stop_before_start_closes_what_was_opened() {
    let server = Server::new(config(Echo));
    server.listen(None, &mut Plain).unwrap();
    let address = ip(server.address().unwrap());
    let report = stop(&server);
    assert_eq!((report.drained, report.forced, report.cause), (0, 0, Cause::Stop));
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_taken_port_names_its_holder_and_leaves_nothing_open() {
    let holder = echo();
    let address = ip(holder.address().unwrap());
    let server = Server::new({
        let mut config = config(Echo);
        config.target = _rsock::net::address::Target::new("127.0.0.1", address.port()).unwrap();
        config
    });
    let error = server.start(&mut Plain).unwrap_err();
    assert_eq!(error.raw(), Some(libc::EADDRINUSE));
    let text = error.to_string();
    // The rest of the text differs between C libraries.
    assert!(text.starts_with(&format!("bind {address}: Address ")), "{text}");
    assert!(text.contains("\"test\"") && text.contains("stop()"), "{text}");
    assert_eq!(server.state(), State::New);
    stop(&holder);
    server.start(&mut Plain).unwrap();
    stop(&server);
}

#[test]
fn a_holder_that_is_just_ending_is_waited_for() {
    let holder = Arc::new(echo());
    let address = ip(holder.address().unwrap());
    // Not heard from, so that the drain takes its quarter of a second.
    let silent = dial(address);
    open(&holder.ledger(), 1);
    let stopping = Arc::clone(&holder);
    let stopper = thread::spawn(move || stop(&stopping));
    until("it drains", || holder.state() != State::Serving);
    let server = Server::new({
        let mut config = config(Echo);
        config.target = _rsock::net::address::Target::new("127.0.0.1", address.port()).unwrap();
        config
    });
    server.start(&mut Plain).unwrap();
    assert_eq!(ip(server.address().unwrap()), address);
    stopper.join().unwrap();
    drop(silent);
    stop(&server);
}

#[test]
fn an_adopted_listener_is_served_and_closed() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = start({
        let mut config = config(Echo);
        config.fd = Some(listener.into_raw_fd());
        config
    });
    assert_eq!(ip(server.address().unwrap()), address);
    let mut client = dial(address);
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    stop(&server);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn stop_drains_the_quiet_at_once_and_gives_the_unheard_a_quarter_second() {
    let server = echo();
    let mut heard: Vec<_> = (0..50).map(|_| dial(server.address().unwrap())).collect();
    for client in &mut heard {
        client.write_all(b"x").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
    }
    let report = stop(&server);
    assert!(report.seconds < Duration::from_millis(200), "{report:?}");
    assert_eq!((report.drained, report.forced), (50, 0));
    for mut client in heard {
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the end is a FIN");
    }

    let server = echo();
    let mut silent = dial(server.address().unwrap());
    open(&server.ledger(), 1);
    let report = stop(&server);
    assert!(report.seconds >= Duration::from_millis(250), "{report:?}");
    assert!(report.seconds < Duration::from_secs(1), "{report:?}");
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn stop_with_no_drain_resets() {
    let server = echo();
    let mut client = dial(server.address().unwrap());
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    let report = server.stop(Some(Duration::ZERO), Cause::Stop, &mut Plain).unwrap();
    assert_eq!((report.drained, report.forced), (0, 1));
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_reset_ends_all_connections_and_numbers_them_anew() {
    for workers in [1, 3] {
        let mut config = config(Echo);
        config.workers = Some(workers);
        let server = start(config);
        let ledger = server.ledger();
        for _ in 0..3 {
            let mut heard: Vec<_> = (0..20).map(|_| dial(server.address().unwrap())).collect();
            for client in &mut heard {
                client.write_all(b"x").unwrap();
                client.read_exact(&mut [0; 1]).unwrap();
            }
            // Some may still be in the queue.
            let unheard = dial(server.address().unwrap());
            server.reset(None, &mut Plain).unwrap();
            let totals = ledger.totals();
            assert_eq!((totals.accepted, totals.open, totals.closed), (0, 0, 0));
            assert!(ledger.is_empty());
            for mut client in heard.into_iter().chain([unheard]) {
                let end = client.read(&mut [0; 1]);
                assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
            }
            let mut first = dial(server.address().unwrap());
            first.write_all(b"x").unwrap();
            first.read_exact(&mut [0; 1]).unwrap();
            assert_eq!(ledger.records()[0].id(), 1);
        }
        stop(&server);
        assert!(matches!(server.reset(None, &mut Plain), Err(Error::State { .. })));
    }
}

#[test]
fn the_earlier_of_two_deadlines_holds() {
    let server = Arc::new(echo());
    let client = dial(server.address().unwrap());
    let mut sending = client.try_clone().unwrap();
    sending.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    // It never reads what it is owed, so that it can only be forced.
    while sending.write_all(&[1; 1 << 16]).is_ok() {}
    let first = Arc::clone(&server);
    let long = thread::spawn(move || {
        first.stop(Some(Duration::from_secs(60)), Cause::Stop, &mut Plain).unwrap()
    });
    until("the stop has begun", || server.state() == State::Draining);
    let started = Instant::now();
    let report = server.stop(Some(Duration::from_millis(50)), Cause::Sigterm, &mut Plain).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!((report.forced, report.cause), (1, Cause::Stop));
    assert_eq!(long.join().unwrap(), report, "both get the one report");
}

#[test]
fn the_queue_is_served_before_the_end() {
    let server = Server::new({
        let mut config = config(Echo);
        config.limits = Limits { connections: Some(1), ..Limits::default() };
        config
    });
    server.start(&mut Plain).unwrap();
    let mut first = dial(server.address().unwrap());
    first.write_all(b"x").unwrap();
    first.read_exact(&mut [0; 1]).unwrap();
    // Over the limit, so that it waits in the kernel's queue.
    let mut queued = dial(server.address().unwrap());
    queued.write_all(b"queued").unwrap();
    drop(first);
    queued.read_exact(&mut [0; 6]).unwrap();
    stop(&server);
}

#[test]
fn a_limit_is_never_exceeded_and_refuses_where_it_is_told_to() {
    let server = start({
        let mut config = config(Echo);
        config.limits =
            Limits { connections: Some(2), overflow: Overflow::Refuse, ..Limits::default() };
        config
    });
    let kept: Vec<_> = (0..2)
        .map(|_| {
            let mut client = dial(server.address().unwrap());
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0; 1]).unwrap();
            client
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(rejection(server.address().unwrap()), ErrorKind::ConnectionReset);
    }
    let totals = server.ledger().totals();
    assert_eq!((totals.accepted, totals.open, totals.refused), (2, 2, 20));
    drop(kept);
    closed(&server.ledger(), 2);
    stop(&server);
}

#[test]
fn a_thousand_connections_on_several_workers_balance() {
    let server = start({
        let mut config = config(Echo);
        config.workers = Some(4);
        config.history = 10;
        config
    });
    let address = ip(server.address().unwrap());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..250 {
                    let mut client = dial(address);
                    client.write_all(b"hello").unwrap();
                    client.read_exact(&mut [0; 5]).unwrap();
                }
            });
        }
    });
    let held = closed(&server.ledger(), 1000);
    assert_eq!(held.len(), 10, "the history is bounded");
    let totals = server.ledger().totals();
    assert_eq!((totals.accepted, totals.open, totals.closed), (1000, 0, 1000));
    assert_eq!((totals.received.bytes, totals.sent.bytes), (5000, 5000));
    assert_eq!(totals.closed_by.iter().sum::<u64>(), 1000);
    stop(&server);
}

#[test]
fn a_dropped_server_ends_by_itself() {
    let server = echo();
    let address = ip(server.address().unwrap());
    let mut client = dial(address);
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 1]).unwrap();
    drop(server);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    until("the port is free", || TcpStream::connect(address).is_err());
}

crate::support::through_stages! {
    stop_drains_the_quiet_at_once_and_gives_the_unheard_a_quarter_second,
    stop_with_no_drain_resets,
    a_reset_ends_all_connections_and_numbers_them_anew,
    the_earlier_of_two_deadlines_holds,
    the_queue_is_served_before_the_end,
    a_limit_is_never_exceeded_and_refuses_where_it_is_told_to,
    a_thousand_connections_on_several_workers_balance,
}

/// Calls a function at the first wait, as a signal handler would run there.
struct Interrupting<'a>(Option<&'a dyn Fn()>);

impl Waiter for Interrupting<'_> {
    fn wait(&mut self, fds: &mut [PollFd], deadline: Option<Instant>) -> Result<bool> {
        if let Some(handler) = self.0.take() {
            handler();
        }
        Plain.wait(fds, deadline)
    }
}

#[test]
fn a_start_within_a_start_of_the_same_thread_does_not_wait_for_itself() {
    let server = Server::new({
        let mut config = config(Echo);
        // A name, for whose resolution the start waits.
        config.target = Target::new("localhost", 0).unwrap();
        config
    });
    let called = Cell::new(false);
    let inner = || {
        called.set(true);
        assert!(matches!(server.start(&mut Plain), Err(Error::State { asked: "start", .. })));
    };
    assert!(server.start(&mut Interrupting(Some(&inner))).unwrap());
    assert!(called.get());
    assert_eq!(server.state(), State::Serving);
    // A later start finds it started.
    assert!(!server.start(&mut Plain).unwrap());
    stop(&server);
}

#[test]
fn one_of_several_threads_starts_the_server_and_the_others_wait_for_it() {
    for _ in 0..20 {
        let server = Server::new({
            let mut config = config(Echo);
            config.target = Target::new("localhost", 0).unwrap();
            config
        });
        let started: usize = thread::scope(|scope| {
            let starts: Vec<_> =
                (0..4).map(|_| scope.spawn(|| server.start(&mut Plain).unwrap())).collect();
            starts.into_iter().map(|start| usize::from(start.join().unwrap())).sum()
        });
        assert_eq!((started, server.state()), (1, State::Serving));
        stop(&server);
    }
}
