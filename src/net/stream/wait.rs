//! The waits of a stream's calls. A call tries first (MSG_DONTWAIT, so that the descriptor itself
//! stays blocking), then waits for readiness, a time-out, a limit or a signal. Owns that loop; must
//! never read or write a byte itself.

use std::io::{self};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;

use super::deadline::Deadline;
use super::owner::OuterEnd;
use super::stream::{Stream, seen};
use crate::net::base::{Listed, Waiter};
use crate::net::error::{Error, Result, TlsError};
use crate::net::socket::Socket;
use crate::net::sys::{self, PollFd};

/// How often a call retries that cannot poll its socket, because an unread error queue makes each
/// poll return.
const ERRORS_WAIT: Duration = Duration::from_millis(10);
/// After this many polls in a row that reported input where there was none to take, a call pauses
/// between its tries. Threads that take each other's input do not get that far.
const MOST_FRUITLESS: u32 = 64;

/// A blocking receive that took less time than this did not wait: its input was there.
const NO_WAIT: Duration = Duration::from_micros(5);

/// The event that a call waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    /// The same, for a receive of bytes that a peek has found.
    Peeked,
    /// Also the urgent mark, which is not input.
    Input,
    Writable,
}

impl Interest {
    fn is_input(self) -> bool {
        matches!(self, Self::Readable | Self::Peeked)
    }
}

/// When a limit of the server is reached, and the name of the limit.
type Until = (Instant, &'static str);

fn earlier(deadline: &mut Deadline, limit: Option<Until>) -> Option<Instant> {
    [deadline.at(), limit.map(|(at, _)| at)].into_iter().flatten().min()
}

/// The result of a system call on a socket that may have been replaced or shut down meanwhile.
pub(super) trait Transferred: Send {
    /// Whether the call moved nothing, so that it may have met the end of that socket.
    fn is_nothing(&self) -> bool;
}

impl Transferred for usize {
    fn is_nothing(&self) -> bool {
        *self == 0
    }
}

impl Stream {
    /// Tries the operation, and waits while it would block. The operation is passed MSG_DONTWAIT,
    /// or 0 if it may block. `requested` is how many bytes a receive has room for.
    pub(super) fn attempt<T: Transferred>(
        &self,
        step: &'static str,
        interest: Interest,
        requested: usize,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
        mut operation: impl FnMut(BorrowedFd<'_>, i32) -> io::Result<T> + Send,
    ) -> Result<T> {
        let socket = self.hold(step)?;
        let fd = socket.as_fd();
        if interest == Interest::Writable && self.outer().is_some_and(|outer| outer.end().is_some())
        {
            // The worker closes its end of the pair after the record. Until then it would take
            // bytes that go nowhere.
            if let Some(error) = self.end_error(step, &socket) {
                return Err(error);
            }
        }
        let mut with = |flag| {
            let before = self.renewals.load(SeqCst);
            let result = operation(fd, flag);
            let is_nothing = result.as_ref().map_or(true, Transferred::is_nothing);
            if is_nothing && self.renewals.load(SeqCst) != before {
                // The end of the socket that was replaced. The call continues with the new one.
                return None;
            }
            match result {
                Ok(done) => Some(Ok(done)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => None,
                    // The call continues after a signal (PEP 475). The waiter looks for signals.
                    io::ErrorKind::Interrupted => None,
                    _ => {
                        self.saw_error(&error);
                        Some(Err(Error::os(step, self.peer_text(), &error)))
                    }
                },
            }
        };
        // MSG_DONTWAIT ignores SO_RCVLOWAT; poll(2) respects it. A receive of fewer bytes than that
        // does not wait for more than it has room for.
        let polled = interest.is_input()
            && self.has_seen(seen::LOWAT)
            && deadline.timeout != Some(Duration::ZERO);
        let ready = || sys::poll(&mut [PollFd::readable(fd)], Some(Instant::now()));
        let first =
            !polled || ready().is_ok_and(|ready| ready > 0) || sys::unread(fd) >= requested.max(1);
        let mut result = None;
        let mut first_wait = None;
        let mut waiting = None;
        if self.expects_to_wait(interest, polled, deadline, waiter) {
            waiting = self.begin_wait(interest);
            let mut took = Duration::ZERO;
            waiter.release(&mut || {
                let start = Instant::now();
                result = with(0);
                took = start.elapsed();
            });
            if took < NO_WAIT {
                self.last_receive_waited.store(false, Relaxed);
            }
        } else if first {
            result = with(libc::MSG_DONTWAIT);
            if interest == Interest::Readable && result.is_none() {
                self.last_receive_waited.store(true, Relaxed);
            }
        }
        let mut fruitless = 0;
        while result.is_none() {
            if deadline.timeout == Some(Duration::ZERO) {
                return Err(Error::errno(step, self.peer_text(), libc::EAGAIN));
            }
            if interest != Interest::Writable && self.end_reads_if_draining(&socket) {
                // There is no input and the server drains: the next read returns the end.
                result = with(libc::MSG_DONTWAIT);
                continue;
            }
            if waiting.is_none() {
                waiting = self.begin_wait(interest);
            }
            // A call that does not have to wait does not read the clock.
            let limit = self.limit(interest, &mut first_wait);
            let until = earlier(deadline, limit);
            if interest.is_input() && !polled && waiter.may_spin() {
                result = self.spin.run(until, || with(libc::MSG_DONTWAIT));
                if result.is_some() {
                    break;
                }
            }
            if interest.is_input() && until.is_none() && waiter.may_block() {
                // One system call instead of two. A close or stop wakes it with shutdown(2). On a
                // descriptor that was made non-blocking elsewhere it returns at once.
                waiter.release(&mut || result = with(0));
                if result.is_some() {
                    break;
                }
            }
            let mut poll = [match interest {
                Interest::Readable | Interest::Peeked if !self.is_datagram() => {
                    PollFd::readable(fd)
                }
                Interest::Readable | Interest::Peeked | Interest::Input => PollFd::input(fd),
                Interest::Writable => PollFd::writable(fd),
            }];
            let ready = waiter.wait(&mut poll, until)?;
            if !ready {
                self.check_expired(step, &socket, deadline, limit, &mut first_wait, interest)?;
            }
            result = with(libc::MSG_DONTWAIT);
            if !ready || result.is_some() {
                continue;
            }
            fruitless += 1;
            if self.is_datagram() && interest.is_input() && poll[0].ended() {
                // After a shutdown for reading, the kernel returns the end only to a blocking
                // receive.
                waiter.release(&mut || result = with(0));
            } else if until.is_some_and(|at| at <= Instant::now()) {
                // The poll reported an event without anything to receive, and would do so again.
                self.check_expired(step, &socket, deadline, limit, &mut first_wait, interest)?;
            } else if poll[0].failed() || fruitless >= MOST_FRUITLESS {
                // The error queue is not empty. This call does not read it, and every poll would
                // return. So it would for urgent data of a Unix socket, which a peek passes over.
                let soon = Instant::now() + ERRORS_WAIT;
                waiter.wait(&mut [], Some(until.map_or(soon, |until| until.min(soon))))?;
                result = with(libc::MSG_DONTWAIT);
            }
        }
        drop(waiting);
        // A call that has taken something leaves the error to the next one.
        let has_nothing = |result: &Result<T>| result.as_ref().map_or(true, T::is_nothing);
        if interest != Interest::Input && result.as_ref().is_some_and(has_nothing) {
            if let Some(error) = self.end_error(step, &socket) {
                return Err(error);
            }
        }
        // A close from another thread has shut the socket down to wake this one. Bytes that were
        // moved before, and descriptors that came with them, still belong to the caller.
        match result {
            Some(Ok(done)) if !done.is_nothing() => Ok(done),
            Some(result) if !self.is_closed() => result,
            _ => Err(self.closed_error(step)),
        }
    }

    /// Whether a receive will probably find nothing, as the last one did, and may block at once:
    /// one system call instead of two.
    fn expects_to_wait(
        &self,
        interest: Interest,
        polled: bool,
        deadline: &Deadline,
        waiter: &dyn Waiter,
    ) -> bool {
        self.last_receive_waited.load(Relaxed)
            && interest == Interest::Readable
            && !polled
            && self.spin.is_off()
            && deadline.timeout.is_none()
            && self.limit(interest, &mut None).is_none()
            // A draining server ends the reads of a connection without input.
            && self.owned().is_none_or(|owned| !owned.is_draining())
            && waiter.may_block()
    }

    /// The error of a connection which a limit has ended, or of an inner socket whose outer
    /// connection has not ended in peace.
    fn end_error(&self, step: &'static str, socket: &Socket) -> Option<Error> {
        let owned = self.owned.get()?;
        if let Some(name) = owned.reached.get() {
            return Some(self.over_limit(socket, step, name));
        }
        match self.outer()?.end()? {
            OuterEnd::Reset => {
                self.saw(seen::RESET);
                Some(Error::errno(step, self.peer_text(), libc::ECONNRESET))
            }
            OuterEnd::Failed(errno) => Some(Error::errno(step, self.peer_text(), errno)),
            OuterEnd::Limit(name) => Some(self.over_limit(socket, step, name)),
            OuterEnd::Tls(kind) => {
                if kind == TlsError::Cut {
                    self.saw(seen::RESET);
                }
                let text = self.outer()?.tls_error().unwrap_or_default().to_owned();
                Some(Error::Tls { step, target: self.peer_text(), text, kind })
            }
        }
    }

    /// A wait has come to its end by `limit` or by the time-out: the error, but where the limit has
    /// moved on meanwhile, because bytes went the other way.
    fn check_expired(
        &self,
        step: &'static str,
        socket: &Socket,
        deadline: &Deadline,
        limit: Option<Until>,
        since: &mut Option<Instant>,
        interest: Interest,
    ) -> Result<()> {
        match limit.filter(|&(at, _)| at <= Instant::now()) {
            Some(_) if self.limit(interest, since) != limit => Ok(()),
            Some((_, name)) => Err(self.over_limit(socket, step, name)),
            None if deadline.is_option => Err(Error::errno(step, self.peer_text(), libc::EAGAIN)),
            None => Err(Error::TimedOut { step, target: self.peer_text() }),
        }
    }

    /// How many bytes a receive of up to `requested` waits for. The kernel waits for more than one
    /// only in a blocking call.
    pub(super) fn least(&self, flags: i32, requested: usize) -> usize {
        let all = flags & libc::MSG_WAITALL != 0;
        let never = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB;
        if !(all || self.has_seen(seen::LOWAT))
            || flags & never != 0
            || self.is_datagram()
            || self.timeout() == Some(Duration::ZERO)
        {
            return 1;
        }
        let peeks = flags & libc::MSG_PEEK != 0;
        match (all, self.is_unix()) {
            // A peek at a Unix socket ends after the first part.
            (_, true) if peeks => 1,
            (true, _) => requested,
            // Unlike that of TCP, poll(2) of a Unix socket knows nothing of SO_RCVLOWAT.
            (false, true) if self.timeout().is_none() => self.low_water().min(requested),
            (false, _) if self.outer().is_some() && !peeks => self.low_water().min(requested),
            (false, _) => 1,
        }
    }

    /// SO_RCVLOWAT of the socket.
    fn low_water(&self) -> usize {
        let mut value = [0; size_of::<i32>()];
        let asked = self.hold("recv").and_then(|socket| {
            sys::getsockopt(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, &mut value)
                .map_err(|error| Error::os("recv", "", &error))
        });
        asked.map_or(1, |_| usize::try_from(i32::from_ne_bytes(value)).unwrap_or(1))
    }

    /// Waits until `count` bytes can be peeked at, or until no more will arrive: after an end, an
    /// error or urgent data.
    pub(super) fn wait_for_input(
        &self,
        step: &'static str,
        count: usize,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let socket = self.hold(step)?;
        if sys::unread(socket.as_fd()) >= count {
            return Ok(());
        }
        // poll(2) would return at once as long as there is any input. The edges of epoll(7) report
        // new input only.
        let failed = |error: io::Error| Error::os(step, self.peer_text(), &error);
        let mut edges = mio::Poll::new().map_err(failed)?;
        let _listed = Listed::new(&edges);
        let number = socket.as_fd().as_raw_fd();
        let interest = mio::Interest::READABLE | mio::Interest::PRIORITY;
        edges
            .registry()
            .register(&mut SourceFd(&number), mio::Token(0), interest)
            .map_err(failed)?;
        let mut events = mio::Events::with_capacity(1);
        let _waiting = self.begin_wait(Interest::Input);
        loop {
            if sys::unread(socket.as_fd()) >= count || self.is_closed() {
                return Ok(());
            }
            self.end_reads_if_draining(&socket);
            let limit = self.limit(Interest::Input, &mut None);
            let fds = &mut [PollFd::readable(edges.registry().as_fd())];
            if !waiter.wait(fds, earlier(deadline, limit))? {
                self.check_expired(step, &socket, deadline, limit, &mut None, Interest::Input)?;
            }
            match edges.poll(&mut events, Some(Duration::ZERO)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(failed(error));
                }
                _ => {}
            }
            let last = |event: &mio::event::Event| {
                event.is_read_closed() || event.is_error() || event.is_priority()
            };
            if events.iter().any(last) {
                return Ok(());
            }
        }
    }
}
