//! The machinery of sessions against random events, checked by a model that fits a few lines: what
//! comes back is what was sent, in order, nothing lost or doubled; buffers are bounded; every end
//! is in the books. Reproducible: `RSOCK_FUZZ_SEED=7 cargo test … fuzz`; longer:
//! `RSOCK_FUZZ_ROUNDS=1000`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use _rsock::net::address::Target;
use _rsock::net::base::{Mutex, Plain};
use _rsock::net::control::{Cause, Limits};
use _rsock::net::ledger::ClosedBy;
use _rsock::net::service::{Drain, Io, Leg, Peer, Service, Session, SessionResult, Waker};
use socket2::SockRef;

use crate::support::{PATIENCE, closed, config, dial, ip, noise, scaled, start, stop};

/// Clients of one round.
const CLIENTS: usize = 24;
/// What a client may have sent and not read back: less than any pair of socket buffers, or both
/// sides would wait for each other.
const UNDER_WAY: usize = 50_000;
/// What a session may be offered: its limit, and what one receive can add.
const MOST_INPUT: usize = INPUT_LIMIT + 64 * 1024;
const INPUT_LIMIT: usize = 20_000;

/// A small generator (xorshift), for what has to be drawn again from its seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % bound
    }

    pub fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

pub fn from_environment<T: FromStr>(name: &str, or: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or)
}

/// What the sessions tell the test.
#[derive(Default)]
struct Board {
    wakers: Mutex<Vec<Waker>>,
    most_input: AtomicUsize,
    opened: AtomicUsize,
    closed: AtomicUsize,
}

/// An echo that does everything a session may do, as it feels.
struct Moody {
    seed: u64,
    board: Arc<Board>,
}

impl Service for Moody {
    fn name(&self) -> String {
        format!("Moody({})", self.seed)
    }

    fn open(&self, peer: &Peer) -> Box<dyn Session> {
        let dice = Dice::new(self.seed ^ peer.id << 32);
        self.board.opened.fetch_add(1, SeqCst);
        Box::new(Mood { dice, owed: Vec::new(), over: false, board: Arc::clone(&self.board) })
    }
}

struct Mood {
    dice: Dice,
    /// What was left at the end and is not written yet.
    owed: Vec<u8>,
    over: bool,
    board: Arc<Board>,
}

impl Mood {
    /// Leaves the rest for later, and makes the engine offer it again.
    fn rest(&mut self, io: &mut dyn Io) {
        io.pause(Leg::Client);
        io.set_timer(1, Some(Duration::from_micros(self.dice.below(2_000) as u64)));
    }

    fn finish(&mut self, io: &mut dyn Io) {
        let taken = io.write(Leg::Client, &self.owed);
        self.owed.drain(..taken);
        if self.owed.is_empty() {
            io.close();
        }
    }
}

impl Session for Mood {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        if self.dice.one_in(3) {
            self.board.wakers.lock().push(io.waker());
        }
        if self.dice.one_in(3) {
            io.set_timer(9, Some(Duration::from_millis(1)));
            io.set_timer(9, None);
        }
        Ok(())
    }

    fn bytes(&mut self, io: &mut dyn Io, leg: Leg, input: &[u8]) -> SessionResult<usize> {
        self.board.most_input.fetch_max(input.len(), SeqCst);
        let wanted = match self.dice.below(8) {
            0 => 0,
            1 => self.dice.below(input.len() + 1),
            _ => input.len(),
        };
        if wanted < input.len() {
            self.rest(io);
        }
        let mut used = 0;
        // In one piece or in many, as far as it is taken.
        while used < wanted {
            let piece = if self.dice.one_in(4) {
                1 + self.dice.below(wanted - used)
            } else {
                wanted - used
            };
            let taken = io.write(leg, &input[used..used + piece]);
            used += taken;
            if taken < piece {
                break;
            }
        }
        Ok(used)
    }

    fn eof(&mut self, io: &mut dyn Io, _leg: Leg, rest: &[u8]) -> SessionResult {
        self.owed.extend_from_slice(rest);
        self.over = true;
        self.finish(io);
        Ok(())
    }

    fn low_water(&mut self, io: &mut dyn Io, _leg: Leg) -> SessionResult {
        if self.over {
            self.finish(io);
        }
        Ok(())
    }

    fn timer(&mut self, io: &mut dyn Io, key: u32) -> SessionResult {
        assert_eq!(key, 1, "the other timer was taken away");
        io.resume(Leg::Client);
        Ok(())
    }

    fn wake(&mut self, io: &mut dyn Io) -> SessionResult {
        if self.dice.one_in(2) {
            self.rest(io);
        }
        Ok(())
    }

    fn drain(&mut self, _io: &mut dyn Io) -> SessionResult<Drain> {
        Ok(if self.dice.one_in(2) { Drain::Hold } else { Drain::Finish })
    }

    fn closed(&mut self, _why: ClosedBy) {
        self.board.closed.fetch_add(1, SeqCst);
    }

    fn input_limit(&self) -> usize {
        INPUT_LIMIT
    }
}

/// One client's life; true where it went on to the end, and got back all.
fn live(address: SocketAddr, mut dice: Dice, most: usize) -> bool {
    let mut stream = dial(address);
    let data = noise(1 + dice.below(most));
    let (mut sent, mut got) = (0, 0);
    let mut buffer = vec![0; 40_000];
    let mut read = |stream: &mut TcpStream, got: &mut usize, most: usize| -> usize {
        let count = stream.read(&mut buffer[..most]).unwrap();
        assert!(buffer[..count] == data[*got..*got + count], "not what was sent, at {got}");
        *got += count;
        count
    };
    while sent < data.len() {
        match dice.below(3) {
            _ if sent - got >= UNDER_WAY => {
                assert!(read(&mut stream, &mut got, 40_000) > 0, "ended in the middle");
            }
            0 if got < sent => {
                let most = 1 + dice.below(40_000);
                assert!(read(&mut stream, &mut got, most) > 0, "ended in the middle");
            }
            _ => {
                let piece = (1 + dice.below(20_000)).min(data.len() - sent);
                stream.write_all(&data[sent..sent + piece]).unwrap();
                sent += piece;
            }
        }
        if dice.one_in(200) {
            // Tired of it: a reset, or an end with input unread, which is one too.
            if dice.one_in(2) {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            return false;
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
    while read(&mut stream, &mut got, 40_000) > 0 {}
    assert_eq!(got, data.len(), "something was lost");
    true
}

#[test]
fn fuzz_sessions() {
    let first: u64 = from_environment("RSOCK_FUZZ_SEED", 1);
    for seed in first..first + from_environment("RSOCK_FUZZ_ROUNDS", 6) {
        let board = Arc::new(Board::default());
        let mut config = config(Moody { seed, board: Arc::clone(&board) });
        config.limits = Limits { write_buffer: 4096 << (seed % 5), ..Limits::default() };
        config.workers = Some(1 + seed as usize % 2);
        let server = start(config);
        let address = ip(server.address().unwrap());
        // A byte that a session leaves is a pause of its own, where each is a chunk.
        let most = scaled(scaled(400_000)).max(2_000);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let dice = Dice::new((seed << 20) | (number as u64 + 1));
                thread::spawn(move || live(address, dice, most))
            })
            .collect();
        // Messages from another thread all the while, also to sessions that have ended.
        let mut dice = Dice::new(seed + 77);
        while !clients.iter().all(thread::JoinHandle::is_finished) {
            let wakers = board.wakers.lock().clone();
            if !wakers.is_empty() {
                wakers[dice.below(wakers.len())].wake();
            }
            thread::sleep(Duration::from_micros(200));
        }
        let whole = clients
            .into_iter()
            .map(|client| client.join())
            .filter(|lived| *lived.as_ref().unwrap_or_else(|_| panic!("seed {seed}: see above")))
            .count();
        let records = closed(&server.ledger(), CLIENTS as u64);
        assert_eq!(records.len(), CLIENTS, "seed {seed}");
        let totals = server.ledger().totals();
        assert_eq!(
            (totals.accepted, totals.open, totals.closed),
            (CLIENTS as u64, 0, CLIENTS as u64)
        );
        assert_eq!(board.closed.load(SeqCst), CLIENTS, "seed {seed}: each session hears its end");
        let most = board.most_input.load(SeqCst);
        assert!(most <= MOST_INPUT, "seed {seed}: {most} bytes were offered");
        let in_full =
            records.iter().filter(|record| record.received().bytes == record.sent().bytes);
        assert!(in_full.count() >= whole, "seed {seed}");
        assert_eq!(stop(&server).forced, 0, "seed {seed}");
    }
}

/// A stop in the middle of everything: bounded, and the books balance.
#[test]
fn fuzz_stops() {
    let first: u64 = from_environment("RSOCK_FUZZ_SEED", 1);
    for seed in first..first + from_environment("RSOCK_FUZZ_ROUNDS", 6) {
        let board = Arc::new(Board::default());
        let server = start(config(Moody { seed, board: Arc::clone(&board) }));
        let address = ip(server.address().unwrap());
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let mut dice = Dice::new((seed << 20) | (number + 1));
                thread::spawn(move || babble(address, &mut dice))
            })
            .collect();
        let mut dice = Dice::new(seed + 99);
        thread::sleep(Duration::from_micros(dice.below(20_000) as u64));
        let began = Instant::now();
        let drain = Duration::from_millis(50);
        let report = server.stop(Some(drain), Cause::Stop, &mut Plain).unwrap();
        assert!(began.elapsed() < drain + PATIENCE);
        clients.into_iter().for_each(|client| client.join().unwrap());
        let totals = server.ledger().totals();
        assert_eq!((totals.open, totals.closed), (0, totals.accepted), "seed {seed}");
        assert!(report.drained + report.forced <= totals.closed, "seed {seed}");
        // With stages, a session opens once they are ready, which the stop may come before.
        assert_eq!(board.closed.load(SeqCst), board.opened.load(SeqCst), "seed {seed}");
    }
}

/// Sends and reads until the connection ends, however it does; what comes back is right up to
/// there.
fn babble(address: SocketAddr, dice: &mut Dice) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let data = noise(2_000_000);
    let (mut sent, mut got) = (0, 0);
    let mut buffer = vec![0; 40_000];
    loop {
        if sent - got < UNDER_WAY && sent < data.len() {
            let piece = (1 + dice.below(20_000)).min(data.len() - sent);
            match stream.write(&data[sent..sent + piece]) {
                Ok(count) => sent += count,
                Err(_) => return,
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                assert!(buffer[..count] == data[got..got + count], "not what was sent, at {got}");
                got += count;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

/// Hosts made of what hosts are made of: refused in words, or shown as they can be given again.
#[test]
fn fuzz_addresses() {
    const PARTS: [&str; 22] = [
        "127.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "%lo",
        "%1",
        "%",
        "[",
        "]",
        ":",
        ".",
        "/",
        " ",
        "\0",
        "a",
        "-",
        "example.org",
        "é",
        "0x7f",
        "::ffff:127.0.0.1",
        "999",
        "\u{202e}",
    ];
    let mut dice = Dice::new(from_environment("RSOCK_FUZZ_SEED", 1));
    for _ in 0..20_000 * from_environment("RSOCK_FUZZ_ROUNDS", 1) {
        let host: String = (0..1 + dice.below(4)).map(|_| PARTS[dice.below(PARTS.len())]).collect();
        let port = dice.below(65_536) as u16;
        let Ok(target) = Target::new(&host, port) else { continue };
        assert_eq!(target.port(), port);
        if let Some(address) = target.numeric() {
            assert_eq!(address.port(), port, "{host:?}");
        }
        let again = Target::new(target.host(), port);
        assert!(again.is_ok_and(|again| again == target), "{host:?}");
    }
}

crate::support::through_stages! {
    fuzz_sessions,
    fuzz_stops,
}
