//! The pool of a server's handler threads, for Python. Owns the conversion of the engine's jobs;
//! must never keep a server alive while no handler runs.

use std::cell::Cell;
use std::sync::Arc;

use pyo3::prelude::*;

use super::connection::connection;
use super::datagram::Datagram;
use crate::net;
use crate::net::base::{Mutex, Origin};
use crate::net::handoff::{Job, Member};

thread_local! {
    /// The calling thread's place in a pool. Dropped when the system ends the thread, after all
    /// that belongs to Python: a stop thus waits for the whole thread, as a join would, and needs
    /// none of Python's locks for it.
    static MEMBER: Cell<Option<Member>> = const { Cell::new(None) };
}

/// The queue from which handler threads take their connections. Keeps no server alive.
#[pyclass(frozen, module = "rsock._rsock")]
pub(super) struct Pool {
    inner: net::handoff::Pool,
    server: Py<PyAny>,
}

impl Pool {
    pub(super) fn new(inner: net::handoff::Pool, server: Py<PyAny>) -> Self {
        Self { inner, server }
    }
}

#[pymethods]
impl Pool {
    /// Return the next connection or datagram for this thread; None if the thread must end.
    ///
    /// Blocks with the interpreter released.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !self.inner.is_here() {
            // A handler has forked, and its thread called this in the child.
            return Ok(None);
        }
        // A job that waits already is taken without releasing the interpreter.
        let job = match self.inner.try_next() {
            Some(job) => Some(job),
            None => py.detach(|| self.inner.next()),
        };
        let to_python = |job| match job {
            Job::Stream(stream) => connection(py, stream, &self.server),
            Job::Datagram(datagram) => {
                let record = Arc::clone(datagram.record());
                let (inner, server) = (Mutex::new(Some(datagram)), self.server.clone_ref(py));
                let origin = Origin::here();
                Ok(Bound::new(py, Datagram { inner, record, origin, server })?.into_any())
            }
        };
        job.map(to_python).transpose()
    }

    /// Return whether the caller must start another thread.
    ///
    /// The new thread must call `enter`, then `next` until that returns None, and then `left`. If
    /// the thread cannot be started, the caller must call `missing`.
    fn wants_thread(&self) -> bool {
        self.inner.is_here() && self.inner.wants_thread()
    }

    /// Take the calling thread into the pool, until the system has ended it.
    ///
    /// `name` is what debuggers and /proc show.
    fn enter(&self, name: &str) {
        self.inner.name_thread(name);
        if self.inner.is_here() {
            MEMBER.set(Some(self.inner.enter()));
        }
    }

    /// Report that the calling thread takes no further connections.
    fn left(&self) {
        if self.inner.is_here() {
            self.inner.thread_ends();
        }
    }

    /// Report that a thread which `wants_thread` asked for could not be started.
    fn missing(&self) {
        if self.inner.is_here() {
            self.inner.thread_missing();
        }
    }

    /// Return whether connections had to wait for a thread. Returns True only once.
    fn should_warn(&self) -> bool {
        self.inner.should_warn()
    }
}
