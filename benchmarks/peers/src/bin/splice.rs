//! The kernel floor for bulk data: the cheapest echo server on one thread that never reads the
//! bytes. Prints its port and echoes until its standard input ends.
//!
//! Each connection has a pipe, through which splice(2) moves bytes from the socket back to the
//! socket. Owns the loop; must never do anything more, such as counting, limits or copying small
//! amounts.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};

use peers::{BOTH_EDGE, Epoll, NO_EVENT, READABLE_LEVEL};
use peers::{accept, close, pipe, set_backlog, set_nodelay, set_nonblocking, splice};

const EVENTS: usize = 1024;
/// The most bytes that one call moves. In practice the size of the pipe is the limit.
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

/// Moves bytes until both directions would block. False at the end of the stream.
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
