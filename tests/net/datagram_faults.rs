//! The faults of datagrams alone, in a chain with a clock of the test's own: no test here waits, nor
//! opens a socket.

use std::time::{Duration, Instant};

use _rsock::net::ledger::Role;
use _rsock::net::stage::faults::{Connections, Fault, FaultSet, Params, Scope, Subject, Value};
use _rsock::net::stage::{Chain, Direction, Outbound};

/// The longest time that Reorder holds a datagram back.
const LONGEST: Duration = Duration::from_millis(100);

/// A peer of a datagram server, with one fault on what it is sent.
struct Peer {
    chain: Chain,
    faults: FaultSet,
    subject: Subject,
}

fn fault(name: &str, params: &[(&str, f64)]) -> _rsock::net::error::Result<Fault> {
    let mut values = Params::default();
    params.iter().for_each(|&(name, value)| values.set(name, Value::Number(value)));
    let (connections, window) = (Connections::All, None);
    let scope = Scope { up: false, down: true, probability: 1.0, connections, window };
    Fault::new(name, &values, scope, name)
}

impl Peer {
    fn new(name: &str, params: &[(&str, f64)], seed: u64) -> Self {
        let opened = Instant::now();
        let faults = FaultSet::new(seed, 64 * 1024);
        faults.add(fault(name, params).unwrap(), 0);
        let subject = Subject {
            connection: 1,
            role: Role::Server,
            opened,
            datagrams: true,
            high_water: 64 * 1024,
        };
        let mut peer = Self { chain: Chain::of_datagrams(), faults, subject };
        peer.chain.open(opened, None).unwrap();
        peer.update(opened);
        peer
    }

    /// Gives the chain the faults that the set has now.
    fn update(&mut self, now: Instant) {
        self.faults.update_of(&mut self.chain, &self.subject, now).unwrap();
    }

    /// Sends datagrams that are numbers, and returns those that leave the chain.
    fn send(&mut self, now: Instant, numbers: std::ops::Range<u32>) -> Vec<u32> {
        let mut all = Vec::new();
        for number in numbers {
            self.chain.outbound(now, Outbound::Bytes(&number.to_be_bytes())).unwrap();
            all.append(&mut self.leaving());
        }
        all
    }

    /// What leaves the chain at a time.
    fn turn(&mut self, now: Instant) -> Vec<u32> {
        self.chain.turn(now).unwrap();
        self.leaving()
    }

    fn leaving(&mut self) -> Vec<u32> {
        let mut all = Vec::new();
        while let Some(Outbound::Bytes(bytes)) = self.chain.next_outbound() {
            let length = bytes.len();
            all.push(u32::from_be_bytes(bytes.try_into().expect("a whole datagram")));
            self.chain.consume_outbound(length);
        }
        all
    }

    /// What the fault has noted, as (action, number of the datagram).
    fn notes(&mut self) -> Vec<(&'static str, u64)> {
        self.chain.take_notes().iter().map(|event| (event.action, event.offset)).collect()
    }

    /// Datagrams that are held.
    fn parts(&self) -> usize {
        self.chain.parts(Direction::Outbound)
    }
}

#[test]
fn the_seed_alone_chooses_what_is_lost() {
    let now = Instant::now();
    let sent = |seed| Peer::new("drop", &[("rate", 0.3)], seed).send(now, 0..1000);
    let kept = sent(7);
    assert!((650..750).contains(&kept.len()), "{}", kept.len());
    assert!(kept.is_sorted());
    assert_eq!(sent(7), kept);
    assert_ne!(sent(8), kept);
}

#[test]
fn a_rate_of_0_loses_none_and_a_rate_of_1_all() {
    let now = Instant::now();
    assert_eq!(Peer::new("drop", &[("rate", 0.0)], 1).send(now, 0..50).len(), 50);
    let mut all = Peer::new("drop", &[("rate", 1.0)], 1);
    assert!(all.send(now, 0..3).is_empty());
    assert_eq!(all.notes(), [("dropped", 0), ("dropped", 1), ("dropped", 2)]);
    assert_eq!(all.parts(), 0);
}

#[test]
fn a_second_copy_follows_the_first() {
    let mut peer = Peer::new("duplicate", &[("rate", 1.0)], 1);
    assert_eq!(peer.send(Instant::now(), 0..3), [0, 0, 1, 1, 2, 2]);
    assert_eq!(peer.notes(), [("duplicated", 0), ("duplicated", 1), ("duplicated", 2)]);
}

#[test]
fn the_seed_alone_chooses_the_datagrams_that_arrive_twice() {
    let sent = |seed| {
        let mut peer = Peer::new("duplicate", &[("rate", 0.2)], seed);
        peer.send(Instant::now(), 0..1000)
    };
    let all = sent(3);
    assert!((1150..1250).contains(&all.len()), "{}", all.len());
    assert_eq!(sent(3), all);
    assert_ne!(sent(4), all);
}

fn reorder(rate: f64, window: u64, seed: u64) -> Peer {
    Peer::new("reorder", &[("rate", rate), ("window", window as f64)], seed)
}

/// A peer whose first datagram alone is held back among the first ten.
fn first_alone() -> Peer {
    let alone = |seed: &u64| {
        let sent = reorder(0.1, 2, *seed).send(Instant::now(), 0..10);
        sent == [1, 2, 0, 3, 4, 5, 6, 7, 8, 9]
    };
    reorder(0.1, 2, (0..10_000).find(alone).expect("a seed with one draw in ten"))
}

#[test]
fn a_datagram_is_overtaken_by_as_many_as_the_window_says() {
    let mut peer = first_alone();
    let now = Instant::now();
    assert!(peer.send(now, 0..1).is_empty());
    assert_eq!((peer.parts(), peer.notes()), (1, vec![]));
    assert_eq!(peer.send(now, 1..2), [1]);
    assert_eq!(peer.notes(), [("reordered", 0)], "once it is overtaken");
    assert_eq!(peer.send(now, 2..4), [2, 0, 3]);
    assert_eq!((peer.parts(), peer.notes()), (0, vec![]));
}

#[test]
fn a_datagram_that_none_follows_goes_on_after_its_time() {
    let mut peer = first_alone();
    let now = Instant::now();
    assert!(peer.send(now, 0..1).is_empty());
    let due = now + LONGEST;
    assert_eq!(peer.chain.next_call(), Some(due));
    assert!(peer.turn(due - Duration::from_millis(1)).is_empty());
    assert_eq!(peer.turn(due), [0]);
    assert_eq!((peer.chain.next_call(), peer.notes()), (None, vec![]), "none overtook it");
}

#[test]
fn one_that_arrives_after_that_time_does_not_overtake_it() {
    let mut peer = first_alone();
    let now = Instant::now();
    assert!(peer.send(now, 0..1).is_empty());
    assert_eq!(peer.send(now + LONGEST, 1..2), [0, 1]);
}

#[test]
fn none_is_lost_and_the_seed_alone_makes_the_order() {
    let now = Instant::now();
    let sent = |seed| {
        let mut peer = reorder(0.3, 3, seed);
        let mut all = peer.send(now, 0..1000);
        all.append(&mut peer.turn(now + LONGEST));
        all
    };
    let all = sent(5);
    let mut sorted = all.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
    assert_ne!(sorted, all);
    let late = |(at, &number): (usize, &u32)| at as i64 - i64::from(number);
    assert!(all.iter().enumerate().map(late).max() <= Some(3), "the window bounds it");
    assert_eq!(sent(5), all);
    assert_ne!(sent(6), all);
}

#[test]
fn where_all_are_held_back_none_is_overtaken() {
    let mut peer = reorder(1.0, 3, 1);
    let now = Instant::now();
    assert_eq!(peer.send(now, 0..6), [0, 1, 2]);
    assert_eq!(peer.turn(now + LONGEST), [3, 4, 5]);
    assert!(peer.notes().is_empty());
}

#[test]
fn what_is_held_goes_on_in_order_when_the_fault_is_removed() {
    let mut peer = reorder(1.0, 10, 1);
    let now = Instant::now();
    assert!(peer.send(now, 0..4).is_empty());
    assert!(peer.faults.remove(0));
    peer.update(now);
    assert_eq!(peer.turn(now), [0, 1, 2, 3]);
    assert_eq!(peer.send(now, 4..6), [4, 5]);
}

#[test]
fn an_empty_datagram_is_held_as_well() {
    let mut peer = reorder(1.0, 1, 1);
    let now = Instant::now();
    peer.chain.outbound(now, Outbound::Bytes(b"")).unwrap();
    assert_eq!((peer.parts(), peer.chain.is_owed()), (1, true));
}

#[test]
fn a_window_of_0_is_refused() {
    let error = fault("reorder", &[("rate", 0.5), ("window", 0.0)]).unwrap_err();
    assert!(error.to_string().contains("window"));
}

#[test]
fn a_rate_that_is_none_is_refused() {
    for name in ["drop", "duplicate", "reorder"] {
        for params in [&[][..], &[("rate", 1.5)], &[("rate", -0.1)], &[("rate", f64::NAN)]] {
            let error = fault(name, params).unwrap_err();
            assert!(error.to_string().contains("rate"), "{name} {params:?}");
        }
    }
}

#[test]
fn a_paced_line_passes_whole_datagrams_and_counts_those_it_holds() {
    let mut peer = Peer::new("bandwidth", &[("bytes_per_second", 1000.0)], 1);
    let now = Instant::now();
    assert!(peer.send(now, 0..3).is_empty());
    peer.chain.outbound(now, Outbound::Bytes(b"")).unwrap();
    assert_eq!(peer.parts(), 4);
    let each = Duration::from_millis(4);
    assert_eq!(peer.turn(now + each), [0]);
    assert_eq!(peer.turn(now + 3 * each - Duration::from_micros(1)), [1]);
    peer.chain.turn(now + 3 * each).unwrap();
    let mut left = Vec::new();
    while let Some(Outbound::Bytes(bytes)) = peer.chain.next_outbound() {
        let bytes = bytes.to_vec();
        peer.chain.consume_outbound(bytes.len());
        left.push(bytes);
    }
    assert_eq!(left, [2_u32.to_be_bytes().to_vec(), Vec::new()]);
    assert_eq!(peer.parts(), 0);
}
