//! The base class of all services for Python, with the services that hand connections to Python.
//! Owns the handler's function; must never serve a connection.

use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::{PyTraverseError, PyVisit};

use super::keywords::no_more;
use crate::net::address::Transport;
use crate::net::base::Mutex;
use crate::net::service::Shape;

/// The base class of all services: what a server does with each connection.
///
/// Only its subclasses, such as Echo, can be created.
#[pyclass(frozen, subclass, module = "rsock")]
pub(super) struct Service {
    pub(super) shape: Shape,
}

impl Service {
    /// The engine's service on a transport; TypeError if it does not support that transport.
    pub(super) fn shape_for(&self, transport: Transport) -> PyResult<Shape> {
        match (transport, &self.shape) {
            (transport, Shape::Stream(service)) if transport.is_datagram() => {
                let datagrams = Arc::clone(service).datagrams();
                datagrams.map(Shape::Datagram).ok_or_else(|| {
                    PyTypeError::new_err(format!(
                        "service {} serves streams only; on UDP give one that answers datagrams, such as \
                         Echo(), a function of (data, address), or Accept()",
                        service.name()
                    ))
                })
            }
            (Transport::Udp, Shape::Mixed(service, _)) => {
                Err(PyTypeError::new_err(format!("service {} serves streams only", service.name())))
            }
            (_, shape) => Ok(shape.clone()),
        }
    }
}

#[pymethods]
impl Service {
    fn __repr__(&self) -> String {
        match &self.shape {
            Shape::Stream(service) | Shape::Mixed(service, _) => service.name(),
            // No Python class has this shape by itself.
            Shape::Datagram(_) => "Service()".to_owned(),
            Shape::Handler => "Handler()".to_owned(),
            Shape::Accept => "Accept()".to_owned(),
        }
    }
}

/// A service that calls a Python function for each connection: `function(connection)`.
///
/// The calls run on a pool of threads, at most Limits.handler_threads at a time, without a time
/// limit. When the function returns, the connection is closed. On UDP the call is
/// `function(data, address)`; the bytes that it returns are sent to the peer, and None sends
/// nothing. A function passed as the service of a Server is wrapped in a Handler.
///
/// The datagrams of one peer are handled one after the other, in the order in which they arrived;
/// those of other peers at the same time. With `ordered=False` one peer's are handled at the same
/// time too, in any order. On streams `ordered` has no effect.
///
/// Threads are started as they are needed, are reused, and end when they are no longer needed. Each
/// call runs in a fresh contextvars context; the contents of a threading.local stay with the
/// thread.
///
/// Raises TypeError, naming what is accepted, for an object that cannot be called with these
/// arguments, for a class and for a coroutine function.
#[pyclass(frozen, extends = Service, module = "rsock")]
pub(super) struct Handler {
    function: Mutex<Option<Py<PyAny>>>,
    pub(super) ordered: bool,
}

#[pymethods]
impl Handler {
    #[new]
    #[pyo3(signature = (function, *, ordered=None, **unknown),
        text_signature = "(function, *, ordered=True)")]
    pub(super) fn make(
        function: Bound<'_, PyAny>,
        ordered: Option<Bound<'_, PyAny>>,
        unknown: Option<Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let ordered = ordered.map_or(Ok(true), |ordered| {
            let wrong = |_| format!("ordered must be True or False, not {ordered:?}");
            ordered.extract::<bool>().map_err(wrong).map_err(PyTypeError::new_err)
        })?;
        let py = function.py();
        no_more(&py.get_type::<Self>(), unknown.as_ref())?;
        py.import("rsock._handlers")?.call_method1("check", (&function,))?;
        let service = Service { shape: Shape::Handler };
        let handler = Self { function: Mutex::new(Some(function.unbind())), ordered };
        Ok(PyClassInitializer::from(service).add_subclass(handler))
    }

    /// The function that serves each connection, or answers each datagram.
    #[getter]
    pub(super) fn function(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.function.lock().as_ref().map(|function| function.clone_ref(py))
    }

    /// Whether the datagrams of one peer are handled one after the other.
    #[getter]
    fn ordered(&self) -> bool {
        self.ordered
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Some(function) = self.function(py) else { return Ok("Handler()".to_owned()) };
        handler_name(function.bind(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The garbage collector must never wait: a lock that is held protects an object in use.
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

/// The name of a handler's service: "Handler(function)".
pub(super) fn handler_name(function: &Bound<'_, PyAny>) -> PyResult<String> {
    let name = function.getattr("__qualname__").or_else(|_| function.call_method0("__repr__"))?;
    Ok(format!("Handler({name})"))
}

/// A service that leaves connections in the kernel's queue until `Server.accept()` is called.
#[pyclass(frozen, extends = Service, module = "rsock")]
pub(super) struct Accept;

#[pymethods]
impl Accept {
    #[new]
    #[pyo3(signature = (**unknown), text_signature = "()")]
    fn make(
        py: Python<'_>,
        unknown: Option<Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        no_more(&py.get_type::<Self>(), unknown.as_ref())?;
        Ok(PyClassInitializer::from(Service { shape: Shape::Accept }).add_subclass(Self))
    }
}
