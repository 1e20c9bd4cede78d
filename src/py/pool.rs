//! The pool of a server's handler threads, for Python. Must never keep a server alive while nothing is
//! served.

use std::sync::Arc;

use pyo3::prelude::*;

use super::connection::connection;
use super::datagram::Datagram;
use crate::net;
use crate::net::base::{Mutex, Origin};
use crate::net::handoff::Job;

/// What the threads of a pool take their connections from. Keeps no server alive.
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
    /// The next connection or datagram for this thread; None when it is to end. Blocks with the
    /// interpreter released.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !self.inner.is_here() {
            // A handler has forked, and its thread came here in the child.
            return Ok(None);
        }
        // One that waits already is taken without giving the interpreter up.
        let job = match self.inner.try_next() {
            Some(job) => Some(job),
            None => py.detach(|| self.inner.next()),
        };
        let given = |job| match job {
            Job::Stream(stream) => connection(py, stream, &self.server),
            Job::Datagram(datagram) => {
                let record = Arc::clone(datagram.record());
                let (inner, server) = (Mutex::new(Some(datagram)), self.server.clone_ref(py));
                let origin = Origin::here();
                Ok(Bound::new(py, Datagram { inner, record, origin, server })?.into_any())
            }
        };
        job.map(given).transpose()
    }

    /// Whether another thread is to be started. It must call `next` until that gives None, and then
    /// `left`; `missing` where it cannot be started.
    fn wants_thread(&self) -> bool {
        self.inner.is_here() && self.inner.wants_thread()
    }

    /// The calling thread ends.
    fn left(&self) {
        if self.inner.is_here() {
            self.inner.thread_left();
        }
    }

    /// A thread that was wanted could not be started.
    fn missing(&self) {
        if self.inner.is_here() {
            self.inner.thread_missing();
        }
    }

    /// Whether connections had to wait for a thread; true once.
    fn should_warn(&self) -> bool {
        self.inner.should_warn()
    }

    /// Names this thread for debuggers and /proc.
    fn name_thread(&self, name: &str) {
        self.inner.name_thread(name);
    }
}
