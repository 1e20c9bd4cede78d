//! The pool of the caller's threads, which take accepted connections or datagrams one after the
//! other. Owns the queue between the accept thread and those threads; must never start a thread,
//! nor call into one.
//!
//! A connection that is handed out never enters a poller. Its descriptor is blocking, and the
//! thread that works on it closes it. At a stop the accept thread waits until all of them are
//! closed, or the deadline has passed.

use std::cell::Cell;
use std::collections::VecDeque;
use std::mem;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::handed_out::{HandedOut, JobId};
use super::inner::OuterHost;
use super::job::{Datagram, Job};
use super::lease::{Leased, Leases};
use super::linger::LingerHost;
use super::parked_thread::{Assignment, ParkedThread};
use super::turns::{Turn, Turns};
use crate::net::base::{EventFd, Mutex, MutexGuard};
use crate::net::control::ServerContext;
use crate::net::sys;
use crate::net::worker::{Accepted, Sink};

thread_local! {
    /// The pool that this thread is in, and whether it is exempt as a thread that ends.
    static MEMBER: Cell<(*const ThreadPool, bool)> = const { Cell::new((ptr::null(), false)) };
}

/// How long a thread waits for a job while other threads wait as well. Then it ends.
const IDLE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct State {
    /// Jobs that no thread has taken yet. Bounded by the limit of connections.
    queue: VecDeque<(JobId, Job)>,
    /// How many of the last ones of the queue are not counted as waiting: a thread may be about to
    /// take them, having just started or just finished a job.
    uncounted: usize,
    /// Waiting threads. The one that has waited least is used first, because its stack is still in
    /// the cache.
    idle: Vec<Arc<ParkedThread>>,
    /// The number of threads in the pool, from their announcement until the system has ended them.
    threads: usize,
    /// The number of those that themselves wait for the stop, without a job.
    exempt: usize,
    /// The number of threads that work on a job.
    busy: usize,
    /// The last thread that was wanted could not be started.
    missing: bool,
    /// No more jobs follow: threads end.
    over: bool,
    /// The jobs that wait for an earlier one of the same peer.
    turns: Turns,
}

/// The caller's threads that serve one server's connections or datagrams.
pub(crate) struct ThreadPool {
    pub(super) context: Arc<ServerContext>,
    pub(crate) handed_out: Arc<HandedOut>,
    pub(super) linger: Arc<LingerHost>,
    state: Mutex<State>,
    most_threads: usize,
    /// Whether a connection has had to wait because every thread was busy, and whether the warning
    /// was given.
    crowded: AtomicBool,
    warned: AtomicBool,
    /// Set when the next job is taken, because a thread waits for room in the queue.
    room: Mutex<Option<Arc<EventFd>>>,
    room_wanted: AtomicBool,
}

impl ThreadPool {
    pub(crate) fn new(context: &Arc<ServerContext>) -> Self {
        Self {
            context: Arc::clone(context),
            handed_out: Arc::default(),
            linger: Arc::new(LingerHost::new()),
            state: Mutex::new(State::default()),
            most_threads: context.limits.handler_threads,
            crowded: AtomicBool::new(false),
            warned: AtomicBool::new(false),
            room: Mutex::new(None),
            room_wanted: AtomicBool::new(false),
        }
    }

    /// Gives a job to an idle thread, or queues it for the next thread that becomes idle.
    pub(crate) fn push(&self, id: JobId, job: Job) {
        self.push_to(self.state.lock(), id, job);
    }

    /// The same with a datagram, which has its turn after the earlier ones of its peer. Dropped and
    /// counted if too much waits for that peer: the others must not wait for it.
    pub(crate) fn push_in_turn(&self, id: JobId, datagram: Datagram) {
        let (peer, bytes) = (datagram.from().clone(), datagram.data().len());
        let mut state = self.state.lock();
        match state.turns.add(peer, id, Job::Datagram(datagram), bytes) {
            Turn::Now(job) => self.push_to(state, id, job),
            Turn::Later => {}
            Turn::NoRoom(job) => {
                drop(state);
                drop(job);
                self.context.ledger.count_dropped(1);
            }
        }
    }

    fn push_to(&self, mut state: MutexGuard<'_, State>, id: JobId, job: Job) {
        if let Some(parked) = state.idle.pop() {
            state.busy += 1;
            drop(state);
            parked.assign(Assignment::Work(id, job));
            return;
        }
        state.queue.push_back((id, job));
        state.uncounted += 1;
        let waiting = self.newly_waiting(&mut state);
        drop(state);
        self.context.ledger.count_waited(waiting);
    }

    /// How many queued jobs are known to wait since now, because no thread is left to take them:
    /// asked when one is queued, and when a thread has taken one.
    fn newly_waiting(&self, state: &mut State) -> usize {
        let full = state.busy >= self.most_threads;
        let short = state.missing && state.busy >= state.threads;
        // Those that were taken meanwhile were the first.
        let waiting = mem::take(&mut state.uncounted).min(state.queue.len());
        if waiting == 0 || !(full || short) {
            state.uncounted = waiting;
            return 0;
        }
        if full {
            self.crowded.store(true, Relaxed);
        }
        waiting
    }

    /// The number of jobs that wait for a thread.
    pub(crate) fn queued(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Sets `flag` when the next job is taken: the caller waits for room in the queue.
    pub(crate) fn ask_for_room(&self, flag: &Arc<EventFd>) {
        *self.room.lock() = Some(Arc::clone(flag));
        self.room_wanted.store(true, SeqCst);
    }

    /// Cancels `ask_for_room`.
    pub(crate) fn forget_room(&self) {
        self.room_wanted.store(false, SeqCst);
        *self.room.lock() = None;
    }

    fn notify_room(&self) {
        if self.room_wanted.load(SeqCst) && self.room_wanted.swap(false, SeqCst) {
            let flag = self.room.lock().take();
            if let Some(flag) = flag {
                flag.set();
            }
        }
    }

    /// Announces a thread that will call `next`. False if no further thread is needed.
    fn wants_thread(&self) -> bool {
        let mut state = self.state.lock();
        // A stop may begin before the first thread is there.
        let may_come = !state.over || !state.queue.is_empty();
        let wanted = state.idle.is_empty() && state.threads < self.most_threads && may_come;
        state.threads += usize::from(wanted);
        state.missing &= !wanted;
        wanted
    }

    /// The calling thread takes no further job.
    fn thread_ends(&self) {
        let mut state = self.state.lock();
        self.finish_job(&mut state);
        // The next job of its peer is for another thread.
        if let Some((id, job)) = state.queue.pop_front() {
            self.push_to(state, id, job);
        }
    }

    /// The announced thread could not be started.
    fn thread_missing(&self) {
        self.state.lock().missing = true;
        self.retract();
    }

    /// Takes one announced thread off the count.
    fn retract(&self) {
        self.state.lock().threads -= 1;
        if self.handed_out.is_draining() {
            self.context.notifier.notify();
        }
    }

    fn should_warn(&self) -> bool {
        self.crowded.load(Relaxed) && !self.warned.swap(true, Relaxed)
    }

    /// Blocks until there is a job for the calling thread. None if the thread must end.
    fn next(&self) -> Option<Job> {
        let (id, job) = self.wait_for_next()?;
        self.handed_out.begin_job(id);
        self.notify_room();
        Some(job)
    }

    /// A job that waits already, if any.
    fn try_next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        self.finish_job(&mut state);
        let (id, job) = state.queue.pop_front()?;
        state.busy += 1;
        let waiting = self.newly_waiting(&mut state);
        drop(state);
        self.context.ledger.count_waited(waiting);
        self.handed_out.begin_job(id);
        self.notify_room();
        Some(job)
    }

    /// Counts the calling thread as idle, if it had a job.
    fn finish_job(&self, state: &mut State) {
        if let Some(number) = self.handed_out.finish_job() {
            state.busy -= 1;
            // The calling thread takes the first job of the queue itself.
            state.queue.extend(state.turns.finish(number));
        }
    }

    /// Exempts the calling thread, which waits for the stop of this server: the stop waits neither
    /// for it nor for the end of its connection.
    pub(crate) fn exempt_caller(self: &Arc<Self>) {
        // The next job of its peer is for another thread.
        if let Some(number) = self.handed_out.current_job() {
            let mut state = self.state.lock();
            if let Some((id, job)) = state.turns.finish(number) {
                self.push_to(state, id, job);
            }
        }
        self.handed_out.exempt_caller(&self.context);
        let (pool, exempt) = MEMBER.get();
        if !ptr::eq(pool, Arc::as_ptr(self)) || exempt || self.handed_out.current_job().is_some() {
            return;
        }
        // It ends: a finalizer of the thread's own objects may stop the server.
        MEMBER.set((pool, true));
        self.state.lock().exempt += 1;
        if self.handed_out.is_draining() {
            self.context.notifier.notify();
        }
    }

    fn wait_for_next(&self) -> Option<(JobId, Job)> {
        let parked;
        let mut deadline;
        {
            let mut state = self.state.lock();
            self.finish_job(&mut state);
            if let Some(job) = state.queue.pop_front() {
                state.busy += 1;
                let waiting = self.newly_waiting(&mut state);
                drop(state);
                self.context.ledger.count_waited(waiting);
                return Some(job);
            }
            if state.over {
                return None;
            }
            // The thread that has waited longest stays for the next job.
            deadline = (!state.idle.is_empty()).then(|| Instant::now() + IDLE);
            parked = Arc::new(ParkedThread::default());
            state.idle.push(Arc::clone(&parked));
        }
        loop {
            match parked.wait(deadline) {
                Some(Assignment::Work(id, job)) => return Some((id, job)),
                Some(Assignment::Exit) => return None,
                None => {}
            }
            let mut state = self.state.lock();
            let found = state.idle.iter().position(|other| Arc::ptr_eq(other, &parked));
            deadline = None;
            // If it is not found, it was given an assignment meanwhile.
            if let Some(index) = found.filter(|_| state.idle.len() > 1) {
                state.idle.remove(index);
                return None;
            }
        }
    }

    /// Ends the threads that wait. No more jobs follow.
    pub(super) fn dismiss(&self) {
        let mut state = self.state.lock();
        state.over = true;
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        for parked in idle {
            parked.assign(Assignment::Exit);
        }
    }

    /// Closes the connections that no thread has taken.
    pub(super) fn drop_queue(&self) {
        let mut state = self.state.lock();
        let left = (std::mem::take(&mut state.queue), state.turns.take());
        drop(state);
        drop(left);
    }

    /// The number of threads that work on a job, without the exempt ones.
    pub(super) fn unfinished(&self) -> usize {
        let busy = self.state.lock().busy;
        busy.saturating_sub(self.handed_out.exempt().0)
    }

    /// Whether all threads have ended and all connections are closed, apart from the exempt ones.
    pub(super) fn is_finished(&self) -> bool {
        // The threads first: after `dismiss` their number only falls.
        let (threads, ending) = {
            let state = self.state.lock();
            (state.threads, state.exempt)
        };
        let (exempt, all) = self.handed_out.exempt();
        threads <= exempt + ending && all
    }
}

/// The sink that gives accepted connections to a pool.
pub(crate) struct PoolSink {
    pool: Arc<ThreadPool>,
    leases: Leases,
}

impl PoolSink {
    /// `family` is that of the listener. `is_prepared` is whether every connection stays with a
    /// worker of `outer`.
    pub(crate) fn new(
        pool: &Arc<ThreadPool>,
        family: socket2::Domain,
        outer: &Arc<OuterHost>,
        is_prepared: bool,
    ) -> Self {
        let host = Some(Arc::clone(&pool.linger));
        let (context, handed_out) = (Arc::clone(&pool.context), Arc::clone(&pool.handed_out));
        if !is_prepared {
            pool.linger.allow();
        }
        let leases = Leases::new(context, handed_out, host, family, outer, is_prepared);
        Self { pool: Arc::clone(pool), leases }
    }
}

impl Sink for PoolSink {
    /// A handler's descriptor is like any other; that of an outer connection is a worker's.
    fn nonblocking(&self) -> bool {
        self.leases.nonblocking()
    }

    fn take(&mut self, accepted: Accepted) {
        match self.leases.lease(accepted) {
            Leased::Now(job, stream) => self.pool.push(job, Job::Stream(stream)),
            Leased::Later(lease) => {
                let pool = Arc::clone(&self.pool);
                lease.then(move |job, stream| pool.push(job, Job::Stream(stream)));
            }
            Leased::Nothing => {}
        }
    }

    fn due(&self) -> Option<Instant> {
        self.pool.handed_out.end_due()
    }

    fn check(&mut self) {
        self.pool.handed_out.end_old(self.pool.context.limits.lifetime);
    }

    fn begin_drain(&mut self) {
        // For reads that begin from now on. `drain` wakes the blocked ones.
        self.pool.handed_out.begin_drain();
    }

    fn close(self, notifier: &EventFd) {
        self.pool.drain(notifier);
        self.leases.close();
    }
}

/// A server's pool, as the caller's threads use it. Does not keep the server alive.
pub struct Pool(Arc<ThreadPool>);

impl Pool {
    pub(crate) fn new(pool: &Arc<ThreadPool>) -> Self {
        Self(Arc::clone(pool))
    }

    /// Blocks until there is a connection or a datagram for the calling thread. None if the thread
    /// must end.
    #[must_use]
    pub fn next(&self) -> Option<Job> {
        self.0.next()
    }

    /// A job that waits already. None does not mean that the thread must end.
    #[must_use]
    pub fn try_next(&self) -> Option<Job> {
        self.0.try_next()
    }

    /// Whether the caller should start another thread. True announces it: the thread must call
    /// `enter`, or the caller `thread_missing` if it cannot be started. Call it before the first
    /// thread, and in each thread that takes a job, so that a thread waits for the next job.
    #[must_use]
    pub fn wants_thread(&self) -> bool {
        self.0.wants_thread()
    }

    /// The calling thread, which was announced, is in the pool until the `Member` is dropped.
    #[must_use]
    pub fn enter(&self) -> Member {
        MEMBER.set((Arc::as_ptr(&self.0), false));
        Member(Arc::clone(&self.0))
    }

    /// The calling thread takes no further job. Its `Member` is still to be dropped.
    pub fn thread_ends(&self) {
        self.0.thread_ends();
    }

    /// The announced thread could not be started.
    pub fn thread_missing(&self) {
        self.0.thread_missing();
    }

    /// Whether a connection has had to wait because every thread was busy. True once only.
    #[must_use]
    pub fn should_warn(&self) -> bool {
        self.0.should_warn()
    }

    /// Whether the calling process made the pool, rather than inherited it by a fork.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.0.context.origin.is_here()
    }

    /// Sets the calling thread's name in the system: prctl(2), PR_SET_NAME.
    pub fn name_thread(&self, name: &str) {
        sys::name_thread(name);
    }
}

/// The place of one thread in a pool. Dropped by that thread, as late as it can be: a stop waits
/// for it until its deadline.
pub struct Member(Arc<ThreadPool>);

impl Drop for Member {
    fn drop(&mut self) {
        let (_, exempt) = MEMBER.replace((ptr::null(), false));
        if !self.0.context.origin.is_here() {
            std::mem::forget(Arc::clone(&self.0));
            return;
        }
        if exempt {
            self.0.state.lock().exempt -= 1;
        }
        self.0.retract();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.is_here() {
            std::mem::forget(Arc::clone(&self.0));
        }
    }
}
