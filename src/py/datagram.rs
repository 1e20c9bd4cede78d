//! A datagram that a handler serves, for Python. Owns the datagram until the handler returns; must
//! never answer by itself.

use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::args;
use super::buffer::Source;
use super::error::exception;
use super::handler_error::error_text;
use super::ledger::Record;
use crate::net;
use crate::net::base::{Mutex, Origin};

/// A received datagram that a handler serves.
///
/// For the pool: the handler's function receives only the data and the address.
#[pyclass(frozen, module = "rsock._rsock")]
pub(super) struct Datagram {
    pub(super) inner: Mutex<Option<net::handoff::Datagram>>,
    pub(super) record: Arc<net::ledger::Record>,
    pub(super) origin: Origin,
    pub(super) server: Py<PyAny>,
}

impl Datagram {
    /// Runs a call with the datagram; TypeError once its handler has returned.
    pub(super) fn with<T>(&self, call: impl FnOnce(&net::handoff::Datagram) -> T) -> PyResult<T> {
        let inner = self.inner.lock();
        inner.as_ref().map(call).ok_or_else(|| PyTypeError::new_err("its handler has returned"))
    }
}

#[pymethods]
impl Datagram {
    /// The received bytes. Raises TypeError once the handler has returned.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.with(|datagram| PyBytes::new(py, datagram.data()))
    }

    /// The sender's address, a (host, port) pair, with the address that the datagram was sent to.
    ///
    /// Raises TypeError once the handler has returned.
    #[getter]
    fn address<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let to = self.with(|datagram| datagram.to().clone())?;
        args::sender(py, &self.record.remote().address, &to)
    }

    /// The Record of the sender.
    #[getter]
    fn record(&self) -> Record {
        Record::of_peer(&self.record, self.origin)
    }

    /// The number of that record in its server, from 1.
    #[getter]
    fn id(&self) -> u64 {
        self.record.id()
    }

    /// The server that received it; None once that object has been deleted.
    #[getter]
    fn server<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.server.bind(py).call0()
    }

    /// Send `answer`, the bytes that the handler returned. Raises TypeError for another type.
    fn _reply(&self, py: Python<'_>, answer: Bound<'_, PyAny>) -> PyResult<()> {
        let wrong = |_| args::wrong_type("what the handler returned", "bytes, or None", &answer);
        let source = Source::new(answer.clone()).map_err(wrong)?;
        self.with(|datagram| datagram.reply(source.as_slice()))?
            .map_err(|error| exception(py, error))
    }

    /// Release the datagram after its handler returned. For the pool.
    fn _returned(&self) {
        drop(self.inner.lock().take());
    }

    /// Release the datagram after its handler raised `error`, which is recorded. For the pool.
    ///
    /// Returns whose error it is: "handler". `keep` is called with it before.
    fn _raised(
        &self,
        error: Bound<'_, PyAny>,
        keep: Bound<'_, PyAny>,
    ) -> PyResult<Option<&'static str>> {
        let text = error_text(&error);
        let kept = keep.call1(("handler",));
        // In a statement of its own, so that the lock is not held in `fail`.
        let datagram = self.inner.lock().take();
        if let Some(datagram) = datagram {
            datagram.fail(text);
        }
        kept.map(|_| Some("handler"))
    }
}
