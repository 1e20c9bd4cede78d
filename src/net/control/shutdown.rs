//! The shutdown of one server: its cause, its deadline and its report. Must never close anything itself,
//! call a server, or hold its lock while it waits.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::net::base::{EventFd, Mutex, Waiter};

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

/// What is told of a shutdown. Registered before the threads that it wakes are started.
pub(crate) trait ShutdownListener: Send + Sync {
    /// The shutdown has begun. Must not block.
    fn begun(&self) {}

    /// Its deadline has moved closer. Must not block.
    fn deadline_moved(&self) {}
}

/// The thread that polls the flag looks at the shutdown whenever it wakes.
impl ShutdownListener for EventFd {
    fn begun(&self) {
        self.set();
    }

    fn deadline_moved(&self) {
        self.set();
    }
}

struct State {
    /// When it began and why; None while the server serves.
    begun: Option<(Instant, Cause)>,
    deadline: Instant,
    /// When the last thread ended.
    ended: Option<Instant>,
    threads: Vec<JoinHandle<()>>,
    report: Option<StopReport>,
}

/// The shutdown of one server.
pub(crate) struct Shutdown {
    state: Mutex<State>,
    /// Told in the order in which they were registered.
    listeners: Mutex<Vec<Weak<dyn ShutdownListener>>>,
    /// Threads that have not ended yet.
    alive: AtomicUsize,
    drained: AtomicU64,
    forced: AtomicU64,
    abandoned: AtomicU64,
    /// Set, and dropped, when the last thread has ended. Present while a thread is alive.
    done: Mutex<Option<Arc<EventFd>>>,
}

impl Shutdown {
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
            listeners: Mutex::new(Vec::new()),
            alive: AtomicUsize::new(0),
            drained: AtomicU64::new(0),
            forced: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            done: Mutex::new(None),
        }
    }

    /// Tells a listener of the shutdown for as long as it exists.
    pub(crate) fn register(&self, listener: Weak<dyn ShutdownListener>) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
    }

    /// Opens the flag that `done` returns, before the first thread is started.
    pub(crate) fn open_flag(&self) -> std::io::Result<()> {
        *self.done.lock() = Some(Arc::new(EventFd::new()?));
        Ok(())
    }

    /// Begins the shutdown, or moves its deadline closer, and tells the listeners. A deadline that is later
    /// than the present one changes nothing. Never blocks.
    pub(crate) fn begin(&self, cause: Cause, drain: Duration) -> Begun {
        let begun = self.note(cause, drain);
        let tell: fn(&dyn ShutdownListener) = match begun {
            Begun::First => |listener| listener.begun(),
            Begun::Sooner => |listener| listener.deadline_moved(),
            Begun::Before => return begun,
        };
        let listeners = self.listeners.lock().clone();
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            tell(&*listener);
        }
        begun
    }

    fn note(&self, cause: Cause, drain: Duration) -> Begun {
        let now = Instant::now();
        // A drain time that the clock cannot hold becomes a year.
        let deadline =
            now.checked_add(drain).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365));
        let mut state = self.state.lock();
        if state.begun.is_none() {
            state.begun = Some((now, cause));
            state.deadline = deadline;
            Begun::First
        } else if deadline < state.deadline {
            state.deadline = deadline;
            Begun::Sooner
        } else {
            Begun::Before
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

    /// Stores a thread, to be joined by `report`. Its `Alive` must have been made before it was spawned.
    pub(crate) fn add_thread(&self, thread: JoinHandle<()>) {
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

    /// Counts a thread that is about to start.
    pub(crate) fn thread_starts(&self) {
        self.alive.fetch_add(1, SeqCst);
    }

    /// Counts a thread that has ended; `last` is called by the last one before those who wait are woken.
    pub(crate) fn thread_ended(&self, last: impl FnOnce()) {
        if self.alive.fetch_sub(1, SeqCst) == 1 {
            last();
            self.state.lock().ended = Some(Instant::now());
            // The callers that wait hold it as well.
            if let Some(done) = self.done.lock().take() {
                done.set();
            }
        }
    }
}

/// What a call of `begin` changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// The shutdown begins with this call.
    First,
    /// The deadline moved closer.
    Sooner,
    /// Nothing changed.
    Before,
}
