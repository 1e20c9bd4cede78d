//! A load generator of short connections. It keeps N connections in progress, with 64 bytes on
//! each.
//!
//! `churn --port P --connections N [--reset 1]`
//!
//! Each connection connects to 127.0.0.1, sends 64 bytes, receives them all back, shuts down its
//! side, reads to the end of the server's side and closes. The next one then starts. The program is
//! driven as `load` is: it prints `ready`; then each line of standard input, a number of seconds,
//! is one measured window, answered by one line of JSON with the number of connections completed
//! and the time taken. Between windows there are no connections, and the server has closed its side
//! of each, so that a server at rest can be examined. The program ends with its standard input.
//!
//! The client ends first, with a FIN, because that is how a handler that reads to the end learns of
//! it. So TIME_WAIT is on the client's side: for a minute after each connection, its address and
//! port cannot be used again for this server. One address has some 28 000 ports, which would be
//! used up in seconds. A reset (SO_LINGER of 0) would leave nothing behind, but the server then
//! sees an error and takes another path through its code. Sent after the server's FIN, a reset no
//! longer helps: the port is in TIME_WAIT from the moment that FIN arrives. Therefore the
//! connections use many addresses in turn, 127.0.0.2 to 127.0.0.250. All of them belong to this
//! machine, and each has its own ports (some seven million together). connect chooses the port, not
//! bind, as for any client (IP_BIND_ADDRESS_NO_PORT); 127.0.0.1 is left to other programs. If the
//! kernel has too many sockets in TIME_WAIT (`tcp_max_tw_buckets`) it drops some early, which does
//! no harm here.
//!
//! With `--reset 1`, a connection that has received its message is reset, without waiting for the
//! server's end. This measures accept and echo alone.
//!
//! Owns the connections and the count of those completed. Must never measure the server itself, nor
//! count a connection that received anything but what it sent, or that did not end in order. Uses
//! one thread; the caller chooses its core.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use peers::windows::{Window, answer, message, option, other};
use peers::{Epoll, Event, NO_EVENT, READABLE_LEVEL};
use peers::{bind, connect, recv, send, set_bind_address_no_port, set_reset_on_close, tcp_socket};

const EVENTS: usize = 1024;
const BUFFER: usize = 64 * 1024;
/// Small enough for a new connection to accept it at once.
const SIZE: usize = 64;
/// The last byte of the local addresses: the first and the last value.
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

    /// Keeps the connections running for `time`, then lets the last ones end.
    fn run(&mut self, time: Duration) -> io::Result<Window> {
        let mut events = [NO_EVENT; EVENTS];
        let mut buffer = [0; BUFFER];
        let mut count = 0;
        let mut under_way = self.connections.len();
        let begin = Instant::now();
        for slot in 0..under_way {
            self.start(slot)?;
        }
        while under_way > 0 {
            let events = self.epoll.wait(&mut events)?;
            let over = begin.elapsed() >= time;
            for &Event { u64: slot, .. } in events {
                let slot = slot as usize;
                let connection = self.connections[slot].as_mut().ok_or_else(|| {
                    other("an event for a connection that is closed") // closing removes it
                })?;
                if !connection.advance(&self.message, &mut buffer, self.reset)? {
                    continue;
                }
                count += 1;
                self.connections[slot] = None;
                if over {
                    under_way -= 1;
                } else {
                    self.start(slot)?;
                }
            }
        }
        Ok(Window { count, seconds: begin.elapsed().as_secs_f64() })
    }

    /// Opens a new connection, and sends its message.
    fn start(&mut self, slot: usize) -> io::Result<()> {
        let socket = tcp_socket()?;
        set_bind_address_no_port(&socket)?;
        bind(&socket, Ipv4Addr::new(127, 0, 0, self.source))?;
        self.source = if self.source == SOURCES.1 { SOURCES.0 } else { self.source + 1 };
        connect(&socket, self.server)?;
        send(socket.as_raw_fd(), &self.message)?;
        // Level-triggered: an end that arrived together with the message is reported again.
        self.epoll.add(socket.as_raw_fd(), READABLE_LEVEL, slot as u64)?;
        self.connections[slot] = Some(Connection { stream: socket.into(), received: 0 });
        Ok(())
    }
}

/// One connection, with the number of bytes of its message that have returned.
struct Connection {
    stream: TcpStream,
    received: usize,
}

impl Connection {
    /// Receives, and shuts down the client's side after the message. True when the server's side
    /// has ended too, or when a reset must end the connection.
    fn advance(
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
