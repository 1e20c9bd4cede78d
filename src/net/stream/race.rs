//! A connect to several addresses of one name (RFC 8305). Owns the sockets until one of them is
//! connected and becomes the stream's; must never leave one of the others open.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connect::Candidates;
use super::deadline::Deadline;
use super::stream::Stream;
use crate::net::address::{Address, STAGGER, Transport};
use crate::net::base::{EventFd, Waiter};
use crate::net::error::{Error, Result};
use crate::net::socket::Socket;
use crate::net::sys::PollFd;

/// One address, with the socket that is being connected to it.
struct Attempt<'a> {
    address: &'a Address,
    socket: Socket,
}

/// The attempts in progress. Dropped, they are closed at once, whatever SO_LINGER says.
struct Attempts<'a>(Vec<Attempt<'a>>);

impl Drop for Attempts<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|attempt| attempt.socket.never_wait());
    }
}

/// What became of an attempt.
enum Outcome {
    Connected,
    Pending,
    Failed(Error),
}

impl Stream {
    /// Whether several addresses are tried at once: with datagrams a connect never waits, a call
    /// that must not wait has one socket to begin with, and only one socket can have a port that
    /// the caller chose.
    pub(super) fn may_race(&self, to: &Candidates<'_>, deadline: &Deadline) -> bool {
        self.transport == Transport::Tcp
            && to.port() == 0
            && self.connecting.is_some()
            && deadline.timeout != Some(Duration::ZERO)
    }

    /// Connects to the first address that answers. The next address is tried when the one before
    /// has failed, or has not answered for 250 ms or its share of the time-out. None if the process
    /// has no descriptors for this.
    pub(super) fn race(
        &self,
        to: &Candidates<'_>,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Option<Result<()>> {
        let closed = Arc::new(EventFd::new().ok()?);
        *self.slot().racing.lock() = Some(Arc::clone(&closed));
        let won = self.run_race(to, &closed, deadline, waiter);
        *self.slot().racing.lock() = None;
        let result = won.and_then(|attempt| self.win(attempt, deadline, waiter));
        match result {
            Err(Error::Os { step: "connect", errno: libc::EMFILE | libc::ENFILE, .. }) => None,
            result => Some(result),
        }
    }

    /// Returns the attempt that has won. The others are closed by then.
    fn run_race<'a>(
        &self,
        to: &'a Candidates<'_>,
        closed: &EventFd,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<Attempt<'a>> {
        let step = "connect";
        let own = self.hold(step)?;
        if own.options().peer_addr().is_ok() {
            return Err(Error::errno(step, to.text(&to.addresses[0]), libc::EISCONN));
        }
        let share = deadline.timeout.map(|timeout| timeout / to.addresses.len() as u32);
        let stagger = share.map_or(STAGGER, |share| share.min(STAGGER));
        let mut left = to.addresses.iter();
        let mut pending = Attempts(Vec::new());
        let attempts = &mut pending.0;
        let mut first: Option<Error> = None;
        let mut next = Instant::now();
        loop {
            if attempts.is_empty() || next <= Instant::now() {
                if let Some(address) = left.next() {
                    match self.begin(to, address) {
                        Ok((socket, Outcome::Connected)) => {
                            return Ok(Attempt { address, socket });
                        }
                        Ok((socket, _)) => attempts.push(Attempt { address, socket }),
                        Err(error) => {
                            first = first.or(Some(to.name(error, address)));
                            continue;
                        }
                    }
                    next = Instant::now() + stagger;
                } else if attempts.is_empty() {
                    let none = || Error::errno(step, to.target, libc::EADDRNOTAVAIL);
                    return Err(first.unwrap_or_else(none));
                }
            }
            let end = deadline.at();
            let until = if left.len() == 0 { None } else { Some(next) };
            let until = end.into_iter().chain(until).min();
            let mut fds = vec![closed.polled()];
            fds.extend(attempts.iter().map(|it| PollFd::writable(it.socket.as_fd())));
            let _ = waiter.wait(&mut fds, until)?;
            if self.is_closed() {
                return Err(self.closed_error(step));
            }
            for at in (0..attempts.len()).rev().filter(|at| fds[at + 1].ready()) {
                let Attempt { address, socket } = attempts.swap_remove(at);
                match outcome(&socket, address) {
                    Outcome::Connected => return Ok(Attempt { address, socket }),
                    Outcome::Pending => attempts.push(Attempt { address, socket }),
                    Outcome::Failed(error) => {
                        first = first.or(Some(to.name(error, address)));
                        // The next one need not wait.
                        next = Instant::now();
                    }
                }
            }
            if end.is_some_and(|end| end <= Instant::now()) {
                let slow = attempts.first().map_or(&to.addresses[0], |attempt| attempt.address);
                return Err(Error::TimedOut { step, target: to.text(slow) });
            }
        }
    }

    /// Opens a socket and begins to connect it.
    fn begin(&self, to: &Candidates<'_>, address: &Address) -> Result<(Socket, Outcome)> {
        let failed = |error: io::Error| Error::os("connect", address, &error);
        let socket = self.fresh(address.domain()).map_err(failed)?;
        socket.options().set_nonblocking(true).map_err(failed)?;
        to.bind(&socket, address)?;
        let outcome = outcome(&socket, address);
        if to.port() == 0 && socket.is_connected_to_itself(address) {
            // With FIN, the port would be in TIME-WAIT, and a server could not bind it for a
            // minute.
            socket.abort();
            return Err(Error::errno("connect", address, libc::ECONNREFUSED));
        }
        match outcome {
            Outcome::Failed(error) => Err(error),
            outcome => Ok((socket, outcome)),
        }
    }

    /// Makes a connected socket the stream's own.
    fn win(
        &self,
        attempt: Attempt<'_>,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let Attempt { address, socket } = attempt;
        let step = "connect";
        let own = self.hold(step)?;
        let failed = |error: io::Error| Error::os(step, address, &error);
        let blocking = self.timeout() != Some(Duration::ZERO);
        socket.options().set_nonblocking(!blocking).map_err(failed)?;
        self.install(socket, &own, address.domain()).map_err(failed)?;
        if self.is_closed() {
            let _ = own.shutdown(Shutdown::Both);
            return Err(self.closed_error(step));
        }
        self.connected_to(address, deadline, waiter)
    }
}

/// Calls connect(2), which begins a handshake, or returns the outcome of the one that has ended.
fn outcome(socket: &Socket, address: &Address) -> Outcome {
    let connected = address.to_raw().and_then(|raw| socket.options().connect(&raw));
    match connected.map_err(|error| (error.raw_os_error(), error)) {
        Ok(()) => Outcome::Connected,
        Err((Some(libc::EISCONN), _)) => Outcome::Connected,
        // After EINTR the handshake continues, as with EINPROGRESS.
        Err((Some(libc::EINPROGRESS | libc::EALREADY | libc::EINTR), _)) => Outcome::Pending,
        Err((_, error)) => Outcome::Failed(Error::os("connect", address, &error)),
    }
}
