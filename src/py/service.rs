//! Services as Python sees them: one class each. Must never do what a service does.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

use super::args;
use super::error::exception;
use super::server::Server;
use crate::net::service::Shape;
use crate::net::services::{self, To};

/// What a server does with each connection. Made by its subclasses, such as Echo().
#[pyclass(frozen, subclass, module = "rsock")]
pub(super) struct Service {
    pub(super) shape: Shape,
}

#[pymethods]
impl Service {
    fn __repr__(&self) -> String {
        match &self.shape {
            Shape::Stream(service) => service.name(),
            Shape::Handler => "Handler()".to_owned(),
            Shape::Accept => "Accept()".to_owned(),
        }
    }
}

/// Serves each connection with one call of a Python function, `function(connection)`, on a thread of a
/// pool: as many at a time as Limits.handler_threads, each for as long as it likes. When it returns,
/// the connection is closed. A bare function as the service of a Server means this.
///
/// The threads are started as they are needed, used again and again, and end when they are not. Each
/// call runs in a fresh contextvars context; what is in a threading.local stays with the thread.
/// Raises TypeError for what cannot be called with one argument, and for a class or a coroutine
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

    /// What serves each connection.
    #[getter]
    fn function(&self, py: Python<'_>) -> Option<Py<PyAny>> {
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

/// Passes each connection on to a target, and what comes back to the client: to a host and port, or to
/// a Server of this process, wherever it is when this one starts. Served by Rust threads alone.
///
/// Each direction ends by itself (a FIN is passed on); a reset, or an error of the target, resets the
/// client. A name is resolved when the server starts, which raises socket.gaierror where it has no
/// address, and again when none of its addresses can be connected to; all are tried in turn, for
/// `connect_timeout` seconds together. A client whose target cannot be reached is reset, and its record
/// says why. `record.far` is the account of the leg to the target.
///
/// start() raises ValueError where the target leads back to the server itself, and StateError where
/// it is a Server that has no address yet. The target is held for as long as this is.
#[pyclass(frozen, extends = Service, module = "rsock")]
pub(super) struct Forward {
    target: Mutex<Option<Py<PyAny>>>,
}

#[pymethods]
impl Forward {
    #[new]
    #[pyo3(signature = (host, port=None, *, connect_timeout=None), text_signature = "(host, port=None, *, connect_timeout=10.0)")]
    fn make(
        host: Bound<'_, PyAny>,
        port: Option<Bound<'_, PyAny>>,
        connect_timeout: Option<Bound<'_, PyAny>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let py = host.py();
        let connect_timeout = match &connect_timeout {
            None => Duration::from_secs(10),
            Some(seconds) => args::seconds("connect_timeout", seconds)?,
        };
        if connect_timeout.is_zero() {
            return Err(PyValueError::new_err("connect_timeout must be more than 0 seconds"));
        }
        let (to, target) = match (host.cast::<Server>(), &port) {
            (Ok(server), None) => (To::Server(server.get().neighbour(py)?), Some(host.unbind())),
            (Ok(_), Some(_)) => {
                return Err(PyTypeError::new_err(
                    "Forward(server) goes to that server's own port; give no port with it",
                ));
            }
            (Err(_), None) if !host.is_instance_of::<PyTuple>() => {
                return Err(PyTypeError::new_err(format!(
                    "Forward({}): where to? Give a host and a port, or a Server",
                    host.repr()?
                )));
            }
            (Err(_), port) => (To::Host(args::target(&host, port.as_ref())?), None),
        };
        let forward =
            services::Forward::new(to, connect_timeout).map_err(|error| exception(py, error))?;
        let service = Service { shape: Shape::Stream(Arc::new(forward)) };
        Ok(PyClassInitializer::from(service).add_subclass(Self { target: Mutex::new(target) }))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector must never wait: a lock that is held now protects an object in use.
        match self.target.try_lock().as_deref() {
            Some(Some(target)) => visit.call(target),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        let target = self.target.try_lock().and_then(|mut target| target.take());
        drop(target);
    }
}

/// Makes the Python class of each service: its doc, its name, its arguments, and how the engine's
/// own is made of them. One entry here registers a service.
macro_rules! services {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) => $make:expr;)*) => {$(
        $(#[$doc])*
        #[pyclass(frozen, extends = Service, module = "rsock")]
        pub(super) struct $name;

        #[pymethods]
        impl $name {
            #[new]
            pub(super) fn make($($argument: $type),*) -> PyClassInitializer<Self> {
                let shape = Shape::Stream(Arc::new($make));
                PyClassInitializer::from(Service { shape }).add_subclass(Self)
            }
        }
    )*};
}

services! {
    /// Sends back whatever it receives, until the peer has finished (RFC 862). Served by Rust threads
    /// alone: it never needs the interpreter.
    Echo() => services::Echo;
}
