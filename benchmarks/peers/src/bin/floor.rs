//! The kernel floor: the cheapest possible echo server with one thread.
//!
//! Prints its port and echoes until its standard input ends. A message costs one recv, one send
//! and its share of one epoll_wait; a connection costs no memory here. Must never do anything
//! more: no counting, no limits, no handling of slow readers (a peer that does not read
//! blocks all the others), because every figure of the benchmarks is read as a multiple of this.
//!
//! Edge-triggered, because a level-triggered entry is put back on the ready list and checked a
//! second time for every message. One short recv ends a turn; only an event that reports the
//! peer's end makes it read again.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};

use peers::{ENDED, Epoll, NO_EVENT, READABLE_EDGE, READABLE_LEVEL};
use peers::{accept, close, recv, send, set_backlog, set_nodelay};

/// Events taken in one epoll_wait: more than any message scenario has connections.
const EVENTS: usize = 1024;
const BUFFER: usize = 64 * 1024;

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
    let mut buffer = [0; BUFFER];
    loop {
        for event in epoll.wait(&mut events)? {
            let fd = event.u64 as RawFd;
            if fd == listening {
                while let Ok(connection) = accept(listening) {
                    epoll.add(connection, READABLE_EDGE, connection as u64)?;
                }
            } else if fd == stdin {
                return Ok(());
            } else {
                echo(fd, event.events & ENDED != 0, &mut buffer);
            }
        }
    }
}

#[inline]
fn echo(fd: RawFd, ended: bool, buffer: &mut [u8; BUFFER]) {
    loop {
        match recv(fd, buffer) {
            Ok(0) => return close(fd),
            Ok(count) => {
                if send(fd, &buffer[..count]).is_err() {
                    return close(fd);
                }
                if count < BUFFER && !ended {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return close(fd),
        }
    }
}
