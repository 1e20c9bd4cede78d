//! The end of a server: who asked for it, until when, and what came of it. Owns the deadline and the
//! report; must never close anything itself, nor hold its lock while it waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::net::base::event_fd::EventFd;
use crate::net::base::lock::Mutex;
use crate::net::base::waiter::Waiter;

/// How long a draining server waits for the first byte of a connection not yet heard from.
pub(crate) const FIRST_BYTE_GRACE: Duration = Duration::from_millis(250);

/// Why a server stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// `stop()` was called.
    Stop,
    /// Ctrl-C in `run()`.
    Sigint,
    /// SIGTERM in `run()`.
    Sigterm,
    /// The body of its `with` raised.
    Exception,
    /// Its listener can never accept again.
    AcceptError,
    /// The interpreter ends.
    Exit,
    /// Nobody refers to it any more.
    Dropped,
}

impl Cause {
    /// The name users see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Sigint => "SIGINT",
            Self::Sigterm => "SIGTERM",
            Self::Exception => "exception",
            Self::AcceptError => "accept error",
            Self::Exit => "exit",
            Self::Dropped => "dropped",
        }
    }

    /// The cause of a name, for callers that hold one as text.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [
            Self::Stop,
            Self::Sigint,
            Self::Sigterm,
            Self::Exception,
            Self::AcceptError,
            Self::Exit,
            Self::Dropped,
        ]
        .into_iter()
        .find(|cause| cause.name() == name)
    }
}

/// What a stop came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StopReport {
    /// Connections that ended in peace after the stop began.
    pub drained: u64,
    /// Connections that were reset at the deadline.
    pub forced: u64,
    /// Handlers that did not return in time; their threads are left to themselves.
    pub abandoned: u64,
    /// Errors of the service, since the server's start.
    pub errors: u64,
    /// Why.
    pub cause: Cause,
    /// From the first call to the end of the last thread.
    pub seconds: Duration,
}

struct State {
    /// When it began and why; None while the server serves.
    begun: Option<(Instant, Cause)>,
    deadline: Instant,
    /// When the last thread had done its work.
    ended: Option<Instant>,
    threads: Vec<JoinHandle<()>>,
    report: Option<StopReport>,
}

/// The stop of one server.
pub(crate) struct Stop {
    state: Mutex<State>,
    /// Threads that have not ended yet.
    alive: AtomicUsize,
    drained: AtomicU64,
    forced: AtomicU64,
    abandoned: AtomicU64,
    /// Set, and given up, when the last thread has ended. There while a thread is.
    done: Mutex<Option<Arc<EventFd>>>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        let state = State {
            begun: None,
            deadline: Instant::now(),
            ended: None,
            threads: Vec::new(),
            report: None,
        };
        Self {
            state: Mutex::new(state),
            alive: AtomicUsize::new(0),
            drained: AtomicU64::new(0),
            forced: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            done: Mutex::new(None),
        }
    }

    /// Opens the flag that `done` is, before the first thread is started.
    pub(crate) fn open_flag(&self) -> std::io::Result<()> {
        *self.done.lock() = Some(Arc::new(EventFd::new()?));
        Ok(())
    }

    /// Asks for the end. True for the first who asks; for all others the earlier deadline holds.
    pub(crate) fn begin(&self, cause: Cause, drain: Duration) -> Asked {
        let now = Instant::now();
        // A drain beyond what the clock can hold is for ever, or near enough.
        let deadline =
            now.checked_add(drain).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365));
        let mut state = self.state.lock();
        if state.begun.is_none() {
            state.begun = Some((now, cause));
            state.deadline = deadline;
            Asked::First
        } else if deadline < state.deadline {
            state.deadline = deadline;
            Asked::Sooner
        } else {
            Asked::Again
        }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.state.lock().begun.is_some()
    }

    /// Whether it began because nobody held the server any more.
    pub(crate) fn was_dropped(&self) -> bool {
        self.state.lock().begun.is_some_and(|(_, cause)| cause == Cause::Dropped)
    }

    /// Until when connections may drain.
    pub(crate) fn deadline(&self) -> Instant {
        self.state.lock().deadline
    }

    /// Whether the stop is to reset everything at once (`drain=0`).
    pub(crate) fn is_hard(&self) -> bool {
        let state = self.state.lock();
        state.begun.is_some_and(|(begun, _)| state.deadline <= begun)
    }

    /// Counts a connection that ended while draining.
    pub(crate) fn count(&self, forced: bool) {
        let counter = if forced { &self.forced } else { &self.drained };
        counter.fetch_add(1, Relaxed);
    }

    /// Counts handlers that were not waited for any longer.
    pub(crate) fn count_abandoned(&self, handlers: u64) {
        self.abandoned.fetch_add(handlers, Relaxed);
    }

    /// Keeps a thread to be joined. Its `Alive` must have been made before it was spawned.
    pub(crate) fn keep(&self, thread: JoinHandle<()>) {
        self.state.lock().threads.push(thread);
    }

    /// A flag that is set once the last thread has ended; None where no thread is alive.
    pub(crate) fn done(&self) -> Option<Arc<EventFd>> {
        self.done.lock().clone()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.alive.load(SeqCst) == 0
    }

    /// The report; joins the threads, which have given up their `Alive` and with it all they do.
    ///
    /// Only to be called once `is_done`.
    pub(crate) fn report(&self, errors: u64, waiter: &mut dyn Waiter) -> StopReport {
        let mut threads = std::mem::take(&mut self.state.lock().threads);
        if !threads.is_empty() {
            // A panic of a thread was caught and counted where it happened.
            waiter.release(&mut || threads.drain(..).for_each(|thread| drop(thread.join())));
        }
        let mut state = self.state.lock();
        if let Some(report) = state.report {
            return report;
        }
        let (begun, cause) = state.begun.unwrap_or((Instant::now(), Cause::Stop));
        let ended = state.ended.unwrap_or_else(Instant::now);
        let report = StopReport {
            drained: self.drained.load(Relaxed),
            forced: self.forced.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
            errors,
            cause,
            seconds: ended.saturating_duration_since(begun),
        };
        state.report = Some(report);
        report
    }
}

/// How a call of `begin` changed things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The stop begins with it.
    First,
    /// The deadline came nearer.
    Sooner,
    /// Nothing changed.
    Again,
}

/// Whose threads are counted.
pub(crate) trait Owner {
    /// Its stop.
    fn stop(&self) -> &Stop;

    /// The last thread has ended, be it that the server has, or that it could not be started.
    fn ended(&self);
}

/// A thread's share in the server's life; the last one dropped sets `done`.
pub(crate) struct Alive<O: Owner>(O);

impl<O: Owner> Alive<O> {
    pub(crate) fn new(owner: O) -> Self {
        owner.stop().alive.fetch_add(1, SeqCst);
        Self(owner)
    }
}

impl<O: Owner> Drop for Alive<O> {
    fn drop(&mut self) {
        let stop = self.0.stop();
        if stop.alive.fetch_sub(1, SeqCst) == 1 {
            self.0.ended();
            stop.state.lock().ended = Some(Instant::now());
            // Those who wait hold it; nobody else needs it any more.
            if let Some(done) = stop.done.lock().take() {
                done.set();
            }
        }
    }
}
