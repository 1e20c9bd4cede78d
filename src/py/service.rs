//! What a server does with each connection, for Python: the base of all services, with those that call
//! Python. Must never serve a connection.

use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::net::address::Transport;
use crate::net::base::Mutex;
use crate::net::service::Shape;

/// What a server does with each connection. Made by its subclasses, such as Echo().
#[pyclass(frozen, subclass, module = "rsock")]
pub(super) struct Service {
    pub(super) shape: Shape,
}

impl Service {
    /// What it is on a transport; TypeError where it cannot be anything.
    pub(super) fn shape_for(&self, transport: Transport) -> PyResult<Shape> {
        match (transport, &self.shape) {
            (Transport::Udp, Shape::Stream(service)) => {
                let datagrams = Arc::clone(service).datagrams();
                datagrams.map(Shape::Datagram).ok_or_else(|| {
                    PyTypeError::new_err(format!(
                        "service {} serves streams only; on UDP give one that answers datagrams, such as \
                         Echo(), a function of (data, address), or Accept()",
                        service.name()
                    ))
                })
            }
            (_, shape) => Ok(shape.clone()),
        }
    }
}

#[pymethods]
impl Service {
    fn __repr__(&self) -> String {
        match &self.shape {
            Shape::Stream(service) => service.name(),
            // No service is made of this alone.
            Shape::Datagram(_) => "Service()".to_owned(),
            Shape::Handler => "Handler()".to_owned(),
            Shape::Accept => "Accept()".to_owned(),
        }
    }
}

/// Serves each connection with one call of a Python function, `function(connection)`, on a thread of a
/// pool: as many at a time as Limits.handler_threads, each for as long as it likes. When it returns,
/// the connection is closed. On UDP the call is `function(data, address)`, and answers with the bytes
/// that it returns, or with nothing for None. A bare function as the service of a Server means this.
///
/// The threads are started as they are needed, used again and again, and end when they are not. Each
/// call runs in a fresh contextvars context; what is in a threading.local stays with the thread.
/// Raises TypeError for what cannot be called so, and for a class or a coroutine
/// function, naming what would serve.
#[pyclass(frozen, extends = Service, module = "rsock")]
pub(super) struct Handler {
    function: Mutex<Option<Py<PyAny>>>,
}

#[pymethods]
impl Handler {
    #[new]
    pub(super) fn make(function: Bound<'_, PyAny>) -> PyResult<PyClassInitializer<Self>> {
        let py = function.py();
        py.import("rsock._handlers")?.call_method1("check", (&function,))?;
        let service = Service { shape: Shape::Handler };
        let handler = Self { function: Mutex::new(Some(function.unbind())) };
        Ok(PyClassInitializer::from(service).add_subclass(handler))
    }

    /// What serves each connection, or answers each datagram.
    #[getter]
    pub(super) fn function(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.function.lock().as_ref().map(|function| function.clone_ref(py))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Some(function) = self.function(py) else { return Ok("Handler()".to_owned()) };
        let name =
            function.getattr(py, "__qualname__").or_else(|_| function.call_method0(py, "__repr__"));
        Ok(format!("Handler({})", name?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector must never wait: a lock that is held now protects an object in use.
        match self.function.try_lock().as_deref() {
            Some(Some(function)) => visit.call(function),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        let function = self.function.try_lock().and_then(|mut function| function.take());
        drop(function);
    }
}

/// Leaves each connection in the kernel's queue until `Server.accept()` asks for it.
#[pyclass(frozen, extends = Service, module = "rsock")]
pub(super) struct Accept;

#[pymethods]
impl Accept {
    #[new]
    fn make() -> PyClassInitializer<Self> {
        PyClassInitializer::from(Service { shape: Shape::Accept }).add_subclass(Self)
    }
}
