//! Forward, with bytes alone: which addresses it tries, what it says of each, when it gives up.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::sync::Arc;
use std::time::Duration;

use _rsock::net::address::{Endpoint, Target};
use _rsock::net::base::{Plain, Waiter};
use _rsock::net::error::{Error, Result as NetResult};
use _rsock::net::service::{Drain, Leg, Peer, Service, Session, Site};
use _rsock::net::services::{Forward, To};

use crate::fake_io::{FakeIo, peer};
use crate::support::{closed, config, rejection, start, stop, until};

const REFUSED: Result<(), i32> = Err(libc::ECONNREFUSED);
const TIMEOUT: Duration = Duration::from_secs(8);

fn site(local: &str) -> Site {
    Site { server: 1, local: Endpoint::tcp(local.parse().unwrap()), dual_stack: true }
}

fn to(host: &str, port: u16) -> Forward {
    Forward::new(To::Host(Target::new(host, port).unwrap()), TIMEOUT, None).unwrap()
}

/// What a server at 127.0.0.1:7 would serve with.
fn prepared(forward: &Forward) -> Arc<dyn Service> {
    forward.prepare(&site("127.0.0.1:7"), &mut Plain).unwrap().expect("a service of its own")
}

fn opened(forward: &Forward) -> (Box<dyn Session>, FakeIo) {
    let mut session = prepared(forward).open(&peer());
    let mut io = FakeIo::default();
    session.open(&mut io).unwrap();
    (session, io)
}

#[test]
fn both_directions_are_pipes_once_the_target_is_reached() {
    let (mut session, mut io) = opened(&to("192.0.2.1", 80));
    assert_eq!(io.connects, [Endpoint::tcp("192.0.2.1:80".parse().unwrap())]);
    assert_eq!(io.paused, [Leg::Client], "nothing is read before there is somewhere to send it");
    assert!(io.pipes.is_empty());
    assert!(io.timers[&0] <= TIMEOUT && io.timers[&0] > TIMEOUT / 2);
    session.connected(&mut io, Ok(())).unwrap();
    assert_eq!(io.pipes, [(Leg::Client, Leg::Upstream), (Leg::Upstream, Leg::Client)]);
    assert!(io.paused.is_empty() && io.timers.is_empty());
    assert_eq!(session.drain(&mut io).unwrap(), Drain::Answered);
}

#[test]
fn a_refused_target_is_named_with_the_step() {
    let (mut session, mut io) = opened(&to("192.0.2.1", 80));
    let error = session.connected(&mut io, REFUSED).unwrap_err();
    assert_eq!(error.0, "connect 192.0.2.1:80: Connection refused");
}

#[test]
fn a_target_that_does_not_answer_is_given_up() {
    let (mut session, mut io) = opened(&to("192.0.2.1", 80));
    let error = session.timer(&mut io, 0).unwrap_err();
    assert_eq!(error.0, "connect 192.0.2.1:80: timed out");
}

#[test]
fn the_addresses_of_a_name_are_tried_in_turn_each_with_its_share_of_the_time() {
    let forward = to("localhost", 80);
    let known = prepared(&forward).leads_to();
    let (mut session, mut io) = opened(&forward);
    for tried in 1..known.len() {
        assert!(io.timers[&0] <= TIMEOUT / (known.len() - tried + 1) as u32);
        session.connected(&mut io, REFUSED).unwrap();
    }
    assert_eq!(io.connects, known);
    // After the last one the resolver is asked, which has no other address: the first failure is
    // told. An answer of a second ago will do, so it is there at once.
    session.connected(&mut io, REFUSED).unwrap();
    assert!(io.timers[&0] <= TIMEOUT);
    until("the resolver has answered", || io.notifies.count() == 1);
    let error = session.wake(&mut io).unwrap_err();
    assert_eq!(error.0, format!("connect {}: Connection refused", known[0]));
    assert_eq!(io.connects, known, "none is tried twice");
}

#[test]
fn a_target_that_leads_back_is_refused_before_anything_is_opened() {
    let back = [
        ("127.0.0.1", "127.0.0.1:7"),
        ("::ffff:127.0.0.1", "127.0.0.1:7"),
        ("localhost", "127.0.0.1:7"),
        ("127.0.0.1", "0.0.0.0:7"),
        ("127.0.0.2", "0.0.0.0:7"),
        ("0.0.0.0", "127.0.0.1:7"),
        ("127.0.0.1", "[::]:7"),
        ("::1", "[::]:7"),
        ("::", "[::1]:7"),
    ];
    for (target, own) in back {
        let refused = to(target, 7).prepare(&site(own), &mut Plain);
        assert!(matches!(refused, Err(Error::Value(_))), "{target} from {own}");
    }
    let forth = [
        ("127.0.0.2", 7, "127.0.0.1:7"),
        ("127.0.0.1", 8, "0.0.0.0:7"),
        ("192.0.2.1", 7, "0.0.0.0:7"),
    ];
    for (target, port, own) in forth {
        assert!(to(target, port).prepare(&site(own), &mut Plain).is_ok(), "{target} from {own}");
    }
    // Between the families it is a bridge, and no loop.
    let only_v6 = Site { dual_stack: false, ..site("[::]:7") };
    assert!(to("127.0.0.1", 7).prepare(&only_v6, &mut Plain).is_ok());
}

#[test]
fn a_connection_that_comes_back_at_run_time_is_not_passed_on() {
    let service = prepared(&to("127.0.0.3", 80));
    let mut session = service.open(&peer());
    let mut io = FakeIo::default();
    session.open(&mut io).unwrap();
    // As if what it has opened, from 127.0.0.1:50000, had reached the server by a way around.
    let mut again = peer();
    again.remote = Endpoint::tcp(SocketAddr::from(([127, 0, 0, 1], 50_000)));
    again.local = io.connects[0].clone();
    let error = service.open(&again).open(&mut FakeIo::default()).unwrap_err();
    assert!(error.0.contains("came back"), "{}", error.0);
    // Another forwarder may pass it on, and what that one opens is still known.
    let second = prepared(&to("127.0.0.4", 80));
    let mut passing = second.open(&again);
    let mut onward = FakeIo::default();
    passing.open(&mut onward).unwrap();
    let mut back = peer();
    back.remote = Endpoint::tcp(SocketAddr::from(([127, 0, 0, 1], 50_000)));
    back.local = onward.connects[0].clone();
    assert!(service.open(&back).open(&mut FakeIo::default()).is_err());
    // With the sessions, what is known of them ends.
    drop((session, passing));
    assert!(service.open(&back).open(&mut FakeIo::default()).is_ok());
}

#[test]
fn a_port_without_a_listener_is_no_target() {
    let target = To::Host(Target::new("127.0.0.1", 0).unwrap());
    assert!(matches!(Forward::new(target, TIMEOUT, None), Err(Error::Value(_))));
}

#[test]
fn a_name_without_an_address_is_the_resolvers_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let site =
        Site { server: 1, local: Endpoint::tcp(listener.local_addr().unwrap()), dual_stack: true };
    let forward = to("no-such-host.invalid", 80);
    assert!(matches!(forward.prepare(&site, &mut Plain), Err(Error::Resolve { .. })));
}

/// A forwarder that is told that it is somewhere else, so that its start does not see where it
/// leads to.
struct Blind(Forward);

impl Service for Blind {
    fn name(&self) -> String {
        self.0.name()
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        unreachable!("the forwarder serves by itself")
    }

    fn prepare(
        &self,
        _site: &Site,
        waiter: &mut dyn Waiter,
    ) -> NetResult<Option<Arc<dyn Service>>> {
        self.0.prepare(&site("192.0.2.9:9"), waiter)
    }
}

#[test]
fn a_circle_that_no_start_has_seen_is_cut_in_its_first_round() {
    let listeners: Vec<_> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<_> =
        listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    let servers: Vec<_> = listeners
        .into_iter()
        .enumerate()
        .map(|(number, listener)| {
            let mut config = config(Blind(to("127.0.0.1", ports[1 - number])));
            config.fd = Some(listener.into_raw_fd());
            start(config)
        })
        .collect();
    assert_eq!(rejection(servers[0].address().unwrap()), std::io::ErrorKind::ConnectionReset);
    let accepted = servers.iter().map(|server| {
        closed(&server.ledger(), 1);
        server.ledger().totals().accepted
    });
    // To the second, and back to the first, which knows it.
    assert_eq!(accepted.sum::<u64>(), 3);
    let came_back = servers.iter().any(|server| {
        let records = server.ledger().records();
        records.iter().any(|record| record.error().is_some_and(|text| text.contains("came back")))
    });
    assert!(came_back);
    for server in &servers {
        stop(server);
    }
}

crate::support::through_stages! {
    a_circle_that_no_start_has_seen_is_cut_in_its_first_round,
}
