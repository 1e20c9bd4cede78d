//! Client for Python: the constructor of the connecting side. Owns its faults; must never implement
//! what Client shares with Connection.

use std::sync::{Arc, OnceLock};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::client_arguments::{CheckedClient, ClientArguments, OwnFaults};
use super::error::{called_twice, exception};
use super::exit::stop_at_exit;
use super::fault_objects::FaultObjects;
use super::keywords::no_more;
use super::stream::Stream;
use super::wait::Attached;
use crate::net;
use crate::net::error::Error;
use crate::net::stage::faults::FaultHost;

/// The compiled half of rsock.Client.
#[pyclass(frozen, subclass, extends = Stream, module = "rsock._rsock")]
pub(super) struct Client {
    /// Set by `__init__`, if faults were given.
    faults: OnceLock<OwnFaults>,
}

impl Client {
    /// The faults, with the engine's. ValueError without any.
    pub(super) fn faults(&self, py: Python<'_>) -> PyResult<(&FaultObjects, &dyn FaultHost)> {
        let own = self.faults.get().ok_or_else(|| {
            let text = "fault: the client was made without faults=[…], which may be empty";
            exception(py, Error::Value(text.to_owned()))
        })?;
        Ok((&own.objects, &*own.inner))
    }
}

#[pymethods]
impl Client {
    // Takes any arguments: a subclass has an `__init__` of its own, with arguments of its own,
    // which Python passes to both.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(host=None, port=None, *, timeout=None, \
        transport='tcp', path=None, options=None, source_address=None, spin=200e-6, \
        retry=None, faults=None, seed=None, tls=None, proxy_protocol=None)")]
    fn new(
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyClassInitializer<Self> {
        PyClassInitializer::from(Stream::unset()).add_subclass(Self { faults: OnceLock::new() })
    }

    #[pyo3(signature = (host=None, port=None, *, timeout=None, transport=None, path=None, options=None,
        source_address=None, spin=200e-6, retry=None, faults=None, seed=None, tls=None,
        proxy_protocol=None, **unknown))]
    #[allow(clippy::too_many_arguments, reason = "the signature that users see")]
    fn __init__<'py>(
        slf: &Bound<'py, Self>,
        host: Option<Bound<'py, PyAny>>,
        port: Option<Bound<'py, PyAny>>,
        timeout: Option<Bound<'py, PyAny>>,
        transport: Option<Bound<'py, PyAny>>,
        path: Option<Bound<'py, PyAny>>,
        options: Option<Bound<'py, PyAny>>,
        source_address: Option<Bound<'py, PyAny>>,
        spin: f64,
        retry: Option<Bound<'py, PyAny>>,
        faults: Option<Bound<'py, PyAny>>,
        seed: Option<Bound<'py, PyAny>>,
        tls: Option<Bound<'py, PyAny>>,
        proxy_protocol: Option<Bound<'py, PyAny>>,
        unknown: Option<Bound<'py, PyDict>>,
    ) -> PyResult<()> {
        let py = slf.py();
        no_more(&py.get_type::<Self>(), unknown.as_ref())?;
        let arguments = ClientArguments {
            host,
            port,
            timeout,
            transport,
            path,
            options,
            source_address,
            spin,
            retry,
            faults,
            seed,
            tls,
            proxy_protocol,
        };
        let CheckedClient {
            target,
            transport,
            timeout,
            options,
            source,
            spin,
            retry,
            own,
            preface,
        } = arguments.check(py)?;
        let mut inner = Attached::run(py, |waiter| {
            net::stream::Stream::new(transport, timeout, options, source, spin, retry, waiter)
        })?;
        if let Some(preface) = preface {
            inner.set_preface(preface);
        }
        if let Some(own) = own {
            stop_at_exit(py)?;
            own.inner.apply(&mut inner);
            slf.get().faults.set(own).map_err(|_| called_twice(py, "Client"))?;
        }
        if let Some(target) = target {
            Attached::run(py, |waiter| inner.connect(&target, waiter))?;
        }
        let set = slf.as_super().get().set(Arc::new(inner));
        set.map_err(|_| called_twice(py, "Client"))
    }

    /// The seed of the random numbers of its faults; None without faults.
    ///
    /// With the same seed, faults and traffic, a client has the same faults again. If none was
    /// given, it was drawn.
    #[getter]
    fn seed(&self) -> Option<u64> {
        self.faults.get().map(|own| own.inner.set().seed())
    }

    /// Add a fault and return its number, once the connection has it. For the Python half.
    #[pyo3(signature = (fault, level=1))]
    fn _add_fault(&self, py: Python<'_>, fault: Bound<'_, PyAny>, level: i32) -> PyResult<u64> {
        let (faults, host) = self.faults(py)?;
        faults.add(host, &fault, level)
    }

    /// Remove faults by their numbers, and return how many were there. For the Python half.
    ///
    /// Returns once the connection has none of them.
    fn _remove_faults(&self, py: Python<'_>, numbers: Vec<u64>) -> PyResult<usize> {
        let (faults, host) = self.faults(py)?;
        faults.remove(py, host, &numbers)
    }

    /// Return number, object, connections and events of each fault. For the Python half.
    fn _list_faults<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        match self.faults.get() {
            Some(own) => own.objects.listed(py),
            None => Ok(PyList::empty(py)),
        }
    }

    /// Always None; a Connection has its server here.
    #[getter]
    fn server(&self) -> Option<Py<PyAny>> {
        None
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.faults.get().map_or(Ok(()), |own| own.objects.traverse(&visit))
    }

    fn __clear__(&self) {
        drop(self.faults.get().map(|own| own.objects.clear()));
    }
}
