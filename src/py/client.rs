//! Client for Python: the constructor of the connecting side. Owns the check of its arguments; must
//! never implement what Client shares with Connection.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::args::{self, settings};
use super::error::{called_twice, exception};
use super::exit::stop_at_exit;
use super::fault_objects::FaultObjects;
use super::faults;
use super::keywords::no_more;
use super::proxy;
use super::socket_options::socket_options;
use super::stream::Stream;
use super::wait::Attached;
use crate::net;
use crate::net::address::{Target, Transport};
use crate::net::error::Error;
use crate::net::handoff::ClientFaults;
use crate::net::stage::faults::FaultHost;
use crate::net::stage::tls::TlsClient;

/// The longest that a wait may spin, in seconds. A longer spin only uses CPU time.
const MOST_SPIN: f64 = 0.01;

/// The compiled half of rsock.Client.
#[pyclass(frozen, subclass, extends = Stream, module = "rsock._rsock")]
pub(super) struct Client {
    /// Set by `__init__`, if faults were given.
    faults: OnceLock<OwnFaults>,
}

/// The faults of a client, with the objects that were passed.
struct OwnFaults {
    inner: Arc<ClientFaults>,
    objects: FaultObjects,
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
        let transport = args::transport(transport.as_ref())?;
        let others = [
            ("host", host.as_ref()),
            ("port", port.as_ref()),
            ("source_address", source_address.as_ref()),
        ];
        let unix = args::unix(path.as_ref(), transport, &others)?;
        if let (Some(_), Some((name, _))) =
            (&unix, others.iter().find(|(_, other)| other.is_some()))
        {
            return Err(PyValueError::new_err(format!(
                "{name}= is for TCP and UDP, and transport='unix' is neither; give path= instead"
            )));
        }
        let target = match (&host, &port) {
            _ if unix.is_some() => unix.clone().flatten().map(Target::unix),
            (Some(host), None) if host.is_instance_of::<PyTuple>() => {
                Some(args::target(host, None)?)
            }
            (Some(host), Some(port)) => Some(args::target(host, Some(port))?),
            (None, None) => None,
            (Some(host), None) => {
                if host.is_instance_of::<PyInt>() {
                    return Err(PyTypeError::new_err(format!(
                        "Client({host}) needs a host too: Client(\"127.0.0.1\", {host})"
                    )));
                }
                // What is wrong with the host comes first.
                args::target(host, None)?;
                return Err(PyTypeError::new_err(
                    "Client(host) needs a port too: Client(host, port)",
                ));
            }
            (None, Some(_)) => {
                return Err(PyTypeError::new_err(
                    "Client(port=…) needs a host too: Client(host, port)",
                ));
            }
        };
        let timeout = args::timeout("timeout", timeout.as_ref())?;
        let options = socket_options(&settings(
            py,
            "options",
            "SocketOptions",
            &args::DEFAULT_OPTIONS,
            options,
        )?)?;
        let source = source_address.map(|source| args::source(&source)).transpose()?;
        if !(0.0..=MOST_SPIN).contains(&spin) {
            return Err(PyValueError::new_err(format!(
                "spin {spin}: must be a number of seconds from 0 to {MOST_SPIN}"
            )));
        }
        let spin = Duration::from_secs_f64(spin);
        let transport = match unix {
            Some(_) => transport.unwrap_or(Transport::Unix),
            None => transport.unwrap_or(Transport::Tcp),
        };
        let retry = retry.map(|retry| args::seconds("retry", &retry)).transpose()?;
        if let (Some(retry), Some(Duration::ZERO)) = (retry, timeout) {
            return Err(PyValueError::new_err(format!(
                "retry={} and timeout=0: a call that never waits cannot try again",
                retry.as_secs_f64()
            )));
        }
        let tls = super::tls::of_client(tls.as_ref())?;
        let own = own_faults(py, transport, faults.as_ref(), seed.as_ref(), tls)?;
        if let (Some(_), Some(Duration::ZERO), Some(_)) = (&own, timeout, &target) {
            return Err(PyValueError::new_err(
                "faults=… and timeout=0, or tls=…: a client with stages has to wait for its \
                 connection; call settimeout(0) after it",
            ));
        }
        let preface = proxy_protocol.map(|value| proxy::preface(&value)).transpose()?;
        if preface.is_some() && transport.is_datagram() {
            return Err(PyValueError::new_err(
                "proxy_protocol: a header comes before the bytes of a stream, and datagrams are none",
            ));
        }
        if let (Some(_), Some(Duration::ZERO), Some(_)) = (&preface, timeout, &target) {
            return Err(PyValueError::new_err(
                "proxy_protocol=… and timeout=0: a client that sends a header has to wait for its \
                 connection; call settimeout(0) after it",
            ));
        }
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

/// The faults of the arguments; None if none were given.
fn own_faults(
    py: Python<'_>,
    transport: Transport,
    given: Option<&Bound<'_, PyAny>>,
    seed: Option<&Bound<'_, PyAny>>,
    tls: Option<TlsClient>,
) -> PyResult<Option<OwnFaults>> {
    let given = faults::faults(given)?;
    let seed = faults::seed(seed)?;
    if given.is_none() && seed.is_some() {
        return Err(PyValueError::new_err("seed=… is that of faults: give faults=[…] too"));
    }
    if given.is_none() && tls.is_none() {
        return Ok(None);
    }
    let given = given.unwrap_or_default();
    let (made, objects): (Vec<_>, Vec<_>) = given.into_iter().unzip();
    let inner =
        ClientFaults::new(transport, made, seed, tls).map_err(|error| exception(py, error))?;
    let objects = FaultObjects::new(inner.set().list(), objects);
    Ok(Some(OwnFaults { inner, objects }))
}
