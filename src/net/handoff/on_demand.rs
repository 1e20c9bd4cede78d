//! Accepts the next connection on the caller's thread, when the caller asks. Owns the listener
//! while the server serves; must never accept a connection that no caller waits for.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use super::drain::FORCED_GRACE;
use super::handed_out::HandedOut;
use super::inner::OuterHost;
use super::lease::{Leased, Leases};
use crate::net::address::Address;
use crate::net::base::{EventFd, Mutex, Waiter, poll_or_sleep, poll_own};
use crate::net::control::ServerContext;
use crate::net::error::{Error, Result};
use crate::net::socket::{Listener, Socket};
use crate::net::stream::Stream;
use crate::net::sys::PollFd;
use crate::net::worker::{Admitter, Attempt, Failures, backoff, shut_down};

/// What a call of `accept` uses.
#[derive(Clone)]
struct OnDemandListener {
    listener: Arc<Listener>,
    /// Set when the server ends, and never cleared.
    over: Arc<EventFd>,
    /// Set when a connection ends while a caller waits for room.
    room: Arc<EventFd>,
    admitter: Arc<Admitter>,
    leases: Arc<Leases>,
    ready: Arc<ReadyStreams>,
}

impl OnDemandListener {
    /// What ends every wait of a caller.
    fn polled(&self) -> [PollFd; 2] {
        [self.over.polled(), self.ready.flag.polled()]
    }
}

/// Connections that were accepted, and whose stages have become ready since.
struct ReadyStreams {
    streams: Mutex<VecDeque<Arc<Stream>>>,
    /// Set while there are any.
    flag: EventFd,
}

impl ReadyStreams {
    fn push(&self, stream: Arc<Stream>) {
        let mut streams = self.streams.lock();
        streams.push_back(stream);
        self.flag.set();
    }

    fn pop(&self) -> Option<Arc<Stream>> {
        let mut streams = self.streams.lock();
        let first = streams.pop_front()?;
        if streams.is_empty() {
            self.flag.clear();
        }
        Some(first)
    }
}

/// On-demand accept for one server.
pub(crate) struct OnDemand {
    context: Arc<ServerContext>,
    pub(crate) handed_out: Arc<HandedOut>,
    /// None before the start and after the end.
    listener: Mutex<Option<OnDemandListener>>,
    /// The number of callers that wait because the limit of connections is reached.
    short_of_room: AtomicUsize,
}

impl OnDemand {
    pub(crate) fn new(context: &Arc<ServerContext>) -> Self {
        Self {
            context: Arc::clone(context),
            handed_out: Arc::default(),
            listener: Mutex::new(None),
            short_of_room: AtomicUsize::new(0),
        }
    }

    /// Takes the listener, from which callers accept from here on.
    pub(crate) fn open(
        &self,
        listener: Listener,
        local: &Address,
        outer: &Arc<OuterHost>,
        is_prepared: bool,
    ) -> io::Result<()> {
        let (over, room) = (Arc::new(EventFd::new()?), Arc::new(EventFd::new()?));
        self.context.admission.set_room_flag(Some(Arc::clone(&room)));
        let admitter = Arc::new(Admitter::new(Arc::clone(&self.context), local.clone()));
        let (context, handed_out) = (Arc::clone(&self.context), Arc::clone(&self.handed_out));
        let family = local.domain();
        let leases = Leases::new(context, handed_out, None, family, outer, is_prepared);
        let leases = Arc::new(leases);
        let listener = Arc::new(listener);
        let ready = ReadyStreams { streams: Mutex::default(), flag: EventFd::new()? };
        let ready = Arc::new(ready);
        let open = OnDemandListener { listener, over, room, admitter, leases, ready };
        *self.listener.lock() = Some(open);
        Ok(())
    }

    /// Closes the listener. Waiting callers return; the kernel resets the connections that are
    /// still in the queue, unless the listener was handed over. Returns their number.
    pub(crate) fn close(&self) -> usize {
        let open = self.listener.lock().take();
        self.context.admission.set_room_flag(None);
        open.map_or(0, |OnDemandListener { listener, over, .. }| {
            let is_handed_over = listener.sharing().is_handed_over();
            let waiting = if is_handed_over { 0 } else { listener.intake().waiting().unwrap_or(0) };
            listener.shut();
            over.set();
            waiting
        })
    }

    /// Resets what waits in the queue, for which no caller has asked, and closes the connections
    /// that no thread is using.
    pub(crate) fn reset(&self) {
        let open = self.listener();
        let next = || open.as_ref().and_then(|open| open.listener.accept(true).ok().flatten());
        while let Some(taken) = next() {
            Socket::new(taken.fd).abort();
        }
        for stream in self.handed_out.all_streams() {
            stream.force();
            stream.close_if_idle();
        }
    }

    /// The body of the server's only thread. Waits for the stop, then for the connections.
    pub(crate) fn run(&self, notifier: &EventFd) {
        let shutdown = &self.context.shutdown;
        let listener = self.listener().map(|open| open.listener);
        while !shutdown.has_begun() {
            self.handed_out.end_old(self.context.limits.lifetime);
            // Also notices arrivals, of which no call of `accept` may be there to know.
            let wait = listener.as_ref().map(|listener| listener.intake().wait());
            let polled = listener.as_ref().zip(wait.as_ref());
            let [socket, watch] = polled
                .map_or([PollFd::unused(); 2], |(open, wait)| wait.polled(open.as_fd(), false));
            let mut fds = [notifier.polled(), socket, watch];
            if poll_own(&mut fds, self.handed_out.end_due()).is_err() || !notifier.clear() {
                self.context.lose();
                break;
            }
            let is_shut = || listener.as_ref().is_some_and(|open| open.intake().is_shut());
            if fds[1].is_shut() && is_shut() {
                // By another of its owners. No call of `accept` may be there to notice it.
                self.context.fail(&shut_down());
            }
        }
        drop(listener);
        self.handed_out.begin_drain();
        let open = self.listener().map(|open| (open.leases, open.ready));
        for _ in 0..self.close() {
            shutdown.count(true);
        }
        self.drain(notifier);
        // What no call of `accept` has taken is closed by now.
        if let Some((leases, _ready)) = open {
            leases.close();
        }
        self.context.clear_notifier();
    }

    /// Waits until the deadline for calls that other threads are making; closes every other
    /// connection.
    fn drain(&self, notifier: &EventFd) {
        let shutdown = &self.context.shutdown;
        let mut reads_ended = false;
        loop {
            notifier.clear();
            let hard = shutdown.deadline() <= Instant::now();
            let streams = self.handed_out.streams();
            if hard {
                self.handed_out.all_streams().iter().for_each(|stream| stream.force());
            } else if !reads_ended {
                reads_ended = true;
                for stream in &streams {
                    stream.end_reads(false);
                }
            }
            let busy = streams.iter().filter(|stream| !stream.close_if_idle()).count();
            if busy == 0 {
                return;
            }
            self.handed_out.end_old(self.context.limits.lifetime);
            let until = if hard { Instant::now() + FORCED_GRACE } else { shutdown.deadline() };
            let due = self.handed_out.end_due().filter(|_| !hard);
            let until = due.map_or(until, |due| until.min(due));
            let woken = poll_or_sleep(&mut [notifier.polled()], Some(until));
            if hard && !woken {
                return;
            }
        }
    }

    fn listener(&self) -> Option<OnDemandListener> {
        self.listener.lock().clone()
    }

    /// Calls accept4(2) for the caller. None once the server ends.
    ///
    /// Blocks while the limit of connections is reached, and while the process is out of
    /// descriptors. Raises that error only at the deadline.
    pub(crate) fn accept(
        &self,
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Option<Arc<Stream>>> {
        let mut call = Call {
            on_demand: self,
            deadline,
            waiter,
            failures: Failures::default(),
            is_shut: false,
            has_asked: false,
        };
        loop {
            // A signal handler may have forked.
            self.context.origin.check()?;
            let open = self.listener();
            let open = open.filter(|_| !self.context.shutdown.has_begun());
            let Some(open) = open else { return Ok(None) };
            if let Some(stream) = open.ready.pop() {
                return Ok(Some(stream));
            }
            if let Some(stream) = call.attempt(&open)? {
                return Ok(Some(stream));
            }
        }
    }
}

/// A call of `accept`.
struct Call<'a> {
    on_demand: &'a OnDemand,
    deadline: Option<Instant>,
    waiter: &'a mut dyn Waiter,
    /// The connections in a row that were lost.
    failures: Failures,
    /// The last wait found that another of its owners has shut the listener.
    is_shut: bool,
    /// Whether it has asked for room since it last waited for a descriptor.
    has_asked: bool,
}

impl Call<'_> {
    /// Tries to accept a connection. Otherwise waits as long as another attempt would have the same
    /// result.
    fn attempt(&mut self, open: &OnDemandListener) -> Result<Option<Arc<Stream>>> {
        let OnDemandListener { listener, admitter, leases, .. } = open;
        let context = &self.on_demand.context;
        let attempt = admitter.attempt(listener, leases.nonblocking());
        if !matches!(attempt, Attempt::Accepted(_) | Attempt::Full | Attempt::TooFast(_))
            && self.on_demand.short_of_room.load(SeqCst) > 0
        {
            // Another caller may have found the limit reached because of the slot that this
            // attempt has just freed.
            open.room.set();
        }
        match attempt {
            Attempt::Accepted(accepted) => match leases.lease(accepted) {
                Leased::Now(_, stream) => return Ok(Some(stream)),
                Leased::Later(lease) => {
                    let ready = Arc::clone(&open.ready);
                    lease.then(move |_, stream| ready.push(stream));
                }
                Leased::Nothing => self.waiter.breathe()?,
            },
            Attempt::Full => self.wait_for_room(open)?,
            Attempt::TooFast(until) => self.pause(open, PollFd::unused(), Some(until))?,
            Attempt::Empty if self.is_shut => context.fail(&shut_down()),
            Attempt::Empty => self.wait_for_arrival(open)?,
            Attempt::Held => self.wait_while_held(open)?,
            Attempt::Fatal(error) => {
                context.fail(&error);
                return Err(Error::os("accept", admitter.local(), &error));
            }
            Attempt::Refused => self.try_next(open)?,
            Attempt::Lost(_) if !self.failures.one_more() => self.try_next(open)?,
            // A connection that has ended since the attempt, before room was asked for, sets no
            // flag: only an attempt after that knows that there is nothing.
            Attempt::Exhausted(_) if !self.has_asked && !self.is_late() => {
                self.has_asked = true;
                context.admission.ask_for_room();
            }
            Attempt::Lost(error) | Attempt::Exhausted(error) => self.back_off(open, &error)?,
        }
        Ok(None)
    }

    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    fn timed_out(open: &OnDemandListener) -> Error {
        Error::TimedOut { step: "accept", target: open.admitter.local().to_string() }
    }

    /// The next attempt may succeed at once.
    fn try_next(&mut self, open: &OnDemandListener) -> Result<()> {
        if self.is_late() {
            return Err(Self::timed_out(open));
        }
        self.waiter.breathe()
    }

    /// Waits for a connection in the queue.
    fn wait_for_arrival(&mut self, open: &OnDemandListener) -> Result<()> {
        let [over, ready] = open.polled();
        let mut fds = [PollFd::arrival(open.listener.as_fd()), over, ready];
        if !self.on_demand.context.wait_for(&mut fds, self.deadline, self.waiter)? {
            return Err(Self::timed_out(open));
        }
        self.is_shut = fds[0].is_shut() && open.listener.intake().is_shut();
        self.failures = Failures::default();
        Ok(())
    }

    /// Waits until the listener may pass on what it holds back.
    fn wait_while_held(&mut self, open: &OnDemandListener) -> Result<()> {
        // Without a descriptor for a flag, it looks again after a while.
        let hold = match open.listener.intake().hold() {
            Ok(None) => return Ok(()),
            hold => hold.ok().flatten(),
        };
        let changed = hold.as_ref().map(|hold| hold.changed.polled());
        let until = hold.as_ref().map_or_else(|| Some(backoff()), |hold| hold.until);
        self.pause(open, changed.unwrap_or_else(PollFd::unused), until)
    }

    /// Waits until then, or for `also`. Raises at the deadline.
    fn pause(
        &mut self,
        open: &OnDemandListener,
        also: PollFd,
        until: Option<Instant>,
    ) -> Result<()> {
        let until = [until, self.deadline].into_iter().flatten().min();
        let [over, ready] = open.polled();
        self.on_demand.context.wait_for(&mut [also, over, ready], until, self.waiter)?;
        if self.is_late() { Err(Self::timed_out(open)) } else { Ok(()) }
    }

    /// Waits until this server frees a descriptor, at most for the back-off time. Raises `error` at
    /// the deadline.
    fn back_off(&mut self, open: &OnDemandListener, error: &io::Error) -> Result<()> {
        if self.is_late() {
            return Err(Error::os("accept", open.admitter.local(), error));
        }
        self.failures = Failures::default();
        self.has_asked = false;
        let context = &self.on_demand.context;
        context.admission.ask_for_room();
        let pause = backoff();
        let until = self.deadline.map_or(pause, |deadline| deadline.min(pause));
        let [over, ready] = open.polled();
        let mut fds = [open.room.polled(), over, ready];
        context.wait_for(&mut fds, Some(until), self.waiter)?;
        context.origin.check()?;
        open.room.clear();
        Ok(())
    }

    /// Waits until a slot may be free.
    fn wait_for_room(&mut self, open: &OnDemandListener) -> Result<()> {
        let OnDemand { context, short_of_room, .. } = self.on_demand;
        // Counted first, so that a thread that clears the flag meanwhile takes this caller into
        // account.
        short_of_room.fetch_add(1, SeqCst);
        if context.admission.has_room() {
            short_of_room.fetch_sub(1, SeqCst);
            return Ok(());
        }
        let [over, ready] = open.polled();
        let mut fds = [open.room.polled(), over, ready];
        let woken = context.wait_for(&mut fds, self.deadline, self.waiter);
        if context.origin.is_here() {
            short_of_room.fetch_sub(1, SeqCst);
            open.room.clear();
            // One set of the flag may stand for several slots.
            if short_of_room.load(SeqCst) > 0 && context.admission.has_room() {
                open.room.set();
            }
        }
        if woken? { Ok(()) } else { Err(Self::timed_out(open)) }
    }
}
