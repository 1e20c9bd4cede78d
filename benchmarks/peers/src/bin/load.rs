//! The load generator: N connections to 127.0.0.1, one message in flight on each.
//!
//! `load --port P --connections N [--size 64] [--udp 1]`
//!
//! With `--udp 1` a connection is a connected UDP socket, and a message one datagram.
//!
//! It opens its connections and prints `ready`. Then each line of standard input, a number of
//! seconds, is one measured window; its answer is one line of JSON: the messages that made the
//! round trip, and how long that took. Before the first window and after each, nothing is in
//! flight and every connection is open, so the caller can sample an idle server just before and
//! just after the work. It ends with its standard input.
//!
//! Must never measure the server itself, nor count a message that is incomplete or differs from
//! what was sent. One thread; the caller chooses its core.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use peers::windows::{Window, answer, message, option, other};
use peers::{BOTH_EDGE, ENDED, Epoll, Event, NO_EVENT};
use peers::{recv, send};

const EVENTS: usize = 1024;
const BUFFER: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let size = option("size", Some(64))?;
    let udp = option("udp", Some(0))? == 1;
    let mut load = Load::open(option("port", None)?, option("connections", None)?, size, udp)?;
    answer("messages", |time| load.run(time))
}

struct Load {
    epoll: Epoll,
    connections: Vec<Connection>,
    message: Vec<u8>,
}

impl Load {
    fn open(port: u16, connections: usize, size: usize, udp: bool) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let connections = (0..connections)
            .map(|token| {
                let socket = connect((Ipv4Addr::LOCALHOST, port).into(), udp)?;
                epoll.add(socket.as_raw_fd(), BOTH_EDGE, token as u64)?;
                Ok(Connection { socket, sent: size, received: size })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { epoll, connections, message: message(size) })
    }

    /// Keeps a message in flight on every connection for `time`, then lets the last ones arrive.
    fn run(&mut self, time: Duration) -> io::Result<Window> {
        let mut events = [NO_EVENT; EVENTS];
        let mut buffer = [0; BUFFER];
        let mut messages = 0;
        let mut in_flight = self.connections.len();
        let begin = Instant::now();
        for connection in &mut self.connections {
            connection.start(&self.message)?;
        }
        while in_flight > 0 {
            let events = self.epoll.wait(&mut events)?;
            let over = begin.elapsed() >= time;
            for &Event { events, u64: token } in events {
                let connection = &mut self.connections[token as usize];
                if events & ENDED != 0 {
                    return Err(other("the server ended a connection"));
                }
                if !connection.go_on(&self.message, &mut buffer)? {
                    continue;
                }
                messages += 1;
                if over {
                    in_flight -= 1;
                } else {
                    connection.start(&self.message)?;
                }
            }
        }
        Ok(Window { count: messages, seconds: begin.elapsed().as_secs_f64() })
    }
}

fn connect(to: SocketAddr, udp: bool) -> io::Result<OwnedFd> {
    if udp {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        return Ok(socket.into());
    }
    let stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream.into())
}

/// One connection, and the progress of its message.
struct Connection {
    socket: OwnedFd,
    sent: usize,
    received: usize,
}

impl Connection {
    fn start(&mut self, message: &[u8]) -> io::Result<()> {
        (self.sent, self.received) = (0, 0);
        self.send_rest(message)
    }

    fn send_rest(&mut self, message: &[u8]) -> io::Result<()> {
        while self.sent < message.len() {
            match send(self.socket.as_raw_fd(), &message[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what has arrived and sends what there is room for; true when the message is complete.
    fn go_on(&mut self, message: &[u8], buffer: &mut [u8; BUFFER]) -> io::Result<bool> {
        if self.received == message.len() {
            return Ok(false); // idle: an event of room to send, with nothing to send
        }
        self.send_rest(message)?;
        loop {
            let count = match recv(self.socket.as_raw_fd(), buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            };
            let expected = message.get(self.received..self.received + count);
            if count == 0 || expected != Some(&buffer[..count]) {
                return Err(other("the server did not echo what it was sent"));
            }
            self.received += count;
            if self.received == message.len() {
                return Ok(true);
            }
            if count < BUFFER {
                return Ok(false);
            }
        }
    }
}
