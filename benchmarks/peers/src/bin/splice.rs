//! The kernel floor for bulk: the cheapest possible echo server with one thread, whose bytes never
//! leave the kernel. Prints its port and echoes until its standard input ends.
//!
//! A pipe a connection, and splice(2) through it from the socket to the socket. Must never do
//! anything more: no counting, no limits, no copying of small amounts.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};

use peers::{BOTH_EDGE, Epoll, NO_EVENT, READABLE_LEVEL};
use peers::{accept, close, pipe, set_backlog, set_nodelay, set_nonblocking, splice};

const EVENTS: usize = 1024;
/// The length passed to one call. The pipe is the actual bound.
const MOST: usize = 1 << 20;
const PIPE: i32 = 256 * 1024;

struct Connection {
    socket: RawFd,
    pipe: (RawFd, RawFd),
    held: usize,
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    set_backlog(&listener, 4096)?;
    set_nodelay(&listener)?;

    let stdin = io::stdin().as_raw_fd();
    let listening = listener.as_raw_fd();
    let epoll = Epoll::new()?;
    epoll.add(stdin, READABLE_LEVEL, stdin as u64)?;
    epoll.add(listening, READABLE_LEVEL, listening as u64)?;
    println!("{}", listener.local_addr()?.port());

    let mut events = [NO_EVENT; EVENTS];
    // Indexed by the socket's number, which is small.
    let mut connections: Vec<Option<Connection>> = Vec::new();
    loop {
        for event in epoll.wait(&mut events)? {
            let fd = event.u64 as RawFd;
            if fd == listening {
                while let Ok(socket) = accept(listening) {
                    set_nonblocking(socket)?;
                    let connection = Connection { socket, pipe: pipe(PIPE)?, held: 0 };
                    connections.resize_with(connections.len().max(socket as usize + 1), || None);
                    connections[socket as usize] = Some(connection);
                    epoll.add(socket, BOTH_EDGE, socket as u64)?;
                }
            } else if fd == stdin {
                return Ok(());
            } else if let Some(connection) = &mut connections[fd as usize] {
                if !echo(connection) {
                    for number in [connection.socket, connection.pipe.0, connection.pipe.1] {
                        close(number);
                    }
                    connections[fd as usize] = None;
                }
            }
        }
    }
}

/// Moves bytes until neither side makes progress; false at the end.
fn echo(connection: &mut Connection) -> bool {
    loop {
        let came = match splice(connection.socket, connection.pipe.1, MOST) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return false,
        };
        connection.held += came;
        if connection.held == 0 {
            return true;
        }
        match splice(connection.pipe.0, connection.socket, connection.held) {
            Ok(count) => connection.held -= count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(_) => return false,
        }
    }
}
