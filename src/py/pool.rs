//! The pool of a server's handler threads, for Python. Owns the conversion of the engine's jobs;
//! must never keep a server alive while no handler runs.

use std::sync::Arc;

use pyo3::prelude::*;

use super::connection::connection;
use super::datagram::Datagram;
use crate::net;
use crate::net::base::{Mutex, Origin};
use crate::net::handoff::Job;

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
    /// The new thread must call `next` until that returns None, and then `left`. If the thread
    /// cannot be started, the caller must call `missing`.
    fn wants_thread(&self) -> bool {
        self.inner.is_here() && self.inner.wants_thread()
    }

    /// Report that the calling thread ends.
    fn left(&self) {
        if self.inner.is_here() {
            self.inner.thread_left();
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

    /// Set the name of the calling thread that debuggers and /proc show.
    fn name_thread(&self, name: &str) {
        self.inner.name_thread(name);
    }
}
