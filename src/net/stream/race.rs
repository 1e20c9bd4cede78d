//! A connect to several addresses of one name (RFC 8305). Owns the sockets until one of them is
//! connected and becomes the stream's; must never leave one of the others open.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::slice;
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

/// What became of an attempt.
enum Outcome {
    Connected,
    Pending,
    Failed(Error),
}

/// The attempts of one connect. Those in progress are closed at once when it is dropped, whatever
/// SO_LINGER says.
struct Race<'a> {
    stream: &'a Stream,
    to: &'a Candidates<'a>,
    /// The addresses that have not been tried yet.
    left: slice::Iter<'a, Address>,
    attempts: Vec<Attempt<'a>>,
    /// The error of the attempt that failed first.
    first: Option<Error>,
    /// When the next attempt begins, if none fails before.
    next: Instant,
    stagger: Duration,
}

impl<'a> Race<'a> {
    fn new(stream: &'a Stream, to: &'a Candidates<'a>, timeout: Option<Duration>) -> Self {
        let share = timeout.map(|timeout| timeout / to.addresses.len() as u32);
        Self {
            stream,
            to,
            left: to.addresses.iter(),
            attempts: Vec::new(),
            first: None,
            next: Instant::now(),
            stagger: share.map_or(STAGGER, |share| share.min(STAGGER)),
        }
    }

    /// Begins the next attempt if its time has come. Returns it if it is connected at once. Raises
    /// the first error if all attempts have failed.
    fn begin_due(&mut self) -> Result<Option<Attempt<'a>>> {
        while self.attempts.is_empty() || self.next <= Instant::now() {
            let Some(address) = self.left.next() else {
                if self.attempts.is_empty() {
                    let none = || Error::errno("connect", self.to.target, libc::EADDRNOTAVAIL);
                    return Err(self.first.take().unwrap_or_else(none));
                }
                break;
            };
            match self.stream.begin(self.to, address) {
                Ok((socket, Outcome::Connected)) => return Ok(Some(Attempt { address, socket })),
                Ok((socket, _)) => {
                    self.attempts.push(Attempt { address, socket });
                    self.next = Instant::now() + self.stagger;
                    break;
                }
                Err(error) => self.note_failure(error, address),
            }
        }
        Ok(None)
    }

    fn note_failure(&mut self, error: Error, address: &Address) {
        let error = self.to.name(error, address);
        self.first.get_or_insert(error);
    }

    /// When the next attempt begins. None if no address is left.
    fn next_due(&self) -> Option<Instant> {
        (self.left.len() > 0).then_some(self.next)
    }

    fn polled(&self) -> impl Iterator<Item = PollFd> {
        self.attempts.iter().map(|attempt| PollFd::writable(attempt.socket.as_fd()))
    }

    /// Looks at the attempts that `fds`, those of `polled`, report. Returns one that is connected.
    fn take_outcomes(&mut self, fds: &[PollFd]) -> Option<Attempt<'a>> {
        for at in (0..self.attempts.len()).rev().filter(|&at| fds[at].ready()) {
            let Attempt { address, socket } = self.attempts.swap_remove(at);
            match outcome(&socket, address) {
                Outcome::Connected => return Some(Attempt { address, socket }),
                Outcome::Pending => self.attempts.push(Attempt { address, socket }),
                Outcome::Failed(error) => {
                    self.note_failure(error, address);
                    // The next one need not wait.
                    self.next = Instant::now();
                }
            }
        }
        None
    }

    /// The address that the error names when the time is over.
    fn unanswered(&self) -> &Address {
        self.attempts.first().map_or(&self.to.addresses[0], |attempt| attempt.address)
    }
}

impl Drop for Race<'_> {
    fn drop(&mut self) {
        self.attempts.iter().for_each(|attempt| attempt.socket.never_wait());
    }
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
        &'a self,
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
        let mut race = Race::new(self, to, deadline.timeout);
        loop {
            if let Some(won) = race.begin_due()? {
                return Ok(won);
            }
            let end = deadline.at();
            let until = end.into_iter().chain(race.next_due()).min();
            let mut fds = vec![closed.polled()];
            fds.extend(race.polled());
            let _ = waiter.wait(&mut fds, until)?;
            if self.is_closed() {
                return Err(self.closed_error(step));
            }
            if let Some(won) = race.take_outcomes(&fds[1..]) {
                return Ok(won);
            }
            if end.is_some_and(|end| end <= Instant::now()) {
                return Err(Error::TimedOut { step, target: to.text(race.unanswered()) });
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
