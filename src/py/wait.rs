//! How Python's calls wait: interpreter released, descriptors polled, signals looked for. Every
//! blocking call of the border goes through here; must never wait attached.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::error::{exception, with_partial};
use crate::net::base::{Origin, Waiter};
use crate::net::error::{Error, Result};
use crate::net::sys::{PollFd, poll};

/// A signal that another thread of the process took interrupts no poll of ours; its handler has to
/// run on the main thread all the same. So no single poll is longer than this.
const BACKSTOP: Duration = Duration::from_millis(100);

/// A call that finds all it needs without waiting holds the interpreter no longer than it would keep
/// it as Python code (sys.getswitchinterval)...
const SWITCH: Duration = Duration::from_millis(5);
/// ...and one that has released it looks for signals at least so often.
const LOOK: Duration = Duration::from_millis(50);

thread_local! {
    /// Whether this thread runs Python's signal handlers, and in which process that was found.
    static HEARS: Cell<Option<(Origin, bool)>> = const { Cell::new(None) };
}

/// Whether Python runs its signal handlers on this thread: on its main one only. The others need not
/// look for signals, and wait for as long as it takes without waking up.
fn hears_signals(py: Python<'_>) -> bool {
    // A thread that forks is the main one of the child.
    if let Some((_, hears)) = HEARS.get().filter(|(origin, _)| origin.is_here()) {
        return hears;
    }
    let asked = || -> PyResult<bool> {
        let threading = py.import("threading")?;
        let main = threading.call_method0("main_thread")?.getattr("ident")?;
        main.eq(threading.call_method0("get_ident")?)
    };
    // At the very end of the interpreter there is nobody to ask: better to look in vain.
    let hears = asked().unwrap_or(true);
    HEARS.set(Some((Origin::here(), hears)));
    hears
}

/// One poll, of at most `BACKSTOP` where signals are to be heard: ready, or not yet, or the deadline has
/// passed.
fn poll_once(fds: &mut [PollFd], deadline: Option<Instant>, hears: bool) -> Result<Option<bool>> {
    let backstop = hears.then(|| Instant::now() + BACKSTOP);
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

/// Waits for a call that holds the interpreter and releases it only for the poll.
pub(super) struct Attached<'py> {
    py: Python<'py>,
    raised: Option<PyErr>,
    /// When the interpreter was last released; None before the call has gone on for long enough to
    /// look at the clock.
    released: Option<Instant>,
}

impl<'py> Attached<'py> {
    pub(super) fn new(py: Python<'py>) -> Self {
        Self { py, raised: None, released: None }
    }

    /// Runs a call of the engine and turns what it says into Python's terms.
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
        let hears = hears_signals(self.py);
        loop {
            let polled = self.py.detach(|| poll_once(fds, deadline, hears))?;
            self.look()?;
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
        self.look()
    }

    fn release(&mut self, block: &mut (dyn FnMut() + Send)) {
        self.py.detach(block);
    }

    fn may_spin(&self) -> bool {
        true
    }

    fn may_block(&self) -> bool {
        !hears_signals(self.py)
    }
}

impl Attached<'_> {
    /// Runs the handlers of signals that came meanwhile.
    fn look(&mut self) -> Result<()> {
        self.released = Some(Instant::now());
        self.py.check_signals().map_err(|error| {
            self.raised = Some(error);
            Error::Interrupted
        })
    }
}

/// Waits for a call that has released the interpreter as a whole, for it may take long.
pub(super) struct Detached {
    raised: Option<PyErr>,
    looked: Instant,
    hears: bool,
}

impl Detached {
    /// Runs a call of the engine with the interpreter released.
    pub(super) fn run<T: Send>(
        py: Python<'_>,
        call: impl FnOnce(&mut dyn Waiter) -> Result<T> + Send,
    ) -> PyResult<T> {
        let hears = hears_signals(py);
        let (result, raised) = py.detach(|| {
            let mut waiter = Self { raised: None, looked: Instant::now(), hears };
            let result = call(&mut waiter);
            (result, waiter.raised)
        });
        finish(py, result, raised)
    }
}

impl Waiter for Detached {
    fn wait(&mut self, fds: &mut [PollFd], deadline: Option<Instant>) -> Result<bool> {
        loop {
            let polled = poll_once(fds, deadline, self.hears)?;
            if polled.is_none() {
                self.look()?;
            } else {
                // A peer that always is ready must not keep signals waiting either.
                self.breathe()?;
            }
            if let Some(ready) = polled {
                return Ok(ready);
            }
        }
    }

    fn breathe(&mut self) -> Result<()> {
        if self.looked.elapsed() < LOOK { Ok(()) } else { self.look() }
    }
}

impl Detached {
    fn look(&mut self) -> Result<()> {
        if !self.hears {
            return Ok(());
        }
        let looked = Python::attach(|py| py.check_signals());
        self.looked = Instant::now();
        looked.map_err(|error| {
            self.raised = Some(error);
            Error::Interrupted
        })
    }
}

/// An interrupted call raises what interrupted it, with what it had taken.
fn finish<T>(py: Python<'_>, result: Result<T>, raised: Option<PyErr>) -> PyResult<T> {
    result.map_err(|error| match (error, raised) {
        (Error::Interrupted, Some(raised)) => raised,
        (Error::Cut { cause, partial }, Some(raised)) if matches!(*cause, Error::Interrupted) => {
            with_partial(py, raised, &partial)
        }
        (error, _) => exception(py, error),
    })
}
