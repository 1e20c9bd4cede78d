//! A session without a socket: `FakeIo` is an `Io` that writes down what the session does, and
//! plays the engine's part by hand. Proof that the shapes need nothing but bytes, and what a
//! new service is tested with first.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use _rsock::net::address::Endpoint;
use _rsock::net::service::{Io, Leg, Notifier, Peer, Reply, Waker};

/// Counts the calls of a session's waker.
#[derive(Default)]
pub struct Rings(AtomicU64);

impl Rings {
    pub fn count(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

impl Notifier for Rings {
    fn notify(&self, _token: u64) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// What a session did.
#[derive(Default)]
pub struct FakeIo {
    pub near: Vec<u8>,
    pub far: Vec<u8>,
    /// How many bytes `write` still takes, on both legs together; None is no bound.
    pub room: Option<usize>,
    pub pipes: Vec<(Leg, Leg)>,
    pub paused: Vec<Leg>,
    pub shut: Vec<Leg>,
    pub closed: bool,
    pub aborted: bool,
    pub finished_input: bool,
    pub undelivered: bool,
    pub timers: BTreeMap<u32, Duration>,
    pub connects: Vec<Endpoint>,
    pub notifies: Arc<Rings>,
    /// Called before the peer can notice what the session does: a write, an end, a reset.
    pub before: Option<Box<dyn FnMut()>>,
}

impl FakeIo {
    fn call_before(&mut self) {
        if let Some(before) = &mut self.before {
            before();
        }
    }
}

impl Io for FakeIo {
    fn write(&mut self, leg: Leg, data: &[u8]) -> usize {
        self.call_before();
        let taken = self.room.map_or(data.len(), |room| room.min(data.len()));
        if let Some(room) = &mut self.room {
            *room -= taken;
        }
        let sent = if leg == Leg::Client { &mut self.near } else { &mut self.far };
        sent.extend_from_slice(&data[..taken]);
        taken
    }

    fn pipe(&mut self, from: Leg, to: Leg) {
        self.pipes.push((from, to));
    }

    fn pause(&mut self, leg: Leg) {
        self.paused.push(leg);
    }

    fn resume(&mut self, leg: Leg) {
        self.paused.retain(|&paused| paused != leg);
    }

    fn shut_write(&mut self, leg: Leg) {
        self.call_before();
        self.shut.push(leg);
    }

    fn close(&mut self) {
        self.call_before();
        self.closed = true;
    }

    fn abort(&mut self) {
        self.call_before();
        self.aborted = true;
    }

    fn finish_input(&mut self) {
        self.finished_input = true;
    }

    fn abandon(&mut self) {}

    fn has_undelivered(&self) -> bool {
        self.undelivered
    }

    fn set_timer(&mut self, key: u32, after: Option<Duration>) {
        match after {
            Some(after) => self.timers.insert(key, after),
            None => self.timers.remove(&key),
        };
    }

    fn connect(&mut self, target: Endpoint) {
        self.connects.push(target);
    }

    fn local(&self, leg: Leg) -> Option<Endpoint> {
        let port = if leg == Leg::Client { 7 } else { 50_000 };
        let there = leg == Leg::Client || !self.connects.is_empty();
        there.then(|| Endpoint::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port))))
    }

    fn waker(&mut self) -> Waker {
        Waker::new(Arc::clone(&self.notifies) as Arc<dyn Notifier>, 7)
    }
}

/// What a service answered to datagrams.
#[derive(Default)]
pub struct Replies {
    pub sent: Vec<Vec<u8>>,
    /// What `is_cut` says of the datagram at hand.
    pub cut: bool,
}

impl Reply for Replies {
    fn send(&mut self, data: &[u8]) {
        self.sent.push(data.to_vec());
    }

    fn is_cut(&self) -> bool {
        self.cut
    }
}

/// A peer to open a session for.
pub fn peer() -> Peer {
    let at = |port| Endpoint::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let tlvs = Vec::new();
    Peer { id: 1, local: at(7), remote: at(40_000), proxy: None, tlvs, line: 65_536 }
}
