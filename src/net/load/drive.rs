//! The generator of a load: a thread with one poller for all connections. Owns the sockets; must
//! never have more than one message of a connection under way.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use super::driven::Driven;
use crate::net::address::{Address, Target, Transport, resolve};
use crate::net::base::{EventFd, Listed, Mutex, TimerFd, Waiter};
use crate::net::error::{Error, Result};
use crate::net::socket::Socket;
use crate::net::sys;

/// The most bytes of one receive.
const SCRATCH: usize = 64 * 1024;

/// A load.
#[derive(Clone, Debug)]
pub struct Load {
    /// The address to connect to.
    pub target: Target,
    /// How many connections there are at once.
    pub connections: usize,
    /// How many messages are sent on all connections together.
    pub messages: u64,
    /// The message.
    pub message: Vec<u8>,
    /// The length of the answer to a message; None if it is the message itself.
    pub answer: Option<usize>,
    /// Messages a second on all connections together; None for as many as are answered.
    pub rate: Option<f64>,
    /// How long a connect or an answer may take.
    pub timeout: Duration,
}

/// Runs a load to its end. Blocks; an interrupted wait ends it.
pub fn drive(load: &Load, waiter: &mut dyn Waiter) -> Result<Driven> {
    let deadline = Instant::now().checked_add(load.timeout);
    let addresses = resolve::addresses(&load.target, false, deadline, waiter)?;
    let address = addresses
        .first()
        .cloned()
        .ok_or_else(|| Error::Value(format!("drive {}: the name has no address", load.target)))?;
    let failed = |error: io::Error| Error::os("drive", &load.target, &error);
    let poll = Poll::new().map_err(failed)?;
    let done = Arc::new(EventFd::new().map_err(failed)?);
    let shared = Arc::new(Shared { is_over: AtomicBool::new(false), result: Mutex::new(None) });
    let listed = Listed::new(&poll);
    let generator = Generator::new(load.clone(), address, poll, Arc::clone(&shared), listed);
    let flag = SetAtEnd(Arc::clone(&done));
    let start = || {
        thread::Builder::new().name("rsock-load".to_owned()).spawn(move || {
            let _flag = flag;
            generator.run();
        })
    };
    let thread = sys::with_signals_blocked(start).map_err(failed)?;
    let waited = waiter.wait(&mut [done.polled()], None);
    if waited.is_err() {
        // Interrupted. The generator looks every 50 ms.
        shared.is_over.store(true, SeqCst);
    }
    // It has ended, or ends at once: the sockets are closed when this returns.
    let panicked = thread.join().is_err();
    waited?;
    let result = shared.result.lock().take().filter(|_| !panicked);
    result.unwrap_or_else(|| Err(io::Error::other("the generator has failed"))).map_err(failed)
}

struct SetAtEnd(Arc<EventFd>);

impl Drop for SetAtEnd {
    fn drop(&mut self) {
        self.0.set();
    }
}

struct Shared {
    is_over: AtomicBool,
    result: Mutex<Option<io::Result<Driven>>>,
}

/// How often an interrupted load is noticed.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    /// It has nothing to send.
    Idle,
    /// A message is under way.
    Asking,
}

struct Connection {
    socket: Socket,
    phase: Phase,
    /// Bytes of the message that are sent.
    sent: usize,
    /// Bytes of the answer that have come.
    received: usize,
    /// When the message was due, from which the answer's time counts.
    since: Instant,
    deadline: Instant,
}

struct Generator {
    // First, so that the poller's number leaves the fork table before it is closed.
    _listed: Listed,
    load: Load,
    address: Address,
    poll: Poll,
    shared: Arc<Shared>,
    connections: Vec<Option<Connection>>,
    /// Connections that are free for the next message.
    idle: VecDeque<usize>,
    begin: Instant,
    /// Messages that were begun.
    begun: u64,
    /// Connections that have not ended.
    live: usize,
    /// Those of them that have a message under way.
    asking: usize,
    driven: Driven,
    scratch: Vec<u8>,
    /// With a rate: wakes the poller when the next message is due.
    timer: Option<TimerFd>,
}

/// The token of the timer.
const TIMER: Token = Token(usize::MAX);

impl Generator {
    fn new(load: Load, address: Address, poll: Poll, shared: Arc<Shared>, listed: Listed) -> Self {
        Self {
            _listed: listed,
            connections: Vec::with_capacity(load.connections),
            load,
            address,
            poll,
            shared,
            idle: VecDeque::new(),
            begin: Instant::now(),
            begun: 0,
            live: 0,
            asking: 0,
            driven: Driven::new(),
            scratch: vec![0; SCRATCH],
            timer: None,
        }
    }

    fn run(mut self) {
        let ended = self.drive();
        let Self { shared, driven, .. } = self;
        *shared.result.lock() = Some(ended.map(|()| driven));
    }

    fn drive(&mut self) -> io::Result<()> {
        if self.load.rate.is_some() {
            let timer = TimerFd::new()?;
            let number = timer.as_fd().as_raw_fd();
            let mut source = SourceFd(&number);
            self.poll.registry().register(&mut source, TIMER, Interest::READABLE)?;
            self.timer = Some(timer);
        }
        for index in 0..self.load.connections {
            let now = Instant::now();
            match self.connect(index, now) {
                Ok(connection) => {
                    self.connections.push(Some(connection));
                    self.live += 1;
                }
                Err(error) => {
                    self.connections.push(None);
                    self.driven.failed(cause(&error));
                }
            }
        }
        let mut events = Events::with_capacity(1024);
        let mut look = self.begin + LOOK;
        while !self.shared.is_over.load(SeqCst) && self.has_work() {
            let timeout = self.timeout(Instant::now())?;
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Err(_) => continue,
                Ok(()) => {}
            }
            for event in events.iter().filter(|event| event.token() != TIMER) {
                self.serve(event.token().0);
            }
            // Not after each event: it looks at every connection.
            let now = Instant::now();
            if look <= now {
                look = now + LOOK;
                self.expire(now);
            }
            self.begin_messages();
        }
        self.driven.missing = self.load.messages - self.driven.messages;
        self.driven.elapsed = self.begin.elapsed();
        Ok(())
    }

    /// Whether a message is left to be sent or answered, and a connection to do it.
    fn has_work(&self) -> bool {
        self.live > 0 && (self.begun < self.load.messages || self.asking > 0)
    }

    fn connect(&self, index: usize, now: Instant) -> io::Result<Connection> {
        let transport =
            if self.address.as_unix().is_some() { Transport::Unix } else { Transport::Tcp };
        let socket = Socket::open(transport, self.address.domain())?;
        let options = SockRef::from(&socket);
        options.set_nonblocking(true)?;
        if transport == Transport::Tcp {
            options.set_tcp_nodelay(true)?;
        }
        match options.connect(&self.address.to_raw()?) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let number = socket.as_fd().as_raw_fd();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&number), Token(index), interest)?;
        let deadline = now + self.load.timeout;
        let phase = Phase::Connecting;
        Ok(Connection { socket, phase, sent: 0, received: 0, since: now, deadline })
    }

    /// When the next message is due; None if none is left, or no connection is free for it.
    fn next_due(&self) -> Option<Instant> {
        if self.begun == self.load.messages || self.idle.is_empty() {
            return None;
        }
        self.due(self.begun)
    }

    /// When a message is due by the rate; None for at once.
    fn due(&self, number: u64) -> Option<Instant> {
        let rate = self.load.rate?;
        Duration::try_from_secs_f64(number as f64 / rate).ok().map(|after| self.begin + after)
    }

    fn timeout(&mut self, now: Instant) -> io::Result<Duration> {
        Ok(match (self.next_due(), &mut self.timer) {
            (Some(due), _) if due <= now => Duration::ZERO,
            (Some(due), Some(timer)) => {
                timer.set(due)?;
                LOOK
            }
            _ if self.begun < self.load.messages && !self.idle.is_empty() => Duration::ZERO,
            _ => LOOK,
        })
    }

    /// Begins the messages that are due, as far as connections are free.
    fn begin_messages(&mut self) {
        let now = Instant::now();
        while self.begun < self.load.messages {
            let due = self.due(self.begun);
            if due.is_some_and(|due| due > now) {
                return;
            }
            let Some(index) = self.idle.pop_front() else { return };
            let Some(connection) = &mut self.connections[index] else { continue };
            self.begun += 1;
            connection.phase = Phase::Asking;
            self.asking += 1;
            (connection.sent, connection.received) = (0, 0);
            // A message that is late because the answers are has waited since it was due.
            connection.since = due.unwrap_or(now);
            connection.deadline = now + self.load.timeout;
            self.serve(index);
        }
    }

    fn expire(&mut self, now: Instant) {
        for index in 0..self.connections.len() {
            let is_late = self.connections[index]
                .as_ref()
                .is_some_and(|one| one.phase != Phase::Idle && one.deadline <= now);
            if is_late {
                self.end(index, "TimeoutError");
            }
        }
    }

    fn end(&mut self, index: usize, cause: &'static str) {
        if let Some(ended) = self.connections[index].take() {
            self.live -= 1;
            self.asking -= usize::from(ended.phase == Phase::Asking);
            self.idle.retain(|&free| free != index);
            self.driven.failed(cause);
        }
    }

    /// Does what can be done on a connection.
    fn serve(&mut self, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        let (message, length) = (&self.load.message, self.load.answer);
        let served =
            step(connection, message, length.unwrap_or(message.len()), &mut self.scratch, length);
        match served {
            Ok(Step::Waits) => {}
            Ok(Step::Free) => self.idle.push_back(index),
            Ok(Step::Answered(after)) => {
                self.asking -= 1;
                let bytes = self.load.answer.unwrap_or(self.load.message.len());
                self.driven.answered(bytes, after);
                self.idle.push_back(index);
            }
            Err(cause) => self.end(index, cause),
        }
    }
}

enum Step {
    Waits,
    /// Connected.
    Free,
    Answered(Duration),
}

fn step(
    connection: &mut Connection,
    message: &[u8],
    length: usize,
    scratch: &mut [u8],
    answer: Option<usize>,
) -> std::result::Result<Step, &'static str> {
    let failed = |error: io::Error| cause(&error);
    if connection.phase == Phase::Connecting {
        let options = SockRef::from(&connection.socket);
        if let Some(error) = options.take_error().map_err(failed)? {
            return Err(cause(&error));
        }
        if options.peer_addr().is_err() {
            return Ok(Step::Waits);
        }
        connection.phase = Phase::Idle;
        return Ok(Step::Free);
    }
    while connection.phase == Phase::Asking && connection.sent < message.len() {
        match sys::send(connection.socket.as_fd(), &message[connection.sent..], 0) {
            Ok(count) => connection.sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(cause(&error)),
        }
    }
    loop {
        if connection.phase == Phase::Asking && connection.received == length {
            connection.phase = Phase::Idle;
            return Ok(Step::Answered(connection.since.elapsed()));
        }
        let count = match sys::recv(connection.socket.as_fd(), scratch, libc::MSG_DONTWAIT) {
            Ok(0) => return Err("EOFError"),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Waits),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(cause(&error)),
        };
        let from = connection.received;
        let is_echo = answer.is_none();
        if connection.phase != Phase::Asking || from + count > length {
            return Err("too much");
        }
        if is_echo && scratch[..count] != message[from..from + count] {
            return Err("wrong bytes");
        }
        connection.received += count;
    }
}

/// The name of the exception that Python has for an error.
fn cause(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "ConnectionRefusedError",
        io::ErrorKind::ConnectionReset => "ConnectionResetError",
        io::ErrorKind::ConnectionAborted => "ConnectionAbortedError",
        io::ErrorKind::BrokenPipe => "BrokenPipeError",
        io::ErrorKind::TimedOut => "TimeoutError",
        io::ErrorKind::NotFound => "FileNotFoundError",
        io::ErrorKind::PermissionDenied => "PermissionError",
        _ => "OSError",
    }
}
