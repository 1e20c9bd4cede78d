//! The accept loop, which gives the connections that are admitted to a sink. Owns the listener
//! while the server serves; must never spin, nor touch an established connection.
//!
//! The loop runs on a thread of its own, or on the thread of a server's only worker. With one
//! worker, passing each connection to another thread would cost a fifth of a short connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::accept_errors::{Failures, TURN, backoff, shut_down};
use super::admit::{Admitter, Attempt};
use super::sink::{Accepted, Sink};
use crate::net::address::Address;
use crate::net::base::{EventFd, poll_own};
use crate::net::control::{Overflow, ServerContext};
use crate::net::ledger::Refusal;
use crate::net::socket::{Listener, MAX_BACKLOG, Socket};
use crate::net::sys;

/// In a flood, connections arrive closer together than this...
const FLOOD: Duration = Duration::from_micros(300);
/// ...and the loop then sleeps this long, so that one wake-up takes several.
const COALESCE: Duration = Duration::from_micros(50);

/// The accept loop of one server.
pub(crate) struct Acceptor<S: Sink> {
    context: Arc<ServerContext>,
    listener: Listener,
    notifier: Arc<EventFd>,
    admitter: Admitter,
    sink: S,
    /// Until when accepting pauses. None if it does not.
    paused_until: Option<Instant>,
    last: Option<Instant>,
    /// The last wake-up took more than one connection: they arrive faster than the loop takes them.
    crowded: bool,
    /// The queue may hold a connection. Used only on a worker's thread, whose poller is
    /// edge-triggered.
    ready: bool,
    /// The poller has reported that the listener was shut down. Used only on a worker's thread.
    is_shut: bool,
    /// A descriptor to close, so that an excess connection can be refused even when no other is
    /// free.
    reserve: Option<std::fs::File>,
}

impl<S: Sink> Acceptor<S> {
    pub(crate) fn new(
        context: &Arc<ServerContext>,
        listener: Listener,
        local: Address,
        notifier: Arc<EventFd>,
        sink: S,
    ) -> Self {
        let mut acceptor = Self {
            context: Arc::clone(context),
            listener,
            notifier,
            admitter: Admitter::new(Arc::clone(context), local),
            sink,
            paused_until: None,
            last: None,
            crowded: false,
            // For connections that arrived before the listener was registered with the poller.
            ready: true,
            is_shut: false,
            reserve: None,
        };
        acceptor.refill_reserve();
        acceptor
    }

    fn refill_reserve(&mut self) {
        if self.context.limits.overflow == Overflow::Refuse && self.reserve.is_none() {
            self.reserve = std::fs::File::open("/dev/null").ok();
        }
    }

    /// The body of the accept thread. Accepts until the server stops, then closes the listener and
    /// the sink.
    pub(crate) fn run(mut self) {
        sys::set_timer_slack(Duration::from_nanos(1));
        self.guarded(Self::accept_until_stop);
        self.end();
    }

    /// Closes the listener, then the sink.
    pub(crate) fn end(self) {
        let Self { context, listener, notifier, mut sink, .. } = self;
        sink.begin_drain();
        let held = listener.held_back();
        listener.close();
        (0..held).for_each(|_| context.shutdown.count(true));
        sink.close(&notifier);
        context.clear_notifier();
    }

    /// Runs a part of the loop. The server stops if the part returns an error or panics.
    fn guarded<T>(&mut self, part: impl FnOnce(&mut Self) -> io::Result<T>) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(|| part(self)));
        self.context.conclude(done)
    }

    fn accept_until_stop(&mut self) -> io::Result<()> {
        loop {
            if self.context.shutdown.has_begun() {
                if !self.context.shutdown.is_hard() {
                    self.accept_queue()?;
                }
                return Ok(());
            }
            self.sink.check();
            let wait = self.listener.intake().wait();
            if self.has_room() && self.paused_until.is_none() {
                let [listener, watch] = wait.polled(self.listener.as_fd(), true);
                let mut fds = [self.notifier.polled(), listener, watch];
                let until = [wait.due, self.sink.due()].into_iter().flatten().min();
                poll_own(&mut fds, until)?;
                if fds[0].ready() && !self.notifier.clear() {
                    return Err(io::Error::from_raw_os_error(libc::EBADF));
                }
                if self.context.shutdown.has_begun() {
                    continue;
                }
                if fds[1].is_shut() && self.listener.intake().is_shut() {
                    return self.accept_last();
                }
                if fds[1].ready() || wait.is_due() {
                    self.coalesce();
                    self.accept_some(TURN)?;
                }
            } else {
                // At the limit, or out of descriptors: the next connection that ends sets the flag.
                let [listener, watch] = wait.polled(self.listener.as_fd(), false);
                let mut fds = [self.notifier.polled(), listener, watch];
                let until = [self.paused_until, self.sink.due()].into_iter().flatten().min();
                poll_own(&mut fds, until)?;
                let freed = fds[0].ready();
                self.notifier.clear();
                if fds[1].is_shut()
                    && !self.context.shutdown.has_begun()
                    && self.listener.intake().is_shut()
                {
                    return self.accept_last();
                }
                if freed || self.paused_until.is_none_or(|until| until <= Instant::now()) {
                    self.paused_until = None;
                    self.refill_reserve();
                }
            }
        }
    }

    /// Sleeps briefly in a flood. One wake-up for several connections costs a third less.
    fn coalesce(&self) {
        if self.crowded && self.last.is_some_and(|last| last.elapsed() < FLOOD) {
            thread::sleep(COALESCE);
        }
    }

    /// Accepts the connections that were in the queue when the stop began.
    fn accept_queue(&mut self) -> io::Result<()> {
        let waiting = self.listener.last_call();
        if self.has_room() { self.accept_some(waiting) } else { Ok(()) }
    }

    /// Accepts what a listener still holds that another of its owners has shut down, as a Unix
    /// listener does. Returns the error that ends the loop.
    fn accept_last(&mut self) -> io::Result<()> {
        self.accept_some(MAX_BACKLOG as usize)?;
        Err(shut_down())
    }

    /// Whether the limit admits another connection. If not, the next connection that ends sets the
    /// flag.
    fn has_room(&self) -> bool {
        self.context.limits.overflow == Overflow::Refuse || self.context.admission.has_room()
    }

    fn accept_some(&mut self, most: usize) -> io::Result<()> {
        let mut taken = 0;
        let mut failures = Failures::default();
        let mut has_asked = false;
        for _ in 0..most {
            self.crowded = taken > 1;
            if !self.has_room() {
                return Ok(());
            }
            let attempt = self.admitter.attempt(&self.listener, self.sink.nonblocking());
            if matches!(attempt, Attempt::Accepted(_) | Attempt::Refused) {
                self.last = Some(Instant::now());
                taken += 1;
                failures = Failures::default();
                has_asked = false;
            }
            match attempt {
                Attempt::Accepted(accepted) => self.sink.take(accepted),
                Attempt::Refused | Attempt::Full => {}
                Attempt::Held => return Ok(()),
                Attempt::TooFast(until) => {
                    self.paused_until = Some(until);
                    return Ok(());
                }
                Attempt::Empty => {
                    self.ready = false;
                    return Ok(());
                }
                Attempt::Lost(_) => {
                    if failures.one_more() {
                        self.pause();
                        return Ok(());
                    }
                }
                // A connection that has ended since the attempt, before room was asked for, sets no
                // flag: only an attempt after that knows that there is nothing.
                Attempt::Exhausted(_) if !has_asked => {
                    has_asked = true;
                    self.context.admission.ask_for_room();
                }
                Attempt::Exhausted(_) => {
                    self.refuse_by_reserve();
                    self.pause();
                    return Ok(());
                }
                Attempt::Fatal(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Refuses waiting connections with the reserve descriptor, if the server refuses excess ones.
    /// Called when the process is out of descriptors.
    fn refuse_by_reserve(&mut self) {
        for _ in 0..TURN {
            if self.reserve.take().is_none() {
                return;
            }
            let accepted = self.listener.accept(true);
            let taken = accepted.ok().flatten();
            let empty = taken.is_none();
            if let Some(taken) = taken {
                self.admitter.refuse(Socket::new(taken.fd), Refusal::Connections);
            }
            self.refill_reserve();
            if empty {
                return;
            }
        }
    }

    /// Pauses accepting until a connection ends, at most for the back-off time.
    fn pause(&mut self) {
        self.context.admission.ask_for_room();
        self.paused_until = Some(backoff());
    }
}

/// The accept loop on the thread of a worker.
impl Acceptor<Vec<Accepted>> {
    /// The descriptor for the worker's poller.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.listener.as_fd().as_raw_fd()
    }

    /// Notes that the poller has reported the listener as readable, or as shut down.
    pub(crate) fn notice(&mut self, is_shut: bool) {
        self.ready = true;
        self.is_shut |= is_shut;
    }

    /// When the next turn is due. None if only an event of the poller can make one due.
    pub(crate) fn next_turn(&self) -> Option<Instant> {
        match self.paused_until {
            None if self.has_room() => {
                let wait = self.listener.intake().wait();
                let ready = self.ready && wait.takes_arrivals();
                if ready { Some(Instant::now()) } else { wait.due }
            }
            paused_until => paused_until,
        }
    }

    /// Accepts what is in the queue. False if this was the last turn. Never blocks.
    pub(crate) fn turn(&mut self) -> bool {
        self.guarded(Self::try_turn).unwrap_or(false)
    }

    fn try_turn(&mut self) -> io::Result<bool> {
        if self.context.shutdown.has_begun() {
            if !self.context.shutdown.is_hard() {
                self.accept_queue()?;
            }
            return Ok(false);
        }
        if std::mem::take(&mut self.is_shut) && self.listener.intake().is_shut() {
            self.accept_last()?;
        }
        let over = |until| !self.context.admission.wants_room() || until <= Instant::now();
        if self.paused_until.is_some_and(over) {
            self.paused_until = None;
            self.refill_reserve();
        }
        if self.paused_until.is_none() && self.has_room() {
            let wait = self.listener.intake().wait();
            if self.ready && wait.takes_arrivals() || wait.is_due() {
                self.accept_some(TURN)?;
            }
        }
        Ok(true)
    }

    /// The connections that the last turn accepted.
    pub(crate) fn arrived(&mut self) -> Vec<Accepted> {
        std::mem::take(&mut self.sink)
    }
}
