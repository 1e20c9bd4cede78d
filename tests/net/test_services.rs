//! Small services, one for each thing a stream service may need beyond echo: to write without
//! input, to wait on a timer, to have two legs, to be woken by another thread, to use only part of
//! its input. They exist to show that the shape holds, first with bytes alone, then over real
//! sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use _rsock::net::address::Endpoint;
use _rsock::net::base::Mutex;
use _rsock::net::ledger::ClosedBy;
use _rsock::net::service::{
    Drain, Io, Leg, Peer, Service, Session, SessionError, SessionResult, Waker,
};

use crate::support::PATIENCE;

/// Writes `length` counted bytes to each client, then closes.
pub struct Speaker {
    pub length: usize,
}

struct Speech {
    at: usize,
    length: usize,
    /// Waits so long before it begins.
    after: Option<Duration>,
}

pub fn speech(range: std::ops::Range<usize>) -> Vec<u8> {
    range.map(|at| (at % 251) as u8).collect()
}

impl Speech {
    fn speak(&mut self, io: &mut dyn Io) {
        while self.at < self.length {
            let words = speech(self.at..self.length.min(self.at + 10_000));
            let taken = io.write(Leg::Client, &words);
            self.at += taken;
            if taken < words.len() {
                return;
            }
        }
        io.close();
    }
}

impl Service for Speaker {
    fn name(&self) -> String {
        format!("Speaker({})", self.length)
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Speech { at: 0, length: self.length, after: None })
    }
}

impl Session for Speech {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        match self.after {
            Some(after) => io.set_timer(0, Some(after)),
            None => self.speak(io),
        }
        Ok(())
    }

    fn low_water(&mut self, io: &mut dyn Io, _leg: Leg) -> SessionResult {
        self.speak(io);
        Ok(())
    }

    fn timer(&mut self, io: &mut dyn Io, _key: u32) -> SessionResult {
        self.speak(io);
        Ok(())
    }

    fn drain(&mut self, _io: &mut dyn Io) -> SessionResult<Drain> {
        Ok(Drain::Hold)
    }
}

/// Says "tick" after `after`, and once more `after` later, then closes.
pub struct Clock {
    pub after: Duration,
}

struct Ticking {
    after: Duration,
    left: u32,
}

impl Service for Clock {
    fn name(&self) -> String {
        "Clock()".to_owned()
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Ticking { after: self.after, left: 2 })
    }
}

impl Session for Ticking {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        io.set_timer(0, Some(self.after));
        // One that is taken away again must never be heard.
        io.set_timer(1, Some(self.after / 2));
        io.set_timer(1, None);
        Ok(())
    }

    fn timer(&mut self, io: &mut dyn Io, key: u32) -> SessionResult {
        if key != 0 {
            return Err(SessionError(format!("timer {key} was taken away")));
        }
        io.write(Leg::Client, b"tick");
        self.left -= 1;
        if self.left > 0 {
            io.set_timer(0, Some(self.after));
        } else {
            io.close();
        }
        Ok(())
    }
}

/// Passes on what comes in to `target`, and what comes back.
pub struct Relay {
    pub target: SocketAddr,
}

struct RelaySession {
    target: SocketAddr,
}

impl Service for Relay {
    fn name(&self) -> String {
        format!("Relay({})", self.target)
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(RelaySession { target: self.target })
    }
}

impl Session for RelaySession {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        io.pause(Leg::Client);
        io.connect(Endpoint::tcp(self.target));
        Ok(())
    }

    fn connected(&mut self, io: &mut dyn Io, result: Result<(), i32>) -> SessionResult {
        match result {
            Ok(()) => {
                io.pipe(Leg::Client, Leg::Upstream);
                io.pipe(Leg::Upstream, Leg::Client);
                io.resume(Leg::Client);
                Ok(())
            }
            Err(errno) => Err(SessionError(format!("connect failed with errno {errno}"))),
        }
    }
}

/// As Relay, but what comes back goes through the session, which waits before its first write: it
/// says that it has input, and goes on when it is told to. It keeps 16 bytes at most.
pub struct SlowReturn {
    pub target: SocketAddr,
    pub has_input: Sender<()>,
    pub go_on: Receiver<()>,
}

struct SlowReturnSession {
    relay: RelaySession,
    waits: Option<(Sender<()>, Receiver<()>)>,
}

impl Service for SlowReturn {
    fn name(&self) -> String {
        format!("SlowReturn({})", self.target)
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        let waits = Some((self.has_input.clone(), self.go_on.clone()));
        Box::new(SlowReturnSession { relay: RelaySession { target: self.target }, waits })
    }
}

impl Session for SlowReturnSession {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        self.relay.open(io)
    }

    fn connected(&mut self, io: &mut dyn Io, _result: Result<(), i32>) -> SessionResult {
        io.pipe(Leg::Client, Leg::Upstream);
        io.resume(Leg::Client);
        Ok(())
    }

    fn bytes(&mut self, io: &mut dyn Io, _leg: Leg, input: &[u8]) -> SessionResult<usize> {
        if let Some((has_input, go_on)) = self.waits.take() {
            has_input.send(()).map_err(|error| SessionError(error.to_string()))?;
            go_on.recv_timeout(PATIENCE).map_err(|error| SessionError(error.to_string()))?;
        }
        Ok(io.write(Leg::Client, input))
    }

    fn input_limit(&self) -> usize {
        16
    }
}

/// Says to everybody what a thread outside of the server puts into its board.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<Notices>>);

#[derive(Default)]
struct Notices {
    said: Vec<Vec<u8>>,
    readers: Vec<(u64, Waker)>,
    ends: Vec<ClosedBy>,
}

impl Board {
    pub fn say(&self, words: &[u8]) {
        let readers: Vec<_> = {
            let mut notices = self.0.lock();
            notices.said.push(words.to_vec());
            notices.readers.iter().map(|(_, waker)| waker.clone()).collect()
        };
        readers.iter().for_each(Waker::wake);
    }

    pub fn readers(&self) -> usize {
        self.0.lock().readers.len()
    }

    pub fn ends(&self) -> Vec<ClosedBy> {
        self.0.lock().ends.clone()
    }
}

struct Reader {
    id: u64,
    board: Board,
    read: usize,
}

impl Service for Board {
    fn name(&self) -> String {
        "Board()".to_owned()
    }

    fn open(&self, peer: &Peer) -> Box<dyn Session> {
        Box::new(Reader { id: peer.id, board: self.clone(), read: 0 })
    }
}

impl Session for Reader {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        self.board.0.lock().readers.push((self.id, io.waker()));
        Ok(())
    }

    fn wake(&mut self, io: &mut dyn Io) -> SessionResult {
        let notices = self.board.0.lock();
        for words in &notices.said[self.read..] {
            io.write(Leg::Client, words);
        }
        self.read = notices.said.len();
        Ok(())
    }

    fn closed(&mut self, why: ClosedBy) {
        let mut notices = self.board.0.lock();
        notices.readers.retain(|(id, _)| *id != self.id);
        notices.ends.push(why);
    }
}

/// Sends lines back in capitals; a line longer than its limit is not taken. Keeps no state: what is
/// not a whole line stays with the engine.
pub struct Shout;

impl Service for Shout {
    fn name(&self) -> String {
        "Shout()".to_owned()
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Shout)
    }
}

impl Session for Shout {
    fn bytes(&mut self, io: &mut dyn Io, leg: Leg, input: &[u8]) -> SessionResult<usize> {
        let mut used = 0;
        while let Some(end) = input[used..].iter().position(|&byte| byte == b'\n') {
            let line = &input[used..=used + end];
            if line == b"panic\n" {
                panic!("as asked");
            }
            if line == b"error\n" {
                return Err(SessionError("as asked".to_owned()));
            }
            if line == b"bye\n" {
                io.close();
                return Ok(input.len());
            }
            if line == b"cut\n" {
                io.abort();
                return Ok(input.len());
            }
            let taken = io.write(leg, &line.to_ascii_uppercase());
            used += taken;
            if taken < line.len() {
                break;
            }
        }
        Ok(used)
    }

    fn eof(&mut self, io: &mut dyn Io, leg: Leg, rest: &[u8]) -> SessionResult {
        io.write(leg, &rest.to_ascii_uppercase());
        io.close();
        Ok(())
    }

    fn input_limit(&self) -> usize {
        1000
    }
}

/// As Speaker, but its speech begins with a timer: with no event of the socket.
pub struct Burst {
    pub length: usize,
}

impl Service for Burst {
    fn name(&self) -> String {
        format!("Burst({})", self.length)
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Speech { at: 0, length: self.length, after: Some(Duration::from_millis(50)) })
    }
}

/// A service without state: its one value is its own session.
macro_rules! stateless {
    ($name:ident) => {
        impl Service for $name {
            fn name(&self) -> String {
                concat!(stringify!($name), "()").to_owned()
            }

            fn open(&self, _peer: &Peer) -> Box<dyn Session> {
                Box::new($name)
            }
        }
    };
}

/// Connects, when it is spoken to, to where nothing can: the call itself fails. Says how.
pub struct Late;

stateless!(Late);

impl Session for Late {
    fn bytes(&mut self, io: &mut dyn Io, _leg: Leg, input: &[u8]) -> SessionResult<usize> {
        io.connect(Endpoint::tcp(SocketAddr::from(([255; 4], 9))));
        Ok(input.len())
    }

    fn connected(&mut self, io: &mut dyn Io, result: Result<(), i32>) -> SessionResult {
        io.write(Leg::Client, format!("{result:?}").as_bytes());
        io.close();
        Ok(())
    }
}

/// Has had enough at a thousand bytes: says so at length and closes, using nothing.
pub struct Refuser;

stateless!(Refuser);

impl Session for Refuser {
    fn bytes(&mut self, io: &mut dyn Io, leg: Leg, input: &[u8]) -> SessionResult<usize> {
        if input.len() >= 1000 {
            let mut words = vec![b'!'; 300_000];
            while !words.is_empty() {
                let taken = io.write(leg, &words);
                words.drain(..taken);
                if taken == 0 {
                    return Err(SessionError("no room for the last words".to_owned()));
                }
            }
            io.close();
        }
        Ok(0)
    }

    fn input_limit(&self) -> usize {
        1000
    }
}

/// Takes a line and echoes all that follows.
pub struct Header;

stateless!(Header);

impl Session for Header {
    fn bytes(&mut self, io: &mut dyn Io, _leg: Leg, input: &[u8]) -> SessionResult<usize> {
        match input.iter().position(|&byte| byte == b'\n') {
            Some(end) => {
                io.pipe(Leg::Client, Leg::Client);
                Ok(end + 1)
            }
            None => Ok(0),
        }
    }
}
