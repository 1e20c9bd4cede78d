//! Handing accepted connections to threads of the caller's, in place of a worker: to a pool that takes
//! them one by one (`next`), or to whoever asks (`accept`). Owns the queue between the accept thread
//! and the pool, and the list of what is handed out; must never start a thread, nor call one back.
//!
//! What is handed out never enters a poller. Its descriptor is blocking, and the thread that has it
//! ends it. At a stop the accept thread stays until all of it is back, or the deadline has passed.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::net::address::endpoint::Address;
use crate::net::base::event_fd::EventFd;
use crate::net::base::lock::Mutex;
use crate::net::base::waiter::Waiter;
use crate::net::control::context::Shared;
use crate::net::control::limits::Overflow;
use crate::net::control::shutdown::{Cause, FIRST_BYTE_GRACE};
use crate::net::error::{Error, Result};
use crate::net::handoff::job::{Job, JobId};
use crate::net::handoff::linger::{self, LingerWorker};
use crate::net::handoff::parked_thread::{Assignment, ParkedThread};
use crate::net::handoff::wake_batches::WakeBatches;
use crate::net::socket::listener::Listener;
use crate::net::socket::socket::Socket;
use crate::net::stream::stream::{Lease, Stream};
use crate::net::sys::{self, PollFd};
use crate::net::worker::accept_errors::{ACCEPT_BACKOFF, Failure, TURN, classify};
use crate::net::worker::open_record::record_of;
use crate::net::worker::sink::Accepted;

/// A thread that has waited for so long while others wait as well is not needed.
const IDLE: Duration = Duration::from_secs(5);
/// How long after the deadline handlers are waited for whose connections were just reset.
const FORCED_GRACE: Duration = Duration::from_millis(30);

thread_local! {
    /// What this thread's handler is at: which server's, and the number of the job.
    static CURRENT_JOB: Cell<(*const ThreadPool, u64)> = const { Cell::new((ptr::null(), 0)) };
}

#[derive(Default)]
struct State {
    /// Accepted, and not taken by a thread yet. Bounded by the limit of connections.
    queue: VecDeque<Job>,
    /// Threads that wait, the last one to come first: its stack is the warmest.
    idle: Vec<Arc<ParkedThread>>,
    /// Threads of the pool, those on their way included.
    threads: usize,
    /// Of these, at a connection.
    busy: usize,
    /// The last one that was wanted could not be started.
    missing: bool,
    /// All that is handed out or queued, with its number; of a datagram nothing but that.
    given: Slab<(u64, Weak<Stream>)>,
    last_number: u64,
    /// Numbers of the jobs whose threads wait for the stop themselves, be the job closed or not.
    exempt: Vec<u64>,
    /// No thread is to wait any more.
    over: bool,
}

impl State {
    fn list(&mut self, stream: Weak<Stream>) -> JobId {
        self.last_number += 1;
        let number = self.last_number;
        JobId { place: self.given.insert((number, stream)), number }
    }
}

/// What those have who call `accept`.
#[derive(Clone)]
struct OnDemandListener {
    listener: Arc<Listener>,
    /// Set from when the server ends.
    over: Arc<EventFd>,
    /// Set when a connection has ended that somebody waits for.
    room: Arc<EventFd>,
}

/// The handing out of one server's connections.
pub(crate) struct ThreadPool {
    state: Mutex<State>,
    most_threads: usize,
    draining: AtomicBool,
    /// Connections had to wait because all threads there may be were busy; and that was told, once.
    crowded: AtomicBool,
    warned: AtomicBool,
    /// In `Accept`, while the server serves.
    on_demand: Mutex<Option<OnDemandListener>>,
    /// How many wait in `accept` because the limit of connections is reached.
    short_of_room: AtomicUsize,
    next_id: AtomicU64,
    /// Who sees to lingering closes; nobody with `Accept`, where a close is that of any socket.
    pub(crate) linger_worker: Mutex<LingerWorker>,
}

impl ThreadPool {
    pub(crate) fn new(most_threads: usize) -> Self {
        Self {
            state: Mutex::new(State::default()),
            most_threads,
            draining: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            warned: AtomicBool::new(false),
            on_demand: Mutex::new(None),
            short_of_room: AtomicUsize::new(0),
            next_id: AtomicU64::new(1),
            linger_worker: Mutex::default(),
        }
    }

    /// Whether the server is ending.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    /// Whether a close may linger.
    pub(crate) fn has_linger_worker(&self) -> bool {
        !matches!(*self.linger_worker.lock(), LingerWorker::None)
    }

    /// Puts an accepted connection on the list.
    fn admit(shared: &Arc<Shared>, accepted: Accepted) -> Arc<Stream> {
        let Accepted { socket, record, place } = accepted;
        let options = shared.options.clone();
        // That of the listener: an IPv4 peer of a dual-stack port has an IPv6 socket.
        let bound = shared.address().unwrap_or_else(|| record.local().address);
        let family = bound.domain();
        Arc::new_cyclic(|stream| {
            let ticket = shared.handoff.state.lock().list(Weak::clone(stream));
            let lease = Lease::new(Arc::clone(shared), place, ticket);
            Stream::accepted(socket, family, options, record, lease)
        })
    }

    /// Takes a connection off the list: its descriptor is gone.
    pub(crate) fn forget(&self, ticket: JobId) {
        let (number, _) = self.state.lock().given.remove(ticket.place);
        debug_assert_eq!(number, ticket.number, "forgotten once");
    }

    // The pool.

    /// Hands a connection to an idle thread, or queues it for the next one that is free.
    pub(crate) fn push(shared: &Arc<Shared>, accepted: Accepted) {
        Self::give(shared, Job::Stream(Self::admit(shared, accepted)));
    }

    /// The same with a job that is made of its ticket, which it gives back by `forget`.
    pub(crate) fn push_with(shared: &Arc<Shared>, job: impl FnOnce(JobId) -> Job) {
        let ticket = shared.handoff.state.lock().list(Weak::new());
        Self::give(shared, job(ticket));
    }

    fn give(shared: &Arc<Shared>, job: Job) {
        let handoff = &shared.handoff;
        let mut state = handoff.state.lock();
        if let Some(parked) = state.idle.pop() {
            state.busy += 1;
            drop(state);
            parked.give(Assignment::Take(job));
            return;
        }
        // Not where a thread is on its way, from its start or from its last connection.
        let full = state.busy >= handoff.most_threads;
        let short = state.missing && state.busy >= state.threads;
        state.queue.push_back(job);
        drop(state);
        if full {
            handoff.crowded.store(true, Relaxed);
        }
        if full || short {
            shared.ledger.count_waited();
        }
    }

    /// How many wait for a thread.
    pub(crate) fn queued(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Announces a thread that will call `next`; false where there are enough of them.
    fn announce(&self, state: &mut State) -> bool {
        let wanted = state.idle.is_empty() && state.threads < self.most_threads && !state.over;
        state.threads += usize::from(wanted);
        state.missing &= !wanted;
        wanted
    }

    /// Announces the first thread of the pool, or another one if none is idle now: whoever takes the
    /// last place at work sees to it that the next connection finds somebody.
    pub(crate) fn wants_thread(&self) -> bool {
        self.announce(&mut self.state.lock())
    }

    /// The calling thread of the pool ends.
    pub(crate) fn thread_left(&self, shared: &Shared) {
        self.come_back(&mut self.state.lock());
        self.retract(shared);
    }

    /// A thread that was announced could not be started.
    pub(crate) fn thread_missing(&self, shared: &Shared) {
        self.state.lock().missing = true;
        self.retract(shared);
    }

    /// There is one thread less than was announced.
    fn retract(&self, shared: &Shared) {
        self.state.lock().threads -= 1;
        if self.is_draining() {
            shared.notify();
        }
    }

    /// Whether connections had to wait because all threads there may be were busy: true once.
    pub(crate) fn should_warn(&self) -> bool {
        self.crowded.load(Relaxed) && !self.warned.swap(true, Relaxed)
    }

    /// The next connection for the calling thread of the pool, None where the thread is to end. Blocks
    /// for as long as it takes.
    pub(crate) fn next(&self) -> Option<Job> {
        self.wait_for_next().inspect(|job| self.note(job))
    }

    /// The next one, where it waits already.
    pub(crate) fn try_next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        self.come_back(&mut state);
        let job = state.queue.pop_front();
        state.busy += usize::from(job.is_some());
        drop(state);
        job.inspect(|job| self.note(job))
    }

    /// The calling thread is done with the connection it had, if any.
    fn come_back(&self, state: &mut State) {
        let (at, number) = CURRENT_JOB.replace((ptr::null(), 0));
        if ptr::eq(at, self) {
            state.busy -= 1;
            state.exempt.retain(|&other| other != number);
        }
    }

    fn note(&self, job: &Job) {
        if let Some(ticket) = job.ticket() {
            CURRENT_JOB.set((ptr::from_ref(self), ticket.number));
        }
    }

    fn wait_for_next(&self) -> Option<Job> {
        let parked;
        let mut deadline;
        {
            let mut state = self.state.lock();
            self.come_back(&mut state);
            if let Some(job) = state.queue.pop_front() {
                state.busy += 1;
                return Some(job);
            }
            if state.over {
                return None;
            }
            // The one that has waited longest stays, for whoever comes.
            deadline = (!state.idle.is_empty()).then(|| Instant::now() + IDLE);
            parked = Arc::new(ParkedThread::default());
            state.idle.push(Arc::clone(&parked));
        }
        loop {
            match parked.wait(deadline) {
                Some(Assignment::Take(job)) => return Some(job),
                Some(Assignment::Leave) => return None,
                None => {}
            }
            let mut state = self.state.lock();
            let Some(place) = state.idle.iter().position(|other| Arc::ptr_eq(other, &parked))
            else {
                // Just given something.
                deadline = None;
                continue;
            };
            if state.idle.len() > 1 {
                state.idle.remove(place);
                return None;
            }
            deadline = None;
        }
    }

    /// The calling thread is at a handler of this server and waits for its stop: nobody needs to wait
    /// for that handler, nor end its connection, if it still has one.
    pub(crate) fn exempt_caller(&self, shared: &Shared) {
        let (at, number) = CURRENT_JOB.get();
        if !ptr::eq(at, self) {
            return;
        }
        let mut state = self.state.lock();
        if !state.exempt.contains(&number) {
            state.exempt.push(number);
        }
        drop(state);
        // A stop that is under way may have waited for nobody else.
        if self.is_draining() {
            shared.notify();
        }
    }

    // The end.

    /// From here on reads see the end of what is there.
    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, SeqCst);
    }

    /// Nothing more comes: threads that wait are told so.
    fn dismiss(&self) {
        let mut state = self.state.lock();
        state.over = true;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        for parked in idle {
            parked.give(Assignment::Leave);
        }
    }

    fn streams(&self) -> Vec<Arc<Stream>> {
        let state = self.state.lock();
        let given = state.given.iter().map(|(_, job)| job);
        let waited_for = given.filter(|(number, _)| !state.exempt.contains(number));
        let streams = waited_for.filter_map(|(_, stream)| stream.upgrade()).collect();
        // A stream dropped here would take the lock.
        drop(state);
        streams
    }

    /// Whether all is back that is waited for.
    fn is_empty(&self) -> bool {
        let state = self.state.lock();
        let exempt = |number| state.exempt.contains(number);
        state.threads <= state.exempt.len()
            && state.given.iter().all(|(_, (number, _))| exempt(number))
    }

    /// Waits for the handlers, until the deadline: the accept thread's last work.
    pub(crate) fn drain_pool(&self, shared: &Shared, notifier: &EventFd) {
        let grace = Instant::now() + FIRST_BYTE_GRACE;
        let mut graceful = true;
        self.dismiss();
        let mut batches =
            WakeBatches::new(if shared.stop.is_hard() { Vec::new() } else { self.streams() });
        loop {
            notifier.clear();
            let (now, deadline) = (Instant::now(), shared.stop.deadline());
            if self.is_empty() || deadline <= now {
                break;
            }
            if graceful && grace <= now {
                graceful = false;
                batches = WakeBatches::new(self.streams());
            }
            let there = self.state.lock().given.len();
            let more = batches.make(graceful, now, there);
            let until = if graceful { deadline.min(grace) } else { deadline };
            let until = more.map_or(until, |more| until.min(more));
            let _ = sys::poll(&mut [PollFd::readable(notifier.as_fd())], Some(until));
        }
        // Whoever comes back from here on is closed at once.
        linger::end(shared);
        self.streams().iter().for_each(|stream| stream.force());
        // Those nobody has taken are dropped, and with it closed.
        let queue = std::mem::take(&mut self.state.lock().queue);
        drop(queue);
        let home = Instant::now() + FORCED_GRACE;
        while !self.is_empty() && Instant::now() < home {
            let _ = sys::poll(&mut [PollFd::readable(notifier.as_fd())], Some(home));
            notifier.clear();
        }
        let state = self.state.lock();
        let left = state.threads.saturating_sub(state.exempt.len());
        drop(state);
        shared.stop.count_abandoned(left as u64);
    }

    /// Waits for calls that are under way in other threads, until the deadline; all else is closed.
    pub(crate) fn drain_asked(&self, shared: &Shared, notifier: &EventFd) {
        let mut ended = false;
        loop {
            notifier.clear();
            let hard = shared.stop.deadline() <= Instant::now();
            let streams = self.streams();
            if hard {
                streams.iter().for_each(|stream| stream.force());
            } else if !ended {
                ended = true;
                for stream in &streams {
                    stream.end_reads(false);
                }
            }
            let busy = streams.iter().filter(|stream| !stream.close_if_idle()).count();
            if busy == 0 {
                return;
            }
            let until = if hard { Instant::now() + FORCED_GRACE } else { shared.stop.deadline() };
            let notified = sys::poll(&mut [PollFd::readable(notifier.as_fd())], Some(until));
            if hard && notified.is_ok_and(|count| count == 0) {
                return;
            }
        }
    }

    // `Accept`: whoever asks.

    /// Lends the listener to those who call `accept`.
    pub(crate) fn open(&self, listener: Listener) -> io::Result<()> {
        let (over, room) = (Arc::new(EventFd::new()?), Arc::new(EventFd::new()?));
        *self.on_demand.lock() =
            Some(OnDemandListener { listener: Arc::new(listener), over, room });
        Ok(())
    }

    /// Takes the listener back and closes it. Those who wait leave; what is still in the queue is
    /// reset by the kernel. Returns how many that was.
    pub(crate) fn shut(&self) -> usize {
        let on_demand = self.on_demand.lock().take();
        on_demand.map_or(0, |OnDemandListener { listener, over, .. }| {
            let waiting = listener.waiting();
            listener.shut();
            over.set();
            waiting
        })
    }

    /// A place is free, or a descriptor. False where nobody accepts by asking.
    pub(crate) fn tell_room(&self) -> bool {
        let on_demand = self.on_demand.lock().clone();
        on_demand.inspect(|on_demand| on_demand.room.set()).is_some()
    }

    /// accept4(2) for the caller, who waits for it. None once the server ends.
    ///
    /// Waits while the limit of connections is reached, and while the process is out of descriptors:
    /// then the error is raised only at the deadline.
    pub(crate) fn accept(
        shared: &Arc<Shared>,
        local: &Address,
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Option<Arc<Stream>>> {
        let handoff = &shared.handoff;
        let late = || Error::TimedOut { step: "accept", target: local.to_string() };
        let is_late = || deadline.is_some_and(|deadline| deadline <= Instant::now());
        let mut failed = 0;
        loop {
            let on_demand = handoff.on_demand.lock().clone();
            let Some(OnDemandListener { listener, over, room }) =
                on_demand.filter(|_| !shared.stop.has_begun())
            else {
                return Ok(None);
            };
            // A place first, so that no connection is taken that could not be kept.
            let placed = shared.enter();
            if !placed && shared.limits.overflow == Overflow::Wait {
                // First, so that whoever clears the notifier meanwhile sees whom it was for.
                handoff.short_of_room.fetch_add(1, SeqCst);
                if shared.has_room() {
                    handoff.short_of_room.fetch_sub(1, SeqCst);
                } else {
                    let mut fds = [PollFd::readable(room.as_fd()), PollFd::readable(over.as_fd())];
                    let result = waiter.wait(&mut fds, deadline);
                    handoff.short_of_room.fetch_sub(1, SeqCst);
                    room.clear();
                    // One ring may stand for several places.
                    if handoff.short_of_room.load(SeqCst) > 0 && shared.has_room() {
                        room.set();
                    }
                    if !result? {
                        return Err(late());
                    }
                }
                continue;
            }
            let accepted = listener.accept(false);
            let give_back = || {
                shared.give_back();
                if handoff.short_of_room.load(SeqCst) > 0 {
                    room.set();
                }
            };
            if accepted.is_err() && placed {
                give_back();
            }
            let error = match accepted {
                Ok((fd, peer))
                    if !placed || !shared.enter_host(peer.as_ref().and_then(Address::as_ip)) =>
                {
                    if placed {
                        give_back();
                    }
                    shared.ledger.count_refused();
                    Socket::new(fd).abort();
                    if is_late() {
                        return Err(late());
                    }
                    waiter.breathe()?;
                    continue;
                }
                Ok((fd, peer)) => {
                    let socket = Socket::new(fd);
                    let id = handoff.next_id.fetch_add(1, Relaxed);
                    let record = record_of(&socket, id, peer, local, shared);
                    let place = shared.ledger.open(&record);
                    return Ok(Some(Self::admit(shared, Accepted { socket, record, place })));
                }
                Err(error) => error,
            };
            let failure = classify(error.raw_os_error().unwrap_or(libc::EIO));
            if failure == Failure::Empty {
                let mut fds = [PollFd::readable(listener.as_fd()), PollFd::readable(over.as_fd())];
                if !waiter.wait(&mut fds, deadline)? {
                    return Err(late());
                }
                failed = 0;
                continue;
            }
            shared.ledger.count_accept_error();
            failed += 1;
            match failure {
                Failure::Fatal => {
                    shared.stop_by_itself(Cause::AcceptError);
                    return Err(Error::os("accept", local, &error));
                }
                // One that says it is of one connection may be of all.
                Failure::Connection if failed < TURN => {
                    if is_late() {
                        return Err(late());
                    }
                    waiter.breathe()?;
                }
                _ if is_late() => return Err(Error::os("accept", local, &error)),
                _ => {
                    failed = 0;
                    // Until a descriptor of ours is given back, or for a while.
                    shared.ask_for_room();
                    let rest = Instant::now() + ACCEPT_BACKOFF;
                    let until = deadline.map_or(rest, |deadline| deadline.min(rest));
                    let mut fds = [PollFd::readable(room.as_fd()), PollFd::readable(over.as_fd())];
                    waiter.wait(&mut fds, Some(until))?;
                    room.clear();
                }
            }
        }
    }
}
