//! The service ByConnection for Python. Owns the check of its arguments; must never choose the
//! service of a connection.

use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use pyo3::{PyTraverseError, PyVisit};

use super::args;
use super::keywords::no_more;
use super::service::{Handler, Service, handler_name};
use crate::net::base::Mutex;
use crate::net::service::Shape;
use crate::net::services::{self, Choice};

/// A service that serves each connection with a service of its own, chosen by its number.
///
/// The first of `services` serves the first connection, the second serves the second, and so on.
/// All later connections are served by `rest`, or by the last of `services` if `rest` is None. The
/// number of a connection is its `id` in the ledger.
///
/// A service is one in Rust, such as Echo(), or a Handler, or a function, which becomes one.
/// Handlers work on TCP and Unix sockets. Raises TypeError for Accept(), which leaves connections
/// in the kernel's queue, and for a class.
#[pyclass(frozen, extends = Service, module = "rsock")]
pub(super) struct ByConnection {
    /// (services, rest) as passed, for equality, and the function of each that is a handler. They
    /// may refer to a server.
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
        let mut functions = Vec::with_capacity(services.len() + 1);
        for (index, service) in services.iter().enumerate() {
            let (choice, function) = nested(&format!("service {}", index + 1), &service)?;
            first.push(choice);
            functions.push(function);
        }
        let later = rest.as_ref().map(|rest| nested("rest", rest)).transpose()?;
        let (later, function) = later.map_or((None, None), |(rest, call)| (Some(rest), Some(call)));
        functions.extend(function);
        let shape = services::ByConnection::shape(first, later).ok_or_else(|| {
            PyTypeError::new_err("ByConnection() needs a service, such as ByConnection(Echo())")
        })?;
        let service = Service { shape };
        let functions = PyTuple::new(py, functions)?;
        let given = Mutex::new(Some((services, rest, functions).into_pyobject(py)?.unbind()));
        Ok(PyClassInitializer::from(service).add_subclass(Self { given }))
    }

    /// The services that were passed, `rest` included. For the Python half.
    fn _services<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let given = self.given(py);
        if given.is_empty() {
            return Ok(given);
        }
        let mut services: Vec<_> = given.get_item(0)?.cast_into::<PyTuple>()?.iter().collect();
        services.extend(Some(given.get_item(1)?).filter(|rest| !rest.is_none()));
        PyTuple::new(py, services)
    }

    /// The function that serves connection number `id`; None for a service in Rust.
    fn _function<'py>(&self, py: Python<'py>, id: usize) -> PyResult<Option<Bound<'py, PyAny>>> {
        let given = self.given(py);
        if given.is_empty() {
            return Ok(None);
        }
        let functions = given.get_item(2)?.cast_into::<PyTuple>()?;
        // The last one is that of `rest`, or the last of `services`.
        let index = id.saturating_sub(1).min(functions.len().saturating_sub(1));
        let function = functions.get_item(index)?;
        Ok((!function.is_none()).then_some(function))
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

/// The choice that an argument of ByConnection stands for, and the function of a handler.
fn nested<'py>(
    argument: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<(Choice, Option<Bound<'py, PyAny>>)> {
    let py = value.py();
    let function = match value.cast::<Handler>() {
        Ok(handler) => handler.get().function(py).map(|function| function.into_bound(py)),
        Err(_) if value.is_callable() && !value.is_instance_of::<PyType>() => Some(value.clone()),
        Err(_) => None,
    };
    if let Some(function) = function {
        let handlers = py.import("rsock._handlers")?;
        handlers.call_method1("check", (&function,))?;
        handlers.call_method1("check_arity", (&function, "tcp"))?;
        return Ok((Choice::Handler(handler_name(&function)?), Some(function)));
    }
    let why = match value.cast::<Service>() {
        Ok(service) => match &service.get().shape {
            Shape::Stream(service) => {
                return Ok((Choice::Service(Arc::clone(service)), None));
            }
            Shape::Mixed(..) => "has handlers of its own; give them to this one",
            Shape::Datagram(_) | Shape::Handler | Shape::Accept => {
                "takes connections in another way than services such as Echo() and handlers"
            }
        },
        Err(_) if value.is_instance_of::<PyType>() => "is a class; pass an object, such as Echo()",
        Err(_) => "is no service; pass one, such as Echo(), or a function",
    };
    Err(PyTypeError::new_err(format!("{argument} of ByConnection {why}: {}", args::shown(value))))
}
