//! The waits of calls from Python. Owns the polling with the interpreter released, and the checks
//! for signals, of every blocking call of `src/py`; must never wait with the interpreter held.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::error::{exception, with_partial};
use crate::net::base::{Origin, Waiter};
use crate::net::error::{Error, Result};
use crate::net::sys::{PollFd, poll};

/// The longest single poll on the main thread. A signal that the kernel delivers to another thread
/// does not interrupt this poll, but its Python handler must run on the main thread.
const BACKSTOP: Duration = Duration::from_millis(100);

/// A call that need not wait holds the interpreter for at most this time, as Python code would
/// (sys.getswitchinterval).
const SWITCH: Duration = Duration::from_millis(5);
/// A call that has released the interpreter checks for signals at least this often.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

thread_local! {
    /// Whether this is Python's main thread, with the process in which that was determined.
    static IS_MAIN: Cell<Option<(Origin, bool)>> = const { Cell::new(None) };
}

/// Whether this is Python's main thread, the only one that runs signal handlers. Other threads do
/// not check for signals, and wait without waking up.
fn is_main_thread(py: Python<'_>) -> bool {
    // The thread that forks is the main thread of the child.
    if let Some((_, is_main)) = IS_MAIN.get().filter(|(origin, _)| origin.is_here()) {
        return is_main;
    }
    // Not by `threading.get_ident`, which a library may have replaced by the number of a green
    // thread.
    let ask_threading = || -> PyResult<bool> {
        let threading = py.import("threading")?;
        let own = threading.call_method0("get_native_id")?;
        // In a forked child this is the number that the thread had in the parent.
        let main = threading.call_method0("main_thread")?.getattr("native_id")?;
        Ok(own.eq(std::process::id())? || own.eq(main)?)
    };
    // While the interpreter ends, the module cannot be imported: check for signals to be safe.
    let is_main = ask_threading().unwrap_or(true);
    IS_MAIN.set(Some((Origin::here(), is_main)));
    is_main
}

/// Polls once, for at most `BACKSTOP` on the main thread: Some(true) if a descriptor is ready,
/// Some(false) if the deadline has passed, None otherwise.
fn poll_once(fds: &mut [PollFd], deadline: Option<Instant>, is_main: bool) -> Result<Option<bool>> {
    let backstop = is_main.then(|| Instant::now() + BACKSTOP);
    let until = match (deadline, backstop) {
        (Some(deadline), Some(backstop)) => Some(deadline.min(backstop)),
        (deadline, backstop) => deadline.or(backstop),
    };
    match poll(fds, until) {
        Ok(0) => Ok(deadline.filter(|&deadline| deadline <= Instant::now()).map(|_| false)),
        Ok(_) => Ok(Some(true)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(Error::os("poll", "", &error)),
    }
}

/// The waiter of a call that holds the interpreter, and releases it only for the poll.
pub(super) struct Attached<'py> {
    py: Python<'py>,
    raised: Option<PyErr>,
    /// When the interpreter was last released; None until the clock is read for the first time.
    released: Option<Instant>,
}

impl<'py> Attached<'py> {
    pub(super) fn new(py: Python<'py>) -> Self {
        Self { py, raised: None, released: None }
    }

    /// Runs a call of the engine, and converts its error to an exception.
    pub(super) fn run<T>(
        py: Python<'py>,
        call: impl FnOnce(&mut dyn Waiter) -> Result<T>,
    ) -> PyResult<T> {
        let mut waiter = Self::new(py);
        let result = call(&mut waiter);
        finish(py, result, waiter.raised)
    }
}

impl Waiter for Attached<'_> {
    fn wait(&mut self, fds: &mut [PollFd], deadline: Option<Instant>) -> Result<bool> {
        let is_main = is_main_thread(self.py);
        let origin = Origin::here();
        loop {
            let polled = self.py.detach(|| poll_once(fds, deadline, is_main))?;
            self.check_signals()?;
            if !origin.is_here() {
                // A signal handler has forked, and this is the child, which may have closed these
                // descriptors: the caller has to look again.
                return Ok(true);
            }
            if let Some(ready) = polled {
                return Ok(ready);
            }
        }
    }

    fn breathe(&mut self) -> Result<()> {
        let now = Instant::now();
        if now.duration_since(*self.released.get_or_insert(now)) < SWITCH {
            return Ok(());
        }
        self.py.detach(|| {});
        self.check_signals()
    }

    fn release(&mut self, block: &mut (dyn FnMut() + Send)) {
        self.py.detach(block);
    }

    fn may_spin(&self) -> bool {
        true
    }

    fn may_block(&self) -> bool {
        !is_main_thread(self.py)
    }
}

impl Attached<'_> {
    /// Runs the handlers of signals that have arrived.
    fn check_signals(&mut self) -> Result<()> {
        self.released = Some(Instant::now());
        self.py.check_signals().map_err(|error| {
            self.raised = Some(error);
            Error::Interrupted
        })
    }
}

/// The waiter of a call that may take long, and has released the interpreter all the time.
pub(super) struct Detached {
    raised: Option<PyErr>,
    checked: Instant,
    is_main: bool,
}

impl Detached {
    /// Runs a call of the engine with the interpreter released.
    pub(super) fn run<T: Send>(
        py: Python<'_>,
        call: impl FnOnce(&mut dyn Waiter) -> Result<T> + Send,
    ) -> PyResult<T> {
        let is_main = is_main_thread(py);
        let (result, raised) = py.detach(|| {
            let mut waiter = Self { raised: None, checked: Instant::now(), is_main };
            let result = call(&mut waiter);
            (result, waiter.raised)
        });
        finish(py, result, raised)
    }
}

impl Waiter for Detached {
    fn wait(&mut self, fds: &mut [PollFd], deadline: Option<Instant>) -> Result<bool> {
        let origin = Origin::here();
        loop {
            let polled = poll_once(fds, deadline, self.is_main)?;
            if polled.is_none() {
                self.check_signals()?;
            } else {
                // A peer that is always ready must not delay signals either.
                self.breathe()?;
            }
            if !origin.is_here() {
                return Ok(true);
            }
            if let Some(ready) = polled {
                return Ok(ready);
            }
        }
    }

    fn breathe(&mut self) -> Result<()> {
        if self.checked.elapsed() < SIGNAL_INTERVAL { Ok(()) } else { self.check_signals() }
    }
}

impl Detached {
    fn check_signals(&mut self) -> Result<()> {
        if !self.is_main {
            return Ok(());
        }
        let result = Python::attach(|py| py.check_signals());
        self.checked = Instant::now();
        result.map_err(|error| {
            self.raised = Some(error);
            Error::Interrupted
        })
    }
}

/// Converts the error of a call. An interrupted call raises the exception of the signal handler,
/// with the data that it had taken as `partial`.
fn finish<T>(py: Python<'_>, result: Result<T>, raised: Option<PyErr>) -> PyResult<T> {
    result.map_err(|error| match (error, raised) {
        // What a signal handler raised in the child that it has forked.
        (Error::Interrupted | Error::Forked { .. }, Some(raised)) => raised,
        (Error::Cut { cause, partial }, Some(raised))
            if matches!(*cause, Error::Interrupted | Error::Forked { .. }) =>
        {
            with_partial(py, raised, &partial)
        }
        (error, _) => exception(py, error),
    })
}
