//! The kinds of faults, each in a chain with bytes alone and a clock of the test's own: no test
//! here waits, nor opens a socket.

use std::time::{Duration, Instant};

use _rsock::net::ledger::{ClosedBy, FaultEvent, Role};
use _rsock::net::stage::faults::{
    Connections, Fault, FaultSet, Params, Scope, Subject, Value, Window,
};
use _rsock::net::stage::{Chain, Direction, Inbound, Outbound};

use crate::support::noise;

const HIGH_WATER: usize = 64 * 1024;
const MS: Duration = Duration::from_millis(1);

/// A chain of a server's connection with faults, its clock, and what has left it.
struct Rig {
    faults: FaultSet,
    chain: Chain,
    subject: Subject,
    started: Instant,
    now: Instant,
    left: Vec<(u64, Direction, Vec<u8>)>,
    /// The ends, in words, among the chunks.
    ends: Vec<(u64, Direction, &'static str)>,
    events: Vec<FaultEvent>,
}

#[derive(Clone, Copy)]
enum On {
    Down,
    Up,
    Both,
}

fn scope(on: On) -> Scope {
    Scope {
        up: matches!(on, On::Up | On::Both),
        down: matches!(on, On::Down | On::Both),
        probability: 1.0,
        connections: Connections::All,
        window: None,
    }
}

fn number(value: impl Into<f64>) -> Value {
    Value::Number(value.into())
}

fn fault(name: &str, params: &[(&str, Value)], scope: Scope) -> Fault {
    let mut all = Params::default();
    params.iter().for_each(|(name, value)| all.set(name, value.clone()));
    Fault::new(name, &all, scope, name).unwrap()
}

impl Rig {
    fn new(faults: Vec<Fault>) -> Self {
        Self::seeded(1, faults)
    }

    fn seeded(seed: u64, faults: Vec<Fault>) -> Self {
        let started = Instant::now();
        let subject = Subject {
            connection: 1,
            role: Role::Server,
            opened: started,
            datagrams: false,
            high_water: HIGH_WATER,
        };
        let mut rig = Self {
            faults: FaultSet::new(seed, HIGH_WATER),
            chain: Chain::new(Vec::new()),
            subject,
            started,
            now: started,
            left: Vec::new(),
            ends: Vec::new(),
            events: Vec::new(),
        };
        faults.into_iter().for_each(|fault| drop(rig.faults.add(fault, 0)));
        rig.update();
        rig.chain.open(started, None).unwrap();
        rig.collect();
        rig
    }

    /// One fault that acts on what the server sends.
    fn down(name: &str, params: &[(&str, Value)]) -> Self {
        Self::new(vec![fault(name, params, scope(On::Down))])
    }

    /// One fault that acts on what the client sends.
    fn up(name: &str, params: &[(&str, Value)]) -> Self {
        Self::new(vec![fault(name, params, scope(On::Up))])
    }

    fn both(name: &str, params: &[(&str, Value)]) -> Self {
        Self::new(vec![fault(name, params, scope(On::Both))])
    }

    fn update(&mut self) {
        self.faults.update_of(&mut self.chain, &self.subject, self.now).unwrap();
        self.collect();
    }

    fn remove(&mut self, number: u64) {
        assert!(self.faults.remove(number));
        self.update();
    }

    /// Takes what has left the chain.
    fn collect(&mut self) {
        let at = (self.now - self.started).as_micros() as u64;
        while let Some(event) = self.chain.next_inbound() {
            let count = if let Inbound::Bytes(bytes) = event { bytes.len() } else { 0 };
            match event {
                Inbound::Bytes(bytes) => self.left.push((at, Direction::Inbound, bytes.to_vec())),
                Inbound::End => self.ends.push((at, Direction::Inbound, "end")),
                Inbound::Error(_) => self.ends.push((at, Direction::Inbound, "error")),
            }
            self.chain.consume_inbound(count);
        }
        while let Some(event) = self.chain.next_outbound() {
            let count = if let Outbound::Bytes(bytes) = event { bytes.len() } else { 0 };
            match event {
                Outbound::Bytes(bytes) => self.left.push((at, Direction::Outbound, bytes.to_vec())),
                Outbound::End => self.ends.push((at, Direction::Outbound, "end")),
                Outbound::Reset => self.ends.push((at, Direction::Outbound, "reset")),
            }
            self.chain.consume_outbound(count);
        }
        self.events.extend(self.chain.take_notes());
    }

    /// Has the clock run to a time since the start, with every call that is due until then.
    fn at(&mut self, time: Duration) -> &mut Self {
        let end = self.started + time;
        assert!(end >= self.now, "the clock runs forwards");
        while let Some(next) = self.chain.next_call().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            self.chain.turn(self.now).unwrap();
            self.collect();
            let following = self.chain.next_call();
            assert!(following.is_none_or(|at| at > self.now), "a call is due again at once");
        }
        self.now = end;
        self
    }

    /// Runs every call that is due ever, up to ten days.
    fn run(&mut self) -> &mut Self {
        self.at(self.now - self.started + Duration::from_secs(864_000))
    }

    fn receives(&mut self, bytes: &[u8]) -> &mut Self {
        self.chain.inbound(self.now, Inbound::Bytes(bytes)).unwrap();
        self.collect();
        self
    }

    fn sends(&mut self, bytes: &[u8]) -> &mut Self {
        self.chain.outbound(self.now, Outbound::Bytes(bytes)).unwrap();
        self.collect();
        self
    }

    fn peer_ends(&mut self) -> &mut Self {
        self.chain.inbound(self.now, Inbound::End).unwrap();
        self.collect();
        self
    }

    fn peer_fails(&mut self) -> &mut Self {
        self.chain.inbound(self.now, Inbound::Error(libc::ECONNRESET)).unwrap();
        self.collect();
        self
    }

    fn ends(&mut self) -> &mut Self {
        self.chain.outbound(self.now, Outbound::End).unwrap();
        self.collect();
        self
    }

    fn aborts(&mut self) -> &mut Self {
        self.chain.outbound(self.now, Outbound::Reset).unwrap();
        self.collect();
        self
    }

    /// The bytes that have left in a direction.
    fn bytes(&self, direction: Direction) -> Vec<u8> {
        let of = self.left.iter().filter(|(_, way, _)| *way == direction);
        of.flat_map(|(.., bytes)| bytes.clone()).collect()
    }

    /// The chunks that have left for the socket, each with its time in milliseconds.
    fn out(&self) -> Vec<(u64, String)> {
        let of = self.left.iter().filter(|(_, way, _)| *way == Direction::Outbound);
        of.map(|(at, _, bytes)| (at / 1000, String::from_utf8_lossy(bytes).into())).collect()
    }

    /// The sizes of the chunks that have left for the socket.
    fn sizes(&self) -> Vec<usize> {
        let of = self.left.iter().filter(|(_, way, _)| *way == Direction::Outbound);
        of.map(|(.., bytes)| bytes.len()).collect()
    }

    /// The ends that have left, each with its time in milliseconds.
    fn ended(&self) -> Vec<(u64, Direction, &'static str)> {
        self.ends.iter().map(|&(at, way, end)| (at / 1000, way, end)).collect()
    }

    fn actions(&self) -> Vec<(&'static str, u64, u64)> {
        self.events.iter().map(|event| (event.action, event.offset, event.size)).collect()
    }

    fn held(&self, direction: Direction) -> usize {
        self.chain.held(direction)
    }
}

use Direction::{Inbound as In, Outbound as Out};

// --- latency ---------------------------------------------------------------------------------

#[test]
fn latency_delays_each_end_by_itself_and_behind_the_bytes() {
    let mut rig = Rig::both("latency", &[("seconds", number(0.1))]);
    rig.sends(b"out").receives(b"in").at(40 * MS).ends().peer_ends().at(60 * MS).peer_fails();
    assert!(rig.chain.is_owed());
    rig.run();
    assert_eq!(rig.left, [(100_000, In, b"in".to_vec()), (100_000, Out, b"out".to_vec())]);
    assert_eq!(rig.ended(), [(140, In, "end"), (140, Out, "end"), (160, In, "error")]);
    assert_eq!(rig.actions(), [("delayed", 0, 0), ("delayed", 0, 0)]);
    let mut rig = Rig::down("latency", &[("seconds", number(0.1))]);
    rig.sends(b"out").at(50 * MS).aborts().run();
    assert_eq!(rig.ended(), [(150, Out, "reset")]);
}

#[test]
fn latency_of_a_time_beyond_the_clock_holds_for_good() {
    let mut rig = Rig::down("latency", &[("seconds", number(1e300))]);
    rig.sends(b"never").run();
    assert_eq!((rig.left.len(), rig.held(Out)), (0, 5));
}

/// The delays of messages of `size` bytes, one at a time, in seconds.
fn delays(size: usize, params: &[(&str, Value)]) -> Vec<f64> {
    let mut rig = Rig::down("latency", params);
    (0..4000)
        .map(|_| {
            let sent = rig.now;
            rig.sends(&vec![7; size]).run();
            let (last, ..) = rig.left.drain(..).next_back().expect("it has gone");
            last as f64 / 1e6 - (sent - rig.started).as_secs_f64()
        })
        .collect()
}

#[test]
fn the_jitter_of_latency_has_its_distribution_whatever_the_size_of_messages() {
    for size in [1, 2, 50, 64, 1000, 64 * 1024] {
        for distribution in ["uniform", "normal", "lognormal"] {
            let delays = delays(
                size,
                &[
                    ("seconds", number(0.2)),
                    ("jitter", number(0.05)),
                    ("distribution", Value::Text(distribution.to_owned())),
                ],
            );
            let count = delays.len() as f64;
            let mean = delays.iter().sum::<f64>() / count;
            let spread =
                (delays.iter().map(|delay| (delay - mean).powi(2)).sum::<f64>() / count).sqrt();
            // A uniform distribution from -1 to 1 has a deviation of the root of 1/3.
            let wanted = if distribution == "uniform" { 0.05 / 3_f64.sqrt() } else { 0.05 };
            let what = format!("{distribution}, {size} bytes: {mean} ± {spread}");
            assert!((mean - 0.2).abs() < 0.004, "{what}");
            assert!((spread - wanted).abs() < 0.004, "{what}");
            if distribution == "uniform" {
                assert!(delays.iter().all(|delay| (0.149..0.251).contains(delay)), "{what}");
            }
            let differing = delays.windows(2).filter(|pair| pair[0] != pair[1]).count();
            assert!(differing > 3900, "each message has a draw of its own: {differing}, {what}");
        }
    }
}

#[test]
fn bytes_never_overtake_bytes_in_a_latency_with_jitter() {
    let params = [("seconds", number(0.1)), ("jitter", number(0.1))];
    let mut rig = Rig::down("latency", &params);
    let data = noise(30_000);
    for (index, chunk) in data.chunks(7).enumerate() {
        rig.at(index as u32 * MS / 10).sends(chunk);
    }
    rig.ends().run();
    assert!(rig.bytes(Out) == data);
    assert!(rig.ends[0].0 >= rig.left.last().unwrap().0);
}

// --- bandwidth -------------------------------------------------------------------------------

#[test]
fn bandwidth_lets_bytes_go_when_they_have_gone_through_the_line() {
    let mut rig = Rig::down("bandwidth", &[("bytes_per_second", number(1000))]);
    rig.sends(&[7; 25]).ends();
    assert_eq!((rig.held(Out), rig.left.len()), (25, 0), "nothing goes at once");
    rig.at(9 * MS);
    assert!(rig.left.is_empty());
    rig.at(10 * MS);
    assert_eq!(rig.sizes(), [10]);
    rig.at(24 * MS);
    assert_eq!(rig.sizes(), [10, 10]);
    assert!(rig.ended().is_empty() && rig.chain.is_owed(), "the end waits for the bytes");
    rig.at(25 * MS);
    assert_eq!(rig.sizes(), [10, 10, 5]);
    assert_eq!(rig.ended(), [(25, Out, "end")]);
    assert!(!rig.chain.is_owed() && rig.chain.next_call().is_none());
    assert_eq!(rig.actions(), [("slowed", 0, 0)], "noted once");
}

#[test]
fn bandwidth_is_exact_whatever_the_rate_and_the_chunks() {
    for rate in [100_u32, 1 << 10, 100_000, 10 << 20, 200 << 20] {
        for chunk in [1, 1000, 64 * 1024] {
            let seconds = 5;
            let total = (rate as usize * seconds).min(chunk * 20_000).min(8 << 20);
            let mut rig = Rig::down("bandwidth", &[("bytes_per_second", number(rate))]);
            let data = noise(total);
            let mut rest = &data[..];
            while !rest.is_empty() {
                // The sender goes on as soon as there is room.
                while rig.held(Out) < HIGH_WATER && !rest.is_empty() {
                    let (first, more) = rest.split_at(chunk.min(rest.len()));
                    rig.sends(first);
                    rest = more;
                }
                if let Some(next) = rig.chain.next_call() {
                    rig.at(next - rig.started);
                }
            }
            rig.run();
            assert!(rig.bytes(Out) == data, "rate {rate}, chunk {chunk}");
            let (last, ..) = *rig.left.last().unwrap();
            let wanted = total as f64 / f64::from(rate) * 1e6;
            let off = (last as f64 - wanted).abs();
            assert!(
                off <= wanted * 0.001 + 1.0,
                "rate {rate}, chunk {chunk}: {last} µs, not {wanted}"
            );
        }
    }
}

#[test]
fn bandwidth_makes_up_for_calls_that_come_late_but_not_for_silence() {
    let mut rig = Rig::down("bandwidth", &[("bytes_per_second", number(1000))]);
    rig.sends(&[7; 100]);
    // A thread that was kept waiting calls for the first time after 55 ms.
    rig.now += 55 * MS;
    rig.chain.turn(rig.now).unwrap();
    rig.collect();
    assert_eq!(rig.bytes(Out).len(), 50, "what had gone through by then");
    rig.at(100 * MS);
    assert_eq!(rig.bytes(Out).len(), 100);
    rig.at(500 * MS).sends(&[7; 10]).at(509 * MS);
    assert_eq!(rig.bytes(Out).len(), 100, "an unused line saves nothing up");
    rig.at(510 * MS);
    assert_eq!(rig.bytes(Out).len(), 110);
}

#[test]
fn what_bandwidth_holds_keeps_the_peer_from_being_read() {
    let mut rig = Rig::up("bandwidth", &[("bytes_per_second", number(1000))]);
    rig.receives(&[7; 1000]);
    assert_eq!((rig.chain.held(In), rig.chain.capacity(In)), (1000, 0));
    rig.at(500 * MS);
    assert_eq!(rig.chain.held(In), 500);
}

#[test]
fn a_removed_bandwidth_lets_go_of_what_it_holds_in_order() {
    let mut rig = Rig::down("bandwidth", &[("bytes_per_second", number(1000))]);
    let data = noise(500);
    for chunk in data.chunks(50) {
        rig.sends(chunk);
    }
    rig.ends().at(25 * MS).remove(0);
    assert!(rig.bytes(Out) == data);
    assert_eq!(rig.ended(), [(25, Out, "end")]);
    assert!(!rig.chain.is_owed() && rig.chain.next_call().is_none());
}

#[test]
fn a_shared_bandwidth_is_divided_fairly() {
    let faults = FaultSet::new(1, HIGH_WATER);
    let params = [("bytes_per_second", number(10_000)), ("shared", Value::Flag(true))];
    faults.add(fault("bandwidth", &params, scope(On::Down)), 0);
    let started = Instant::now();
    let mut chains: Vec<Chain> = (1..=4)
        .map(|connection| {
            let mut chain = Chain::new(Vec::new());
            let subject = Subject {
                connection,
                role: Role::Server,
                opened: started,
                datagrams: false,
                high_water: HIGH_WATER,
            };
            faults.update_of(&mut chain, &subject, started).unwrap();
            chain.open(started, None).unwrap();
            chain.outbound(started, Outbound::Bytes(&[7; 50_000])).unwrap();
            chain
        })
        .collect();
    let end = started + 1000 * MS;
    let mut counts = [0; 4];
    while let Some(now) = chains.iter().filter_map(Chain::next_call).min().filter(|&at| at <= end) {
        for (chain, count) in chains.iter_mut().zip(&mut counts) {
            chain.turn(now).unwrap();
            while let Some(Outbound::Bytes(bytes)) = chain.next_outbound() {
                let length = bytes.len();
                *count += length;
                chain.consume_outbound(length);
            }
        }
    }
    assert_eq!(counts.iter().sum::<usize>(), 10_000, "the line's rate");
    assert!(counts.iter().all(|count| count.abs_diff(2500) <= 100), "{counts:?}");
}

// --- slow reader -----------------------------------------------------------------------------

#[test]
fn a_slow_reader_takes_a_small_piece_at_a_time() {
    let mut rig = Rig::up("slowreader", &[("bytes_per_second", number(1000))]);
    assert_eq!(rig.chain.room(), 10);
    rig.receives(&[7; 10]);
    assert_eq!((rig.chain.room(), rig.held(In)), (0, 10));
    rig.at(9 * MS);
    assert_eq!(rig.chain.room(), 0);
    rig.at(10 * MS);
    assert_eq!((rig.chain.room(), rig.bytes(In).len()), (10, 10));
    rig.at(50 * MS).remove(0);
    assert_eq!(rig.chain.room(), usize::MAX);
}

#[test]
fn a_slow_reader_keeps_its_rate_although_it_is_called_late() {
    let mut rig = Rig::up("slowreader", &[("bytes_per_second", number(1000))]);
    // The peer has always more, and each call comes 3 ms late.
    for _ in 0..100 {
        let room = rig.chain.room();
        rig.receives(&vec![7; room]);
        let due = rig.chain.next_call().unwrap();
        rig.now = rig.now.max(due + 3 * MS);
        rig.chain.turn(rig.now).unwrap();
        rig.collect();
    }
    let elapsed = (rig.now - rig.started).as_millis() as usize;
    let passed = rig.bytes(In).len();
    assert!(passed <= elapsed && passed + 10 >= elapsed, "{passed} bytes in {elapsed} ms");
}

// --- slice -----------------------------------------------------------------------------------

#[test]
fn slice_cuts_at_the_same_places_however_the_stream_is_chunked() {
    let mut rig = Rig::down("slice", &[("size", number(4))]);
    rig.sends(b"abcdefghij").ends();
    let out = |rig: &Rig| rig.out().into_iter().map(|(_, text)| text).collect::<Vec<_>>();
    assert_eq!(out(&rig), ["abcd", "efgh", "ij"]);
    assert_eq!(rig.ended(), [(0, Out, "end")]);
    let mut rig = Rig::down("slice", &[("size", number(4))]);
    rig.sends(b"abc").sends(b"defghi").sends(b"j");
    assert_eq!(out(&rig), ["abc", "d", "efgh", "i", "j"], "a cut stays where it is");
    assert_eq!(rig.actions(), [("sliced", 0, 0)]);
}

#[test]
fn the_pieces_of_a_slice_vary_as_much_as_asked() {
    let params = [("size", number(100)), ("variation", number(20))];
    let cut = |seed, chunk: usize| {
        let mut rig = Rig::seeded(seed, vec![fault("slice", &params, scope(On::Down))]);
        for chunk in noise(100_000).chunks(chunk) {
            rig.sends(chunk);
        }
        assert!(rig.bytes(Out) == noise(100_000));
        let mut end = 0;
        let ends = rig.sizes().into_iter().map(|size| {
            end += size;
            end
        });
        ends.collect::<Vec<_>>()
    };
    let whole = cut(1, 100_000);
    let sizes: Vec<_> = whole.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The last piece is what is left.
    let sizes = &sizes[..sizes.len() - 1];
    assert!(sizes.iter().all(|size| (80..=120).contains(size)), "{sizes:?}");
    assert!(sizes.iter().any(|&size| size < 85) && sizes.iter().any(|&size| size > 115));
    let mean = sizes.iter().sum::<usize>() as f64 / sizes.len() as f64;
    assert!((mean - 100.0).abs() < 2.0, "{mean}");
    let bits = cut(1, 7);
    assert!(whole.iter().all(|end| bits.contains(end)), "the same cuts, and those of the chunks");
    assert_ne!(whole, cut(2, 100_000), "another seed cuts elsewhere");
}

#[test]
fn the_pieces_of_a_slice_follow_each_other_in_the_time_asked() {
    let params = [("size", number(2)), ("delay", number(0.01))];
    let mut rig = Rig::down("slice", &params);
    rig.sends(b"abcde").ends();
    assert_eq!(rig.held(Out), 3);
    rig.run();
    assert_eq!(rig.out(), [(0, "ab".into()), (10, "cd".into()), (20, "e".into())]);
    assert_eq!(rig.ended(), [(20, Out, "end")]);
    // Half a piece, then silence: its rest does not wait.
    let mut rig = Rig::down("slice", &params);
    rig.sends(b"a").at(1 * MS).sends(b"bc").run();
    assert_eq!(rig.out(), [(0, "a".into()), (1, "b".into()), (11, "c".into())]);
}

#[test]
fn a_removed_slice_lets_go_of_what_it_holds() {
    let mut rig = Rig::down("slice", &[("size", number(1)), ("delay", number(1))]);
    rig.sends(b"abc").ends().remove(0);
    assert_eq!(rig.out(), [(0, "a".into()), (0, "bc".into())]);
    assert_eq!(rig.ended(), [(0, Out, "end")]);
}

// --- ends: close, reset, truncate ------------------------------------------------------------

#[test]
fn a_connection_ends_at_the_byte_asked_however_the_stream_is_chunked() {
    for (name, end, action) in [("close", "end", "closed"), ("reset", "reset", "reset")] {
        for chunk in [1, 3, 5, 7, 100] {
            let mut rig = Rig::down(name, &[("after_bytes", number(5))]);
            for chunk in noise(100).chunks(chunk) {
                rig.sends(chunk);
            }
            assert!(rig.bytes(Out) == noise(5), "{name}, chunks of {chunk}");
            assert_eq!(rig.ended(), [(0, Out, end)]);
            assert_eq!(rig.actions(), [(action, 5, 0)]);
            let end = rig.chain.take_end().unwrap();
            assert_eq!((end.reset, end.delivered), (name == "reset", true));
            assert_eq!(end.by, ClosedBy::Fault(name));
            assert_eq!(end.error.as_deref(), Some(name));
        }
        let mut rig = Rig::up(name, &[("after_bytes", number(5))]);
        rig.receives(b"abc").sends(b"out").receives(b"defg");
        assert_eq!((rig.bytes(In), rig.bytes(Out)), (b"abcde".to_vec(), b"out".to_vec()));
        assert_eq!(rig.ended(), [(0, Out, end)], "the peer is told, whichever way had the bytes");
    }
}

#[test]
fn a_connection_ends_at_the_time_asked_also_when_it_is_idle() {
    for (name, end) in [("close", "end"), ("reset", "reset")] {
        let mut rig = Rig::both(name, &[("after_seconds", number(0.25))]);
        rig.at(100 * MS).sends(b"out").receives(b"in").at(249 * MS);
        assert!(rig.chain.take_end().is_none());
        rig.at(250 * MS);
        assert_eq!(rig.ended(), [(250, Out, end)]);
        assert_eq!(rig.events.len(), 1, "one end, not one for each way");
        assert!(!rig.chain.take_end().unwrap().delivered, "a time waits for nothing");
        assert!(rig.chain.next_call().is_none());
        let mut rig = Rig::both(name, &[("after_seconds", number(0.25))]);
        rig.at(200 * MS).remove(0);
        rig.run();
        assert!(rig.ended().is_empty(), "a removed one does nothing any more");
    }
}

#[test]
fn a_connection_that_ends_after_no_byte_ends_at_once_and_once() {
    for name in ["close", "reset"] {
        let mut rig = Rig::both(name, &[("after_bytes", number(0))]);
        assert_eq!((rig.ended().len(), rig.events.len()), (1, 1));
        rig.sends(b"never").receives(b"never");
        assert!(rig.left.is_empty());
    }
}

#[test]
fn what_ends_a_connection_counts_from_when_it_begins_to_act() {
    let window = |from| Some(Window { from, to: None });
    let act = Scope { window: window(100 * MS), ..scope(On::Down) };
    let mut rig = Rig::new(vec![fault("reset", &[("after_bytes", number(3))], act.clone())]);
    rig.sends(&[1; 50]).at(100 * MS).sends(b"abcdef");
    assert_eq!(rig.bytes(Out).len(), 53);
    let mut rig = Rig::new(vec![fault("reset", &[("after_seconds", number(0.1))], act)]);
    rig.run();
    assert_eq!(rig.ended(), [(200, Out, "reset")]);
}

#[test]
fn truncate_ends_one_direction_in_the_middle_and_throws_the_rest_away() {
    for chunk in [1, 2, 4, 10] {
        let mut rig = Rig::down("truncate", &[("after_bytes", number(4))]);
        for chunk in b"abcdefghij".chunks(chunk) {
            rig.sends(chunk);
        }
        rig.receives(b"in").peer_ends();
        assert_eq!((rig.bytes(Out), rig.bytes(In)), (b"abcd".to_vec(), b"in".to_vec()));
        assert_eq!(rig.ended(), [(0, Out, "end"), (0, In, "end")]);
        assert!(rig.chain.take_end().is_none() && !rig.chain.is_owed());
        assert_eq!(rig.actions(), [("truncated", 4, 0)]);
        rig.ends();
        assert_eq!(rig.ended().len(), 2, "it has ended already");
        rig.aborts();
        assert_eq!(rig.ended()[2], (0, Out, "reset"), "a reset is still one");
    }
    let mut rig = Rig::down("truncate", &[("after_bytes", number(0))]);
    assert_eq!(rig.ended(), [(0, Out, "end")]);
    rig.sends(b"never");
    assert!(rig.left.is_empty());
    let mut rig = Rig::down("truncate", &[("after_bytes", number(4))]);
    rig.sends(b"abc").ends();
    assert_eq!(
        (rig.bytes(Out), rig.ended(), rig.actions()),
        (b"abc".to_vec(), vec![(0, Out, "end")], vec![])
    );
}

// --- black hole ------------------------------------------------------------------------------

#[test]
fn a_black_hole_lets_everything_go_in_order_when_it_ends() {
    let params = [("after_seconds", number(0.1)), ("for_seconds", number(0.2))];
    let mut rig = Rig::both("blackhole", &params);
    rig.sends(b"before").at(100 * MS).sends(b"one").receives(b"in").at(150 * MS).sends(b"two");
    rig.ends().peer_ends();
    assert_eq!((rig.bytes(Out), rig.ended()), (b"before".to_vec(), vec![]));
    assert_eq!((rig.held(Out), rig.held(In)), (6, 2));
    assert!(rig.chain.is_owed() && !rig.chain.is_stuck(Out), "it goes on by itself");
    rig.at(299 * MS);
    assert_eq!(rig.left.len(), 1);
    rig.at(300 * MS);
    assert_eq!((rig.bytes(Out), rig.bytes(In)), (b"beforeonetwo".to_vec(), b"in".to_vec()));
    assert_eq!(rig.ended(), [(300, In, "end"), (300, Out, "end")]);
    assert_eq!(rig.actions(), [("held", 6, 0), ("held", 0, 0)]);
}

#[test]
fn a_black_hole_without_an_end_is_owed_to_no_one_and_lets_go_when_it_is_removed() {
    let mut rig = Rig::down("blackhole", &[]);
    rig.sends(b"one").ends().receives(b"in").run();
    assert!(rig.chain.is_stuck(Out) && !rig.chain.is_stuck(In) && !rig.chain.is_owed());
    assert_eq!((rig.bytes(Out), rig.bytes(In)), (vec![], b"in".to_vec()));
    assert_eq!((rig.held(Out), rig.chain.capacity(Out)), (3, 0), "the session has to wait");
    rig.remove(0);
    assert_eq!(rig.bytes(Out), b"one");
    assert_eq!(rig.ends[0].2, "end");
    let window = Some(Window { from: Duration::ZERO, to: Some(50 * MS) });
    let act = Scope { window, ..scope(On::Down) };
    let mut rig = Rig::new(vec![fault("blackhole", &[], act)]);
    rig.sends(b"one");
    assert!(rig.chain.is_owed() && !rig.chain.is_stuck(Out), "its window ends");
    rig.run();
    assert_eq!(rig.out(), [(50, "one".into())]);
}

// --- content: corrupt, garbage ---------------------------------------------------------------

#[test]
fn corrupt_changes_bytes_by_their_offset_and_never_to_the_same_value() {
    let change = |seed, rate: f64, chunk: usize| {
        let kind = fault("corrupt", &[("rate", number(rate))], scope(On::Down));
        let mut rig = Rig::seeded(seed, vec![kind]);
        for chunk in noise(100_000).chunks(chunk) {
            rig.sends(chunk);
        }
        let changed = rig.bytes(Out);
        let sent = noise(100_000);
        let places = (0..100_000).filter(|&at| changed[at] != sent[at]).collect::<Vec<_>>();
        let noted = rig.events.iter().map(|event| event.offset as usize).collect::<Vec<_>>();
        assert!(noted == places, "each changed byte is noted");
        (changed, places)
    };
    let (changed, places) = change(1, 0.1, 100_000);
    assert!((9_500..10_500).contains(&places.len()), "{}", places.len());
    assert!(change(1, 0.1, 7).0 == changed && change(1, 0.1, 4096).0 == changed);
    assert!(change(2, 0.1, 100_000).0 != changed);
    assert_eq!(change(1, 1.0, 1000).1.len(), 100_000);
    assert!(change(1, 0.0, 1000).1.is_empty());
}

#[test]
fn garbage_goes_once_in_place_of_what_is_sent() {
    let mut rig = Rig::down("garbage", &[("data", Value::Bytes(b"#!%".to_vec()))]);
    rig.receives(b"question");
    assert!(rig.bytes(Out).is_empty(), "only when there is something to replace");
    rig.sends(b"an").sends(b"swer").ends();
    assert_eq!((rig.bytes(Out), rig.bytes(In)), (b"#!%".to_vec(), b"question".to_vec()));
    assert_eq!(rig.ended(), [(0, Out, "end")]);
    assert_eq!(rig.actions(), [("garbled", 0, 3)]);
    let random = |seed| {
        let kind = fault("garbage", &[("size", number(1000))], scope(On::Down));
        let mut rig = Rig::seeded(seed, vec![kind]);
        rig.ends();
        assert_eq!(rig.ended(), [(0, Out, "end")], "also where only the end was sent");
        rig.bytes(Out)
    };
    assert_eq!(random(1).len(), 1000);
    assert!(random(1) == random(1) && random(1) != random(2));
    let mut rig = Rig::down("garbage", &[("size", number(10))]);
    rig.aborts();
    assert_eq!((rig.bytes(Out), rig.ended()), (vec![], vec![(0, Out, "reset")]));
}

// --- slow close ------------------------------------------------------------------------------

#[test]
fn slow_close_keeps_an_end_back_and_no_byte() {
    let mut rig = Rig::down("slowclose", &[("seconds", number(0.1))]);
    rig.sends(b"bytes").at(20 * MS).ends().peer_ends();
    assert_eq!((rig.bytes(Out), rig.ended()), (b"bytes".to_vec(), vec![(20, In, "end")]));
    assert!(rig.chain.is_owed());
    rig.run();
    assert_eq!(rig.ended(), [(20, In, "end"), (120, Out, "end")]);
    assert!(!rig.chain.is_owed());
    assert_eq!(rig.actions(), [("delayed", 5, 0)]);
    let mut rig = Rig::down("slowclose", &[("seconds", number(0.1))]);
    rig.ends().aborts().run();
    assert_eq!(rig.ended(), [(0, Out, "reset")], "a reset does not wait");
    let mut rig = Rig::down("slowclose", &[("seconds", number(10))]);
    rig.ends().at(MS).remove(0);
    assert_eq!(rig.ended(), [(1, Out, "end")]);
}

// --- all of them -----------------------------------------------------------------------------

/// Every kind that neither loses nor changes a byte, holding what it can.
fn harmless() -> Vec<(&'static str, Vec<(&'static str, Value)>)> {
    vec![
        ("latency", vec![("seconds", number(0.1)), ("jitter", number(0.1))]),
        ("bandwidth", vec![("bytes_per_second", number(100_000))]),
        ("slice", vec![("size", number(50)), ("variation", number(20)), ("delay", number(0.001))]),
        ("blackhole", vec![("after_seconds", number(0.01)), ("for_seconds", number(0.1))]),
        ("slowclose", vec![("seconds", number(0.1))]),
        ("slowreader", vec![("bytes_per_second", number(100_000))]),
        ("corrupt", vec![("rate", number(0))]),
    ]
}

#[test]
fn bytes_keep_their_order_while_faults_come_and_go() {
    let data = noise(50_000);
    let mut rig = Rig::new(Vec::new());
    let mut rest = &data[..];
    let kinds = harmless();
    let mut there = Vec::new();
    let mut step = 0;
    while !rest.is_empty() {
        let (first, more) = rest.split_at((step * 37 % 300 + 1).min(rest.len()));
        rig.sends(first).receives(first);
        rest = more;
        step += 1;
        let (name, params) = &kinds[step % kinds.len()];
        if step % 3 == 0 {
            there.push(rig.faults.add(fault(name, params, scope(On::Both)), 0).id);
            rig.update();
        } else if there.len() > 5 || step % 3 == 1 && !there.is_empty() {
            let number = there.remove(step % there.len());
            rig.remove(number);
        }
        rig.at(rig.now - rig.started + MS * (step as u32 % 5));
    }
    rig.ends().peer_ends().run();
    assert!(rig.bytes(Out) == data && rig.bytes(In) == data);
    assert_eq!(rig.ends.len(), 2);
    assert!(rig.ends.iter().all(|(.., end)| *end == "end") && !rig.chain.is_owed());
}

#[test]
fn each_kind_that_holds_something_gives_it_back_when_it_is_removed() {
    for (name, params) in harmless() {
        let mut rig = Rig::both(name, &params);
        rig.at(10 * MS).sends(b"abc").receives(b"abc").ends().peer_ends();
        rig.remove(0);
        assert_eq!((rig.bytes(Out), rig.bytes(In)), (b"abc".to_vec(), b"abc".to_vec()), "{name}");
        assert_eq!(rig.ends.len(), 2, "{name}");
        assert!(rig.ended().iter().all(|&(at, _, end)| (at, end) == (10, "end")), "{name}");
        assert!(!rig.chain.is_owed() && rig.chain.next_call().is_none(), "{name}");
        assert_eq!((rig.held(In), rig.held(Out)), (0, 0), "{name}");
    }
}

#[test]
fn a_parameter_that_makes_no_sense_is_named() {
    let wrong = [
        ("bandwidth", vec![("bytes_per_second", number(0))], "bytes_per_second"),
        ("bandwidth", vec![], "bytes_per_second"),
        ("bandwidth", vec![("bytes_per_second", number(1)), ("shared", number(1))], "shared"),
        ("slice", vec![("size", number(0))], "size"),
        ("close", vec![], "after_bytes and after_seconds"),
        ("reset", vec![("after_bytes", number(1)), ("after_seconds", number(1))], "one of"),
        ("truncate", vec![], "after_bytes"),
        ("corrupt", vec![("rate", number(1.5))], "rate"),
        ("corrupt", vec![("rate", number(-1))], "rate"),
        ("garbage", vec![], "data and size"),
        ("garbage", vec![("size", number(1e9))], "size"),
        ("slowclose", vec![("seconds", number(f64::NAN))], "seconds"),
        ("slowreader", vec![("bytes_per_second", number(0))], "bytes_per_second"),
        ("nothing", vec![], "nothing"),
    ];
    for (name, params, named) in wrong {
        let mut all = Params::default();
        params.iter().for_each(|(name, value)| all.set(name, value.clone()));
        let error = Fault::new(name, &all, scope(On::Down), name).unwrap_err().to_string();
        assert!(error.contains(named), "{name}: {error}");
    }
}
