//! The list of what one server has given to threads of its caller: connections and datagrams. Must never
//! keep one alive, nor close one.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use slab::Slab;

use crate::net::base::Mutex;
use crate::net::control::ServerContext;
use crate::net::stream::Stream;

thread_local! {
    /// The job that this thread is working on: the list it is on, and its number.
    static CURRENT_JOB: Cell<(*const HandedOut, u64)> = const { Cell::new((ptr::null(), 0)) };
}

/// A job's slot in the list, and its number: slots are used again while a handler still works on
/// the job that had them before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobId {
    slot: usize,
    number: u64,
}

#[derive(Default)]
struct List {
    /// All that is handed out or queued, by number; of a datagram only the number.
    jobs: Slab<(u64, Weak<Stream>)>,
    last_number: u64,
    /// Numbers of the jobs whose threads wait for the stop themselves, whether or not the job is closed.
    exempt: Vec<u64>,
}

/// What one server has handed out.
#[derive(Default)]
pub(crate) struct HandedOut {
    list: Mutex<List>,
    /// The server is ending: reads return the end of input once nothing more is there.
    draining: Arc<AtomicBool>,
}

impl HandedOut {
    /// Whether the server is ending.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    /// The flag behind `is_draining`, for those who read it at each call.
    pub(crate) fn draining_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.draining)
    }

    /// From here on reads return the end of input once nothing more is there.
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

    /// Removes a job: its descriptor is closed.
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

    pub(crate) fn len(&self) -> usize {
        self.list.lock().jobs.len()
    }

    /// The connections that a stop waits for.
    pub(crate) fn streams(&self) -> Vec<Arc<Stream>> {
        let list = self.list.lock();
        let jobs = list.jobs.iter().map(|(_, job)| job);
        let waited_for = jobs.filter(|(number, _)| !list.exempt.contains(number));
        let streams = waited_for.filter_map(|(_, stream)| stream.upgrade()).collect();
        // A stream dropped here would take the lock.
        drop(list);
        streams
    }

    /// How many threads are exempt, and whether all jobs are.
    pub(crate) fn exempt(&self) -> (usize, bool) {
        let list = self.list.lock();
        let all = list.jobs.iter().all(|(_, (number, _))| list.exempt.contains(number));
        (list.exempt.len(), all)
    }

    /// Notes that the calling thread now works on `job`.
    pub(crate) fn begin_job(&self, job: JobId) {
        CURRENT_JOB.set((ptr::from_ref(self), job.number));
    }

    /// Notes that the calling thread has finished its job; whether it had one of this list.
    pub(crate) fn finish_job(&self) -> bool {
        let (list, number) = CURRENT_JOB.replace((ptr::null(), 0));
        let ours = ptr::eq(list, self);
        if ours {
            self.list.lock().exempt.retain(|&other| other != number);
        }
        ours
    }

    /// Exempts the job of the calling thread, which waits for the stop of its own server: the stop waits
    /// neither for that handler nor for the end of its connection.
    pub(crate) fn exempt_caller(&self, context: &ServerContext) {
        let (list, number) = CURRENT_JOB.get();
        if !ptr::eq(list, self) {
            return;
        }
        let mut list = self.list.lock();
        if !list.exempt.contains(&number) {
            list.exempt.push(number);
        }
        drop(list);
        // A stop that is under way may wait for this job only.
        if self.is_draining() {
            context.notifier.notify();
        }
    }
}
