//! Gives accepted connections and datagrams to threads of the caller's, one after the other. Owns the queue
//! between the thread that accepts and those threads; must never start a thread, nor call one back.
//!
//! What is handed out never enters a poller. Its descriptor is blocking, and the thread that has it closes
//! it. At a stop the thread that accepts waits until all of it is closed, or the deadline has passed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::handed_out::{HandedOut, JobId};
use super::inner::OuterWorkers;
use super::job::Job;
use super::lease::Leases;
use super::linger::LingerHost;
use super::parked_thread::{Assignment, ParkedThread};
use crate::net::base::{EventFd, Mutex};
use crate::net::control::ServerContext;
use crate::net::sys;
use crate::net::worker::{Accepted, Sink};

/// A thread that has waited for this time while others wait as well is not needed.
const IDLE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct State {
    /// Accepted, and not taken by a thread yet. Bounded by the limit of connections.
    queue: VecDeque<(JobId, Job)>,
    /// Threads that wait, the last one to come first: its stack is the warmest.
    idle: Vec<Arc<ParkedThread>>,
    /// Threads of the pool, announced ones included.
    threads: usize,
    /// Threads that work on a job.
    busy: usize,
    /// The last thread that was wanted could not be started.
    missing: bool,
    /// The pool has no more jobs: threads end.
    over: bool,
}

/// The threads of the caller's that serve one server's connections or datagrams.
pub(crate) struct ThreadPool {
    pub(super) context: Arc<ServerContext>,
    pub(crate) handed_out: Arc<HandedOut>,
    pub(super) linger: Arc<LingerHost>,
    state: Mutex<State>,
    most_threads: usize,
    /// Connections had to wait because every thread was busy; and whether that was said, once.
    crowded: AtomicBool,
    warned: AtomicBool,
    /// Set by the next `next` where a thread waits for room in the queue.
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

    /// Gives a job to an idle thread, or queues it for the next one that becomes idle.
    pub(crate) fn push(&self, id: JobId, job: Job) {
        let mut state = self.state.lock();
        if let Some(parked) = state.idle.pop() {
            state.busy += 1;
            drop(state);
            parked.assign(Assignment::Work(id, job));
            return;
        }
        // Not where a thread is about to take it, having just started or just finished a job.
        let full = state.busy >= self.most_threads;
        let short = state.missing && state.busy >= state.threads;
        state.queue.push_back((id, job));
        drop(state);
        if full {
            self.crowded.store(true, Relaxed);
        }
        if full || short {
            self.context.ledger.count_waited();
        }
    }

    /// How many jobs wait for a thread.
    pub(crate) fn queued(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Makes the next job that is taken set `flag`: its thread waits for room in the queue.
    pub(crate) fn ask_for_room(&self, flag: &Arc<EventFd>) {
        *self.room.lock() = Some(Arc::clone(flag));
        self.room_wanted.store(true, SeqCst);
    }

    /// Takes that back.
    pub(crate) fn forget_room(&self) {
        self.room_wanted.store(false, SeqCst);
        *self.room.lock() = None;
    }

    fn tell_room(&self) {
        if self.room_wanted.load(SeqCst) && self.room_wanted.swap(false, SeqCst) {
            let flag = self.room.lock().take();
            if let Some(flag) = flag {
                flag.set();
            }
        }
    }

    /// Announces a thread that will call `next`; false where there are enough of them.
    fn wants_thread(&self) -> bool {
        let mut state = self.state.lock();
        let wanted = state.idle.is_empty() && state.threads < self.most_threads && !state.over;
        state.threads += usize::from(wanted);
        state.missing &= !wanted;
        wanted
    }

    /// The calling thread ends.
    fn thread_left(&self) {
        self.finish_job(&mut self.state.lock());
        self.retract();
    }

    /// A thread that was announced could not be started.
    fn thread_missing(&self) {
        self.state.lock().missing = true;
        self.retract();
    }

    /// There is one thread less than was announced.
    fn retract(&self) {
        self.state.lock().threads -= 1;
        if self.handed_out.is_draining() {
            self.context.notifier.notify();
        }
    }

    fn should_warn(&self) -> bool {
        self.crowded.load(Relaxed) && !self.warned.swap(true, Relaxed)
    }

    /// The next job for the calling thread; None where the thread is to end. Blocks.
    fn next(&self) -> Option<Job> {
        let (id, job) = self.wait_for_next()?;
        self.handed_out.begin_job(id);
        self.tell_room();
        Some(job)
    }

    /// The next job, where one waits already.
    fn try_next(&self) -> Option<Job> {
        let mut state = self.state.lock();
        self.finish_job(&mut state);
        let (id, job) = state.queue.pop_front()?;
        state.busy += 1;
        drop(state);
        self.handed_out.begin_job(id);
        self.tell_room();
        Some(job)
    }

    /// The calling thread has finished its job, if it had one.
    fn finish_job(&self, state: &mut State) {
        if self.handed_out.finish_job() {
            state.busy -= 1;
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
                return Some(job);
            }
            if state.over {
                return None;
            }
            // The thread that has waited longest stays, for the next job.
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
            // Not found where it was given an assignment just now.
            if let Some(index) = found.filter(|_| state.idle.len() > 1) {
                state.idle.remove(index);
                return None;
            }
        }
    }

    /// No more jobs come: threads that wait end.
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
        let queue = std::mem::take(&mut self.state.lock().queue);
        drop(queue);
    }

    /// Threads that have not ended, the exempt ones apart.
    pub(super) fn unfinished(&self) -> usize {
        let threads = self.state.lock().threads;
        threads.saturating_sub(self.handed_out.exempt().0)
    }

    /// Whether all threads have ended and all connections are closed, the exempt ones apart.
    pub(super) fn is_finished(&self) -> bool {
        // First the threads: their number only falls, once `dismiss` was called.
        let threads = self.state.lock().threads;
        let (exempt, all) = self.handed_out.exempt();
        threads <= exempt && all
    }
}

/// The threads of a pool as a sink for accepted connections.
pub(crate) struct PoolSink {
    pool: Arc<ThreadPool>,
    leases: Leases,
}

impl PoolSink {
    /// `family` is that of the listener; `outer` are the workers of a server with stages.
    pub(crate) fn new(
        pool: &Arc<ThreadPool>,
        family: socket2::Domain,
        outer: Option<Arc<OuterWorkers>>,
    ) -> Self {
        let host = Some(Arc::clone(&pool.linger));
        let (context, handed_out) = (Arc::clone(&pool.context), Arc::clone(&pool.handed_out));
        if outer.is_none() {
            pool.linger.allow();
        }
        let leases = Leases::new(context, handed_out, host, family, outer);
        Self { pool: Arc::clone(pool), leases }
    }
}

impl Sink for PoolSink {
    /// A handler's descriptor is like any other; that of an outer connection is a worker's.
    fn nonblocking(&self) -> bool {
        self.leases.has_workers()
    }

    fn take(&mut self, accepted: Accepted) {
        if let Some((job, stream)) = self.leases.lease(accepted) {
            self.pool.push(job, Job::Stream(stream));
        }
    }

    fn begin_drain(&mut self) {
        // For reads that begin from here on; those that wait are woken by `drain`.
        self.pool.handed_out.begin_drain();
    }

    fn close(self, notifier: &EventFd) {
        self.pool.drain(notifier);
        self.leases.close();
    }
}

/// A server's pool as the caller's threads see it. Does not keep the server alive.
pub struct Pool(Arc<ThreadPool>);

impl Pool {
    pub(crate) fn new(pool: &Arc<ThreadPool>) -> Self {
        Self(Arc::clone(pool))
    }

    /// The next connection or datagram for the calling thread; None where the thread is to end. Blocks.
    #[must_use]
    pub fn next(&self) -> Option<Job> {
        self.0.next()
    }

    /// The next job, where one waits already; None does not mean that the thread is to end.
    #[must_use]
    pub fn try_next(&self) -> Option<Job> {
        self.0.try_next()
    }

    /// Whether another thread is to be started, which is then announced: it must call `next`, or
    /// `thread_missing` where it cannot be started. To be called before the first thread, and by each thread
    /// that takes a job, so that the next job finds one.
    #[must_use]
    pub fn wants_thread(&self) -> bool {
        self.0.wants_thread()
    }

    /// The calling thread ends.
    pub fn thread_left(&self) {
        self.0.thread_left();
    }

    /// A thread that was announced could not be started.
    pub fn thread_missing(&self) {
        self.0.thread_missing();
    }

    /// Whether connections had to wait because every thread was busy; true once.
    #[must_use]
    pub fn should_warn(&self) -> bool {
        self.0.should_warn()
    }

    /// Whether this is the process that made it.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.0.context.origin.is_here()
    }

    /// Sets the calling thread's name in the system: prctl(PR_SET_NAME).
    pub fn name_thread(&self, name: &str) {
        sys::name_thread(name);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.is_here() {
            std::mem::forget(Arc::clone(&self.0));
        }
    }
}
