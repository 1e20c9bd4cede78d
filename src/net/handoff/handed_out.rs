//! The jobs that one server has given to its caller's threads: connections, datagrams. Owns their
//! list and which threads a stop does not wait for; must never keep a job alive, nor close one.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use slab::Slab;

use super::lifetime::LifetimeCheck;
use crate::net::base::Mutex;
use crate::net::control::ServerContext;
use crate::net::stream::{Stream, is_in_call};

thread_local! {
    /// The job that this thread is working on: the address of its list, and its number.
    static CURRENT_JOB: Cell<(*const HandedOut, u64)> = const { Cell::new((ptr::null(), 0)) };
}

/// A job's slot in the list, and its number. A slot is used again while a handler may still work on
/// the job that had it before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobId {
    slot: usize,
    number: u64,
}

impl JobId {
    /// The number, which no other job of the list has.
    pub(super) fn number(self) -> u64 {
        self.number
    }
}

#[derive(Default)]
struct List {
    /// All jobs that are queued or handed out, by slot. A datagram has only a number.
    jobs: Slab<(u64, Weak<Stream>)>,
    last_number: u64,
    /// Numbers of the jobs whose threads are themselves waiting for the stop, whether or not the
    /// job is closed.
    exempt: Vec<u64>,
}

/// The jobs that one server has handed out.
#[derive(Default)]
pub(crate) struct HandedOut {
    list: Mutex<List>,
    /// The server is draining: reads return the end of input once the receive buffer is empty.
    draining: Arc<AtomicBool>,
    lifetime: LifetimeCheck,
    /// Jobs whose stages are not ready yet.
    openings: AtomicUsize,
}

/// Counts one job whose stages are not ready yet, for as long as it exists.
pub(super) struct PendingOpening {
    handed_out: Arc<HandedOut>,
    context: Arc<ServerContext>,
}

impl PendingOpening {
    pub(super) fn new(handed_out: &Arc<HandedOut>, context: &Arc<ServerContext>) -> Self {
        handed_out.openings.fetch_add(1, SeqCst);
        Self { handed_out: Arc::clone(handed_out), context: Arc::clone(context) }
    }
}

impl Drop for PendingOpening {
    fn drop(&mut self) {
        self.handed_out.openings.fetch_sub(1, SeqCst);
        if self.handed_out.is_draining() {
            self.context.notifier.notify();
        }
    }
}

impl HandedOut {
    /// A connection that began at `opened` is handed out. True if the thread that calls `end_old`
    /// must be woken.
    pub(super) fn plan_end(&self, limit: Option<Duration>, opened: Instant) -> bool {
        self.lifetime.plan(limit, opened)
    }

    /// When `end_old` must be called next.
    pub(super) fn end_due(&self) -> Option<Instant> {
        self.lifetime.due()
    }

    /// Ends the connections that are older than `limit`.
    pub(super) fn end_old(&self, limit: Option<Duration>) {
        // A worker holds the limit of those with an inner socket.
        let is_itself = |stream: &Arc<Stream>| !stream.is_inner();
        self.lifetime.run(limit, || self.streams().into_iter().filter(is_itself).collect());
    }

    /// Whether the server is draining.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    /// The flag behind `is_draining`, for code that reads it at each call.
    pub(crate) fn draining_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.draining)
    }

    /// Makes reads return the end of input once the receive buffer is empty.
    pub(crate) fn begin_drain(&self) {
        self.draining.store(true, SeqCst);
    }

    /// Adds a job. `stream` is empty for a datagram.
    pub(crate) fn add(&self, stream: Weak<Stream>) -> JobId {
        let mut list = self.list.lock();
        list.last_number += 1;
        let number = list.last_number;
        JobId { slot: list.jobs.insert((number, stream)), number }
    }

    /// Removes a job whose descriptor is closed.
    pub(crate) fn remove(&self, job: JobId) {
        let (number, _) = self.list.lock().jobs.remove(job.slot);
        debug_assert_eq!(number, job.number, "removed once");
    }

    /// Removes a job, and wakes the thread that ends the server, which may wait for this.
    pub(crate) fn remove_and_notify(&self, job: JobId, context: &ServerContext) {
        self.remove(job);
        if self.is_draining() {
            context.notifier.notify();
        }
    }

    /// Whether there are jobs whose stages are not ready yet.
    pub(super) fn has_openings(&self) -> bool {
        self.openings.load(SeqCst) > 0
    }

    pub(crate) fn len(&self) -> usize {
        self.list.lock().jobs.len()
    }

    /// All connections, also those that a stop does not wait for.
    pub(crate) fn all_streams(&self) -> Vec<Arc<Stream>> {
        let list = self.list.lock();
        let streams = list.jobs.iter().filter_map(|(_, (_, stream))| stream.upgrade()).collect();
        // Unlocked first, as in `streams`.
        drop(list);
        streams
    }

    /// The connections that a stop waits for.
    pub(crate) fn streams(&self) -> Vec<Arc<Stream>> {
        let list = self.list.lock();
        let jobs = list.jobs.iter().map(|(_, job)| job);
        let waited_for = jobs.filter(|(number, _)| !list.exempt.contains(number));
        let streams = waited_for.filter_map(|(_, stream)| stream.upgrade()).collect();
        // Unlocked first, because the drop of a stream takes the lock.
        drop(list);
        streams
    }

    /// The number of exempt threads, and whether all jobs are exempt.
    pub(crate) fn exempt(&self) -> (usize, bool) {
        let list = self.list.lock();
        let all = list.jobs.iter().all(|(_, (number, _))| list.exempt.contains(number));
        (list.exempt.len(), all)
    }

    /// Notes that the calling thread now works on `job`.
    pub(crate) fn begin_job(&self, job: JobId) {
        CURRENT_JOB.set((ptr::from_ref(self), job.number));
    }

    /// Notes that the calling thread has finished its job. Returns the job's number, if the job was
    /// in this list.
    pub(crate) fn finish_job(&self) -> Option<u64> {
        let (list, number) = CURRENT_JOB.replace((ptr::null(), 0));
        let ours = ptr::eq(list, self);
        if ours {
            self.list.lock().exempt.retain(|&other| other != number);
        }
        ours.then_some(number)
    }

    /// The number of the job of the calling thread, if it is in this list.
    pub(super) fn current_job(&self) -> Option<u64> {
        let (list, number) = CURRENT_JOB.get();
        ptr::eq(list, self).then_some(number)
    }

    /// Exempts the jobs that the calling thread is in the middle of, which waits for the stop of
    /// its own server: the one that it works on as a handler, and those whose connections it is in
    /// a call of, because a signal handler runs within such a call. The stop then waits neither for
    /// these handlers nor for the end of their connections.
    pub(crate) fn exempt_caller(&self, context: &ServerContext) {
        let (current, number) = CURRENT_JOB.get();
        let mut list = self.list.lock();
        let jobs = list.jobs.iter().map(|(_, job)| job);
        let called: Vec<_> = jobs.filter(|(_, stream)| is_in_call(stream.as_ptr())).collect();
        let mut numbers: Vec<_> = called.iter().map(|&&(number, _)| number).collect();
        let called: Vec<_> = called.iter().filter_map(|(_, stream)| stream.upgrade()).collect();
        if ptr::eq(current, self) {
            numbers.push(number);
        }
        numbers.retain(|number| !list.exempt.contains(number));
        if numbers.is_empty() {
            return;
        }
        list.exempt.extend(numbers);
        drop(list);
        for stream in called {
            // The call goes on when the stop has returned, and no thread of the server is left then
            // to wake it.
            stream.end_reads(false);
        }
        // A stop may be waiting for this job only.
        if self.is_draining() {
            context.notifier.notify();
        }
    }
}
