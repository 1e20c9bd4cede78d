//! The shutdown of one server: its cause, its deadline, its report. Must never close anything
//! itself, call a server, or hold its lock while it waits.

use std::os::unix::thread::JoinHandleExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::net::base::{EventFd, Mutex, Waiter};
use crate::net::sys;

/// How long a draining server waits for the first byte of a connection that has sent none.
pub(crate) const FIRST_BYTE_GRACE: Duration = Duration::from_millis(250);

/// The cause of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// `stop()` was called.
    Stop,
    /// Ctrl-C in `run()`.
    Sigint,
    /// SIGTERM in `run()`.
    Sigterm,
    /// The body of its `with` statement raised.
    Exception,
    /// Its listener failed permanently, or the program has closed one of its descriptors.
    AcceptError,
    /// The interpreter exits.
    Exit,
    /// The last reference to it was dropped.
    Dropped,
}

impl Cause {
    /// The name in Python's API.
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

    /// The cause with a name, for callers that have it as text; None for an unknown name.
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

/// The result of a stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StopReport {
    /// Connections that ended normally after the stop began.
    pub drained: u64,
    /// Connections that were reset at the deadline.
    pub forced: u64,
    /// Handlers that did not return in time; their threads are not joined.
    pub abandoned: u64,
    /// Errors of the service since the server's start.
    pub errors: u64,
    /// The cause of the stop.
    pub cause: Cause,
    /// Time from the first call to the end of the last thread.
    pub seconds: Duration,
    /// The seed of the faults; None if the server had none.
    pub seed: Option<u64>,
}

/// A part of the server that is notified of a shutdown. Registered before the threads that it wakes
/// are started.
pub(crate) trait ShutdownListener: Send + Sync {
    /// The shutdown has begun. False if the part cannot be woken, because the program has closed
    /// its descriptor. Must not block.
    fn begun(&self) -> bool {
        true
    }

    /// The deadline has moved closer. Returns, and must not block, as `begun`.
    fn deadline_moved(&self) -> bool {
        true
    }
}

/// The thread that polls the flag checks the shutdown each time it wakes.
impl ShutdownListener for EventFd {
    fn begun(&self) -> bool {
        self.set()
    }

    fn deadline_moved(&self) -> bool {
        self.begun()
    }
}

struct State {
    /// Time and cause of the begin; None before it.
    begun: Option<(Instant, Cause)>,
    deadline: Instant,
    /// When the last thread ended.
    ended: Option<Instant>,
    threads: Vec<JoinHandle<()>>,
    /// The program has closed a descriptor of the server.
    is_lost: bool,
    report: Option<StopReport>,
}

/// The shutdown of one server.
pub(crate) struct Shutdown {
    state: Mutex<State>,
    /// Called in the order of registration.
    listeners: Mutex<Vec<Weak<dyn ShutdownListener>>>,
    /// Number of threads that have not ended.
    alive: AtomicUsize,
    drained: AtomicU64,
    forced: AtomicU64,
    abandoned: AtomicU64,
    /// Set and removed when the last thread has ended. Present while a thread is alive.
    done: Mutex<Option<Arc<EventFd>>>,
}

impl Shutdown {
    pub(crate) fn new() -> Self {
        let state = State {
            begun: None,
            deadline: Instant::now(),
            ended: None,
            threads: Vec::new(),
            is_lost: false,
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

    /// Registers a listener, which is called for as long as it exists.
    pub(crate) fn register(&self, listener: Weak<dyn ShutdownListener>) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
    }

    /// Creates the flag that `done` returns. Called before the first thread is started.
    pub(crate) fn open_flag(&self) -> std::io::Result<()> {
        *self.done.lock() = Some(Arc::new(EventFd::new()?));
        Ok(())
    }

    /// Begins the shutdown, or moves its deadline closer, and calls the listeners. A later deadline
    /// than the current one changes nothing. Never blocks.
    pub(crate) fn begin(&self, cause: Cause, drain: Duration) -> Begun {
        let begun = self.note(cause, drain);
        let tell: fn(&dyn ShutdownListener) -> bool = match begun {
            Begun::First => |listener| listener.begun(),
            Begun::Sooner => |listener| listener.deadline_moved(),
            Begun::Before => return begun,
        };
        let listeners = self.listeners.lock().clone();
        let mut all_woken = true;
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            all_woken &= tell(&*listener);
        }
        if !all_woken {
            self.lose();
        }
        begun
    }

    /// Notes that the program has closed a descriptor of the server, and interrupts the threads,
    /// which may wait for it: a call that waits already does not notice a close.
    pub(crate) fn lose(&self) {
        let mut state = self.state.lock();
        state.is_lost = true;
        // Under the lock, because `report` joins the threads.
        state.threads.iter().for_each(|thread| sys::interrupt(thread.as_pthread_t()));
    }

    /// Whether the program has closed a descriptor of the server, as far as that was noticed.
    pub(crate) fn is_lost(&self) -> bool {
        self.state.lock().is_lost
    }

    fn note(&self, cause: Cause, drain: Duration) -> Begun {
        let now = Instant::now();
        // A drain time that an `Instant` cannot hold becomes a year.
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

    /// Whether it began because the last reference to the server was dropped.
    pub(crate) fn was_dropped(&self) -> bool {
        self.state.lock().begun.is_some_and(|(_, cause)| cause == Cause::Dropped)
    }

    /// The time until which connections may drain.
    pub(crate) fn deadline(&self) -> Instant {
        self.state.lock().deadline
    }

    /// Whether the stop resets all connections at once (`drain=0`).
    pub(crate) fn is_hard(&self) -> bool {
        let state = self.state.lock();
        state.begun.is_some_and(|(begun, _)| state.deadline <= begun)
    }

    /// Counts a connection that ended while draining.
    pub(crate) fn count(&self, forced: bool) {
        let counter = if forced { &self.forced } else { &self.drained };
        counter.fetch_add(1, Relaxed);
    }

    /// Counts handlers that are no longer waited for.
    pub(crate) fn count_abandoned(&self, handlers: u64) {
        self.abandoned.fetch_add(handlers, Relaxed);
    }

    /// Stores a thread, which `report` joins. Its `Alive` must be created before the thread is
    /// spawned.
    pub(crate) fn add_thread(&self, thread: JoinHandle<()>) {
        self.state.lock().threads.push(thread);
    }

    /// A flag that is set once the last thread has ended; None if no thread is alive.
    pub(crate) fn done(&self) -> Option<Arc<EventFd>> {
        self.done.lock().clone()
    }

    pub(crate) fn is_done(&self) -> bool {
        self.alive.load(SeqCst) == 0
    }

    /// The report. Joins the threads, which have dropped their `Alive` and do no more work.
    ///
    /// Must only be called once `is_done` is true.
    pub(crate) fn report(
        &self,
        errors: u64,
        seed: Option<u64>,
        waiter: &mut dyn Waiter,
    ) -> StopReport {
        let mut threads = std::mem::take(&mut self.state.lock().threads);
        if !threads.is_empty() {
            // A thread's panic was caught and counted where it happened.
            waiter.release(&mut || threads.drain(..).for_each(|thread| drop(thread.join())));
        }
        let mut state = self.state.lock();
        if let Some(report) = state.report {
            return report;
        }
        let (begun, mut cause) = state.begun.unwrap_or((Instant::now(), Cause::Stop));
        if state.is_lost {
            cause = Cause::AcceptError;
        }
        let ended = state.ended.unwrap_or_else(Instant::now);
        let report = StopReport {
            drained: self.drained.load(Relaxed),
            forced: self.forced.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
            errors,
            cause,
            seconds: ended.saturating_duration_since(begun),
            seed,
        };
        state.report = Some(report);
        report
    }

    /// Counts a thread that is about to start.
    pub(crate) fn thread_starts(&self) {
        self.alive.fetch_add(1, SeqCst);
    }

    /// Counts a thread that has ended. The last thread calls `last` before it wakes waiting
    /// callers.
    pub(crate) fn thread_ended(&self, last: impl FnOnce()) {
        if self.alive.fetch_sub(1, SeqCst) == 1 {
            last();
            self.state.lock().ended = Some(Instant::now());
            // Waiting callers hold a reference as well.
            if let Some(done) = self.done.lock().take() {
                done.set();
            }
        }
    }
}

/// The effect of a call of `begin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// The shutdown begins with this call.
    First,
    /// The deadline moved closer.
    Sooner,
    /// Nothing changed.
    Before,
}
