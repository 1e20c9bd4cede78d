//! The generator of short connections: N at a time, 64 bytes on each.
//!
//! `churn --port P --connections N [--reset 1]`
//!
//! A connection's life: connect to 127.0.0.1, send 64 bytes, receive them all back, end our
//! side, read to the end of the server's side, close; the next one follows. Its protocol is that
//! of `load`: it prints `ready`, then each line of standard input, a number of seconds, is one
//! measured window, and its answer is one line of JSON: the connections made, and how long that
//! took. Between windows there is no connection at all, and the server has closed its side of
//! each, so the caller can sample an idle server. It ends with its standard input.
//!
//! This side ends first, with a FIN, because a handler that reads to the end needs one. TIME_WAIT
//! is therefore on this side: for a minute after each connection its address and port cannot be
//! used again for this server. One address has some 28 000 ports, which would be used up in
//! seconds. A reset (SO_LINGER of 0) would leave no TIME_WAIT, but the server would see an error
//! and take another path through its code; a reset after the server's FIN does not help, because
//! the port is in TIME_WAIT from the moment that FIN arrives. Connections therefore rotate
//! through the addresses 127.0.0.2 … 127.0.0.250, all of which are this machine, and each of
//! which has its own ports (some seven million together). connect chooses the port, not bind, as
//! for any client (IP_BIND_ADDRESS_NO_PORT); 127.0.0.1 is left to the other programs. If too many
//! are in TIME_WAIT (`tcp_max_tw_buckets`), the kernel drops some early, which does no harm here.
//!
//! With `--reset 1` a connection ends with a reset as soon as its message is back, and waits for
//! nothing else: the cost of accepting and echoing alone.
//!
//! Must never measure the server itself, nor count a connection whose echo differs from what was
//! sent, or that did not end in order. One thread; the caller chooses its core.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use peers::windows::{Window, answer, message, option, other};
use peers::{Epoll, Event, NO_EVENT, READABLE_LEVEL};
use peers::{bind, connect, recv, send, set_bind_address_no_port, set_reset_on_close, tcp_socket};

const EVENTS: usize = 1024;
const BUFFER: usize = 64 * 1024;
/// Small enough for a new connection to take all of it at once.
const SIZE: usize = 64;
/// The last byte of the first and of the last client address.
const SOURCES: (u8, u8) = (2, 250);

fn main() -> io::Result<()> {
    let reset = option("reset", Some(0))? != 0;
    let mut churn = Churn::new(option("port", None)?, option("connections", None)?, reset)?;
    answer("connections", |time| churn.run(time))
}

struct Churn {
    epoll: Epoll,
    server: SocketAddrV4,
    source: u8,
    /// `None` between windows.
    connections: Vec<Option<Connection>>,
    message: Vec<u8>,
    reset: bool,
}

impl Churn {
    fn new(port: u16, connections: usize, reset: bool) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            server: SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
            source: SOURCES.0,
            connections: (0..connections).map(|_| None).collect(),
            message: message(SIZE),
            reset,
        })
    }

    /// Makes connections for `time`, then lets the last ones end.
    fn run(&mut self, time: Duration) -> io::Result<Window> {
        let mut events = [NO_EVENT; EVENTS];
        let mut buffer = [0; BUFFER];
        let mut count = 0;
        let mut under_way = self.connections.len();
        let begin = Instant::now();
        for place in 0..under_way {
            self.start(place)?;
        }
        while under_way > 0 {
            let events = self.epoll.wait(&mut events)?;
            let over = begin.elapsed() >= time;
            for &Event { u64: place, .. } in events {
                let place = place as usize;
                let connection = self.connections[place].as_mut().ok_or_else(|| {
                    other("an event for a connection that is not there") // closing removes it
                })?;
                if !connection.go_on(&self.message, &mut buffer, self.reset)? {
                    continue;
                }
                count += 1;
                self.connections[place] = None;
                if over {
                    under_way -= 1;
                } else {
                    self.start(place)?;
                }
            }
        }
        Ok(Window { count, seconds: begin.elapsed().as_secs_f64() })
    }

    /// Opens a connection and sends its message.
    fn start(&mut self, place: usize) -> io::Result<()> {
        let socket = tcp_socket()?;
        set_bind_address_no_port(&socket)?;
        bind(&socket, Ipv4Addr::new(127, 0, 0, self.source))?;
        self.source = if self.source == SOURCES.1 { SOURCES.0 } else { self.source + 1 };
        connect(&socket, self.server)?;
        send(socket.as_raw_fd(), &self.message)?;
        // Level-triggered: an end that arrived with the message is reported again.
        self.epoll.add(socket.as_raw_fd(), READABLE_LEVEL, place as u64)?;
        self.connections[place] = Some(Connection { stream: socket.into(), received: 0 });
        Ok(())
    }
}

/// One connection, and how much of its message has come back.
struct Connection {
    stream: TcpStream,
    received: usize,
}

impl Connection {
    /// Reads what has arrived; ends this side after the message; true when the server's side has
    /// ended too, or when a reset will end the connection.
    fn go_on(
        &mut self,
        message: &[u8],
        buffer: &mut [u8; BUFFER],
        reset: bool,
    ) -> io::Result<bool> {
        let count = recv(self.stream.as_raw_fd(), buffer)?;
        if count == 0 {
            if self.received < message.len() {
                return Err(other("the server ended a connection before its message was back"));
            }
            return Ok(true);
        }
        let expected = message.get(self.received..self.received + count);
        if expected != Some(&buffer[..count]) {
            return Err(other("the server did not echo what it was sent"));
        }
        self.received += count;
        if self.received == message.len() {
            if reset {
                set_reset_on_close(self.stream.as_raw_fd())?;
                return Ok(true);
            }
            self.stream.shutdown(Shutdown::Write)?;
        }
        Ok(false)
    }
}
