//! The service ByConnection for Python. Owns the check of its arguments; must never choose the
//! service of a connection.

use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};

use super::args;
use super::keywords::no_more;
use super::service::Service;
use crate::net::base::Mutex;
use crate::net::service::Shape;
use crate::net::{self, services};

/// A service that serves each connection with a service of its own, chosen by its number.
///
/// The first of `services` serves the first connection, the second serves the second, and so on.
/// All later connections are served by `rest`, or by the last of `services` if `rest` is None. The
/// number of a connection is its `id` in the ledger.
///
/// Only services in Rust can be chosen. Raises TypeError for a Handler, a function or Accept(),
/// which receive connections in another way; a handler can read `conn.id` itself.
#[pyclass(frozen, extends = Service, module = "rsock")]
pub(super) struct ByConnection {
    /// (services, rest) as passed, for equality. A service among them may refer to a server.
    given: Mutex<Option<Py<PyTuple>>>,
}

impl ByConnection {
    fn given<'py>(&self, py: Python<'py>) -> Bound<'py, PyTuple> {
        let given = self.given.lock().as_ref().map(|given| given.clone_ref(py));
        given.map_or_else(|| PyTuple::empty(py), |given| given.into_bound(py))
    }
}

#[pymethods]
impl ByConnection {
    #[new]
    #[pyo3(signature = (*services, rest=None, **unknown), text_signature = "(*services, rest=None)")]
    fn make(
        services: Bound<'_, PyTuple>,
        rest: Option<Bound<'_, PyAny>>,
        unknown: Option<Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let py = services.py();
        no_more(&py.get_type::<Self>(), unknown.as_ref())?;
        let mut first = Vec::with_capacity(services.len());
        for (index, service) in services.iter().enumerate() {
            first.push(nested(&format!("service {}", index + 1), &service)?);
        }
        let later = rest.as_ref().map(|rest| nested("rest", rest)).transpose()?;
        let service = services::ByConnection::new(first, later).ok_or_else(|| {
            PyTypeError::new_err("ByConnection() needs a service, such as ByConnection(Echo())")
        })?;
        let service = Service { shape: Shape::Stream(Arc::new(service)) };
        let given = Mutex::new(Some((services, rest).into_pyobject(py)?.unbind()));
        Ok(PyClassInitializer::from(service).add_subclass(Self { given }))
    }

    fn __eq__(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        self.given(py).eq(other.given(py))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        self.given(py).hash()
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The garbage collector must never wait: a lock that is held protects an object in use.
        match self.given.try_lock().as_deref() {
            Some(Some(given)) => visit.call(given),
            _ => Ok(()),
        }
    }

    fn __clear__(&self) {
        let given = self.given.try_lock().and_then(|mut given| given.take());
        drop(given);
    }
}

/// The engine's service of an argument of ByConnection.
fn nested(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<Arc<dyn net::service::Service>> {
    let why = match value.cast::<Service>() {
        Ok(service) => match &service.get().shape {
            Shape::Stream(service) => return Ok(Arc::clone(service)),
            Shape::Datagram(_) | Shape::Handler | Shape::Accept => {
                "is not one of those in Rust, such as Echo(); a \
                handler can read conn.id itself"
            }
        },
        Err(_) if value.is_instance_of::<PyType>() => "is a class; pass an object, such as Echo()",
        Err(_) if value.is_callable() => {
            "is a function; only services in Rust, such as Echo(), \
            are chosen by connection, and a handler can read conn.id itself"
        }
        Err(_) => "is no service; pass one in Rust, such as Echo()",
    };
    Err(PyTypeError::new_err(format!("{argument} of ByConnection {why}: {}", args::shown(value))))
}
