//! Faults that change while a server serves: what a caller that adds or removes one may rely on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use _rsock::net::base::{Plain, Waiter};
use _rsock::net::control::Cause;
use _rsock::net::error::{Error, Result};
use _rsock::net::server::Server;
use _rsock::net::service::{Io, Leg, Peer, Service, Session, SessionResult};
use _rsock::net::stage::faults::{
    Connections, Fault, FaultHost, FaultSet, Params, Scope, Subject, Value,
};
use _rsock::net::stage::{Chain, Direction, Inbound, Outbound};
use _rsock::net::sys::PollFd;

use crate::support::{PATIENCE, config, dial, echo, open, start, stop, until};

const MS: Duration = Duration::from_millis(1);

fn fault(name: &str, params: &[(&str, f64)], window: Option<(f64, f64)>) -> Fault {
    let mut all = Params::default();
    params.iter().for_each(|(name, value)| all.set(name, Value::Number(*value)));
    let window = window.map(|(from, to)| _rsock::net::stage::faults::Window {
        from: Duration::from_secs_f64(from),
        to: Some(Duration::from_secs_f64(to)),
    });
    let scope =
        Scope { up: false, down: true, probability: 1.0, connections: Connections::All, window };
    Fault::new(name, &all, scope, name).unwrap()
}

fn latency(seconds: f64) -> Fault {
    fault("latency", &[("seconds", seconds)], None)
}

/// A service whose worker stands still at the first byte until the test lets it go on.
struct Stuck(Mutex<Option<(Sender<()>, Receiver<()>)>>);

struct StuckSession(Option<(Sender<()>, Receiver<()>)>);

impl Service for Stuck {
    fn name(&self) -> String {
        "Stuck()".to_owned()
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(StuckSession(self.0.lock().unwrap().take()))
    }
}

impl Session for StuckSession {
    fn bytes(&mut self, io: &mut dyn Io, _leg: Leg, input: &[u8]) -> SessionResult<usize> {
        if let Some((at, go_on)) = self.0.take() {
            at.send(()).unwrap();
            let _ = go_on.recv_timeout(PATIENCE);
        }
        Ok(io.write(Leg::Client, input))
    }
}

/// A server whose only worker stands still, its client, and what lets it go on.
fn stuck() -> (Server, TcpStream, Sender<()>) {
    let ((at, reached), (go_on, waits)) = (channel(), channel());
    let mut config = config(Stuck(Mutex::new(Some((at, waits)))));
    config.workers = Some(1);
    let server = start(config);
    let mut client = dial(server.address().unwrap());
    client.write_all(b"x").unwrap();
    reached.recv_timeout(PATIENCE).unwrap();
    (server, client, go_on)
}

/// A caller whose wait is interrupted, as by Ctrl-C.
struct Interrupted;

impl Waiter for Interrupted {
    fn wait(&mut self, _fds: &mut [PollFd], _deadline: Option<Instant>) -> Result<bool> {
        Err(Error::Interrupted)
    }
}

fn echoes(client: &mut TcpStream) -> Duration {
    let started = Instant::now();
    client.write_all(b"y").unwrap();
    let mut got = [0];
    client.read_exact(&mut got).unwrap();
    started.elapsed()
}

#[test]
fn an_interrupted_add_leaves_no_fault_and_an_interrupted_removal_neither() {
    let (server, mut client, go_on) = stuck();
    let added = server.add_fault(latency(3600.0), &mut Interrupted);
    assert!(matches!(added, Err(Error::Interrupted)));
    assert!(server.faults().list().is_empty());
    go_on.send(()).unwrap();
    client.read_exact(&mut [0]).unwrap();
    assert!(echoes(&mut client) < PATIENCE);
    stop(&server);

    let (server, mut client, go_on) = stuck();
    let adding = server.faults().add(latency(3600.0), 0);
    let removed = server.remove_faults(&[adding.id], &mut Interrupted);
    assert!(matches!(removed, Err(Error::Interrupted)));
    assert!(server.faults().list().is_empty());
    go_on.send(()).unwrap();
    client.read_exact(&mut [0]).unwrap();
    // The object is as usable as before.
    let fault = server.add_fault(latency(0.05), &mut Plain).unwrap();
    assert!(echoes(&mut client) >= 50 * MS);
    server.remove_faults(&[fault.id], &mut Plain).unwrap();
    assert!(echoes(&mut client) < PATIENCE);
    stop(&server);
}

#[test]
fn a_change_returns_when_the_worker_has_noticed_and_no_earlier() {
    let (server, mut client, go_on) = stuck();
    let server = Arc::new(server);
    let (done, finished) = channel();
    let adding = {
        let server = Arc::clone(&server);
        thread::spawn(move || {
            let added = server.add_fault(latency(0.05), &mut Plain).unwrap();
            done.send(()).unwrap();
            added.fault.label.connections()
        })
    };
    until("the set has it", || server.faults().list().len() == 1);
    assert!(finished.recv_timeout(50 * MS).is_err(), "the worker stands still");
    go_on.send(()).unwrap();
    finished.recv_timeout(PATIENCE).unwrap();
    assert_eq!(adding.join().unwrap(), 1);
    client.read_exact(&mut [0]).unwrap();
    assert!(echoes(&mut client) >= 50 * MS);
    stop(&server);
}

#[test]
fn two_changes_at_once_both_return_in_a_stop() {
    let (server, client, go_on) = stuck();
    let server = Arc::new(server);
    let changing: Vec<_> = (0..2)
        .map(|_| {
            let server = Arc::clone(&server);
            thread::spawn(move || server.add_fault(latency(3600.0), &mut Plain).is_ok())
        })
        .collect();
    until("the set has both", || server.faults().list().len() == 2);
    server.begin_stop(Cause::Stop);
    go_on.send(()).unwrap();
    server.stop(Some(Duration::ZERO), Cause::Stop, &mut Plain).unwrap();
    for thread in changing {
        thread.join().unwrap();
    }
    let again = server.add_fault(latency(0.0), &mut Plain).map(drop);
    assert!(matches!(again, Err(Error::State { .. })), "{again:?}");
    server.remove_faults(&[0, 1], &mut Plain).unwrap();
    assert!(server.faults().list().is_empty());
    drop(client);
}

#[test]
fn a_fault_of_what_a_finished_session_has_sent_can_be_removed() {
    // The session closes at once, and lingers: what it has sent is held.
    struct Goodbye;
    impl Service for Goodbye {
        fn name(&self) -> String {
            "Goodbye()".to_owned()
        }
        fn open(&self, _peer: &Peer) -> Box<dyn Session> {
            struct Closing;
            impl Session for Closing {
                fn open(&mut self, io: &mut dyn Io) -> SessionResult {
                    io.write(Leg::Client, b"goodbye");
                    io.close();
                    Ok(())
                }
            }
            Box::new(Closing)
        }
    }
    let server = start(config(Goodbye));
    let fault = server.add_fault(latency(3600.0), &mut Plain).unwrap();
    let mut client = dial(server.address().unwrap());
    open(&server.ledger(), 1);
    until("it is held", || fault.fault.label.events() == 1);
    server.remove_faults(&[fault.id], &mut Plain).unwrap();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"goodbye");
    stop(&server);
}

#[test]
fn a_connection_is_as_one_without_faults_once_they_are_gone() {
    let server = echo();
    let mut client = dial(server.address().unwrap());
    assert!(echoes(&mut client) < PATIENCE);
    for round in 0..100 {
        let fault = server.add_fault(latency(0.0002), &mut Plain).unwrap();
        if round % 2 == 0 {
            client.write_all(b"z").unwrap();
        }
        server.remove_faults(&[fault.id], &mut Plain).unwrap();
        if round % 2 == 0 {
            client.read_exact(&mut [0]).unwrap();
        }
        assert_eq!(fault.fault.label.connections(), 1);
    }
    assert!(echoes(&mut client) < PATIENCE);
    let record = &server.ledger().open_records()[0];
    until("all is counted", || (record.received().bytes, record.sent().bytes) == (52, 52));
    stop(&server);
}

// --- chains, with a clock of the test's own ----------------------------------------------------

struct Rig {
    faults: FaultSet,
    chain: Chain,
    subject: Subject,
}

impl Rig {
    fn new(now: Instant) -> Self {
        let role = _rsock::net::ledger::Role::Server;
        let subject =
            Subject { connection: 1, role, opened: now, datagrams: false, high_water: 65_536 };
        let mut chain = Chain::new(Vec::new());
        chain.open(now, None).unwrap();
        Self { faults: FaultSet::new(1, 65_536), chain, subject }
    }

    fn add(&mut self, now: Instant, fault: Fault) -> u64 {
        let id = self.faults.add(fault, 0).id;
        self.faults.update_of(&mut self.chain, &self.subject, now).unwrap();
        id
    }

    fn remove(&mut self, now: Instant, id: u64) {
        self.faults.remove(id);
        self.faults.update_of(&mut self.chain, &self.subject, now).unwrap();
    }

    /// What has left it for the socket.
    fn out(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(event) = self.chain.next_outbound() {
            let (text, count) = match event {
                Outbound::Bytes(bytes) => {
                    (String::from_utf8_lossy(bytes).into_owned(), bytes.len())
                }
                Outbound::End => ("end".to_owned(), 0),
                Outbound::Reset => ("reset".to_owned(), 0),
            };
            all.push(text);
            self.chain.consume_outbound(count);
        }
        all
    }

    fn send(&mut self, now: Instant, bytes: &[u8]) {
        self.chain.outbound(now, Outbound::Bytes(bytes)).unwrap();
    }
}

#[test]
fn what_a_fault_holds_goes_on_although_another_one_has_ended_the_connection() {
    let now = Instant::now();
    let mut rig = Rig::new(now);
    let below = rig.add(now, latency(3600.0));
    let ending = rig.add(now, fault("close", &[("after_bytes", 3.0)], None));
    rig.send(now, b"abcdef");
    assert!(rig.chain.has_end());
    assert_eq!(rig.out(), [""; 0], "the latency holds all of it");
    rig.remove(now, below);
    assert_eq!(rig.out(), ["abc", "end"]);
    // The one that has ended it stays, without an effect: nothing more goes through it.
    rig.remove(now, ending);
    rig.send(now, b"ghi");
    assert_eq!(rig.out(), [""; 0]);
}

#[test]
fn a_connection_that_a_fault_has_ended_gets_no_other_one_and_is_not_counted() {
    let now = Instant::now();
    let mut rig = Rig::new(now);
    rig.add(now, fault("reset", &[("after_bytes", 0.0)], None));
    let late = rig.add(now, latency(1.0));
    let label = |id: u64| {
        let list = rig.faults.list();
        let one = list.iter().find(|one| one.id == id).unwrap();
        one.fault.label.connections()
    };
    assert_eq!((label(0), label(late)), (1, 0));
    assert_eq!(rig.chain.held(Direction::Outbound), 0);
}

#[test]
fn a_fault_whose_time_is_over_never_begins() {
    let now = Instant::now();
    let mut rig = Rig::new(now);
    // Two seconds into the connection, a fault of its first second.
    let later = now + 2000 * MS;
    rig.add(later, fault("reset", &[("after_bytes", 0.0)], Some((0.0, 1.0))));
    assert!(!rig.chain.has_end());
    rig.send(later, b"on");
    rig.chain.inbound(later, Inbound::Bytes(b"in")).unwrap();
    assert_eq!(rig.out(), ["on"]);
    assert_eq!(rig.chain.next_call(), None);
}

#[test]
fn faults_are_removed_from_any_place_of_the_chain() {
    let now = Instant::now();
    for gone in 0..3 {
        let mut rig = Rig::new(now);
        for _ in 0..3 {
            rig.add(now, latency(1.0));
        }
        rig.send(now, b"a");
        rig.chain.turn(now + 1000 * MS).unwrap();
        rig.send(now + 1000 * MS, b"b");
        rig.remove(now + 1000 * MS, gone);
        rig.send(now + 1000 * MS, b"c");
        for seconds in 2..=5 {
            rig.chain.turn(now + seconds * 1000 * MS).unwrap();
        }
        assert_eq!(rig.out().concat(), "abc", "without the one with number {gone}");
        assert_eq!(rig.chain.held(Direction::Outbound), 0);
    }
}
