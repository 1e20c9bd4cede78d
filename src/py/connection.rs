//! Accepted connections for Python. Owns what happens when a handler returns; must never keep a
//! server alive.

use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyTuple, PyType};

use super::args;
use super::handler_error::{Fault, attribute_error, error_text, has_partial};
use super::ledger::Record;
use super::stream::Stream;
use crate::net;
use crate::net::base::Mutex;
use crate::net::ledger::ClosedBy;

/// An accepted stream, the argument of the constructor of Connection. Can be used once.
#[pyclass(frozen, module = "rsock._rsock")]
pub(super) struct Handed {
    stream: Mutex<Option<Arc<net::stream::Stream>>>,
    server: Py<PyAny>,
}

/// The compiled half of rsock.Connection.
#[pyclass(frozen, subclass, extends = Stream, module = "rsock._rsock")]
pub(super) struct Connection {
    /// A weak reference.
    server: Py<PyAny>,
}

/// Makes the Python object of an accepted stream; `server` is a weak reference to its server.
pub(super) fn connection<'py>(
    py: Python<'py>,
    stream: Arc<net::stream::Stream>,
    server: &Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let handed = Handed { stream: Mutex::new(Some(stream)), server: server.clone_ref(py) };
    CLASS.import(py, "rsock._connection", "Connection")?.call1((Bound::new(py, handed)?,))
}

#[pymethods]
impl Connection {
    #[new]
    fn new(handed: &Bound<'_, PyAny>) -> PyResult<PyClassInitializer<Self>> {
        let made_by_servers = || {
            PyTypeError::new_err(
                "connections are made by servers: serve with a handler, or Accept()",
            )
        };
        let handed = handed.cast::<Handed>().map_err(|_| made_by_servers())?;
        let stream = handed.get().stream.lock().take().ok_or_else(made_by_servers)?;
        let server = handed.get().server.clone_ref(handed.py());
        Ok(PyClassInitializer::from(Stream::new(stream)).add_subclass(Self { server }))
    }

    /// The server that accepted it; None once that object has been deleted.
    #[getter]
    fn server<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.server.bind(py).call0()
    }

    /// The Record in the server's ledger.
    ///
    /// It does not count bytes that pass through `fileno()` or `to_socket()`.
    #[getter]
    fn record(slf: &Bound<'_, Self>) -> Option<Record> {
        Record::of(slf.as_super().get().inner())
    }

    /// The number of its record in its server, from 1.
    #[getter]
    fn id(slf: &Bound<'_, Self>) -> Option<u64> {
        slf.as_super().get().inner().record().map(|record| record.id())
    }

    /// Close the connection after its handler returned. For the pool.
    fn _returned(slf: &Bound<'_, Self>) {
        slf.as_super().get().end(slf.py(), |stream| stream.close());
    }

    /// Close the connection after its handler raised `error`. For the pool.
    ///
    /// Returns whose error it is: "handler", which must be reported; or "stop" or "peer", for a
    /// read that a stop of the server or the peer ended in the middle of a message. None for any
    /// other error that the peer or a stop caused. Unless it is None, `keep` is called with it
    /// before the connection ends, so that the error is there when its effect can be seen.
    fn _raised(
        slf: &Bound<'_, Self>,
        error: Bound<'_, PyAny>,
        keep: Bound<'_, PyAny>,
    ) -> PyResult<Option<&'static str>> {
        let base = slf.as_super().get();
        let cause = attribute_error(base, &error);
        let draining = base.inner().draining();
        let text = error_text(&error);
        let fault = match cause {
            Fault::Handler => Some("handler"),
            Fault::Stop | Fault::Peer(ClosedBy::Peer | ClosedBy::Reset) if has_partial(&error) => {
                Some(if draining { "stop" } else { "peer" })
            }
            Fault::Stop | Fault::Peer(_) => None,
        };
        let kept = fault.map(|fault| keep.call1((fault,))).transpose();
        base.end(slf.py(), |stream| match cause {
            Fault::Peer(by) => stream.close_for(by, Some(text)),
            Fault::Stop => stream.close(),
            Fault::Handler => stream.fail(text),
        });
        kept.map(|_| fault)
    }
}

/// What `accept` returns: the connection, with the peer's address, a pair or a path.
pub(super) fn accepted<'py>(
    py: Python<'py>,
    stream: Arc<net::stream::Stream>,
    server: &Py<PyAny>,
) -> PyResult<Bound<'py, PyTuple>> {
    let remote = stream.record().map(|record| record.remote().address);
    let address = remote.map(|remote| args::user_address(py, &remote)).transpose()?;
    (connection(py, stream, server)?, address).into_pyobject(py)
}
