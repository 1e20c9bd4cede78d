//! Client for Python: the constructor of the connecting side. Owns the check of its arguments; must
//! never implement what Client shares with Connection.

use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyTuple};

use super::args::{self, settings};
use super::error::called_twice;
use super::keywords::no_more;
use super::socket_options::socket_options;
use super::stream::Stream;
use super::wait::Attached;
use crate::net;
use crate::net::address::{Target, Transport};

/// The longest that a wait may spin, in seconds. A longer spin only uses CPU time.
const MOST_SPIN: f64 = 0.01;

/// The compiled half of rsock.Client.
#[pyclass(frozen, subclass, extends = Stream, module = "rsock._rsock")]
pub(super) struct Client;

#[pymethods]
impl Client {
    // Takes any arguments: a subclass has an `__init__` of its own, with arguments of its own,
    // which Python passes to both.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(host=None, port=None, *, timeout=None, \
        transport='tcp', path=None, options=None, source_address=None, spin=200e-6, \
        retry=None)")]
    fn new(
        _args: &Bound<'_, PyTuple>,
        _kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyClassInitializer<Self> {
        PyClassInitializer::from(Stream::unset()).add_subclass(Self)
    }

    #[pyo3(signature = (host=None, port=None, *, timeout=None, transport=None, path=None, options=None,
        source_address=None, spin=200e-6, retry=None, **unknown))]
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
        let inner = Attached::run(py, |waiter| {
            net::stream::Stream::new(transport, timeout, options, source, spin, retry, waiter)
        })?;
        if let Some(target) = target {
            Attached::run(py, |waiter| inner.connect(&target, waiter))?;
        }
        let set = slf.as_super().get().set(Arc::new(inner));
        set.map_err(|_| called_twice(py, "Client"))
    }

    /// Always None; a Connection has its server here.
    #[getter]
    fn server(&self) -> Option<Py<PyAny>> {
        None
    }
}
