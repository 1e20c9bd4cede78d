//! The service Forward for Python: a target, checked. Must never connect to it.

use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};

use super::args;
use super::error::exception;
use super::server::Server;
use super::service::Service;
use crate::net::address::Target;
use crate::net::base::Mutex;
use crate::net::service::Shape;
use crate::net::services::{self, To};

/// Passes each connection on to a target, and what comes back to the client: to a host and port, to the
/// `path` of a Unix socket, or to a Server of this process, wherever it is when this one starts. Served by Rust threads alone.
///
/// Each direction ends by itself (a FIN is passed on); a reset, or an error of the target, resets the
/// client. A name is resolved when the server starts, which raises socket.gaierror where it has no
/// address, and again when none of its addresses can be connected to; all are tried in turn, for
/// `connect_timeout` seconds together. A client whose target cannot be reached is reset, and its record
/// says why. `record.far` is the account of the leg to the target.
///
/// On UDP (`Server(transport="udp")`) each peer has a session, a socket of its own to the target, until
/// nothing has gone either way for Limits.idle seconds, or 60 where that is None; `connect_timeout` does
/// not matter.
///
/// start() raises ValueError where the target leads back to the server itself, and StateError where
/// it is a Server that has no address yet. The target is held for as long as this is.
#[pyclass(frozen, extends = Service, module = "rsock")]
pub(super) struct Forward {
    target: Mutex<Option<Py<PyAny>>>,
}

impl Forward {
    /// A target by host and port, or a Server, which is kept.
    fn to_host(
        host: Bound<'_, PyAny>,
        port: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(To, Option<Py<PyAny>>)> {
        Ok(match (host.cast::<Server>(), port) {
            (Ok(server), None) => {
                (To::Server(server.get().handle(host.py())?), Some(host.unbind()))
            }
            (Ok(_), Some(_)) => {
                return Err(PyTypeError::new_err(
                    "Forward(server) goes to that server's own port; give no port with it",
                ));
            }
            (Err(_), None) if !host.is_instance_of::<PyTuple>() => {
                return Err(PyTypeError::new_err(format!(
                    "Forward({}): where to? Give a host and a port, a Server, or path= for a Unix socket",
                    host.repr()?
                )));
            }
            (Err(_), port) => (To::Host(args::target(&host, port)?), None),
        })
    }
}

#[pymethods]
impl Forward {
    #[new]
    #[pyo3(signature = (host=None, port=None, *, path=None, connect_timeout=None), text_signature = "(host=None, port=None, *, path=None, connect_timeout=10.0)")]
    fn make(
        py: Python<'_>,
        host: Option<Bound<'_, PyAny>>,
        port: Option<Bound<'_, PyAny>>,
        path: Option<Bound<'_, PyAny>>,
        connect_timeout: Option<Bound<'_, PyAny>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let connect_timeout = match &connect_timeout {
            None => Duration::from_secs(10),
            Some(seconds) => args::seconds("connect_timeout", seconds)?,
        };
        if connect_timeout.is_zero() {
            return Err(PyValueError::new_err("connect_timeout must be more than 0 seconds"));
        }
        let (to, target) = match (host, &path) {
            (None, Some(path)) if port.is_none() => {
                (To::Host(Target::unix(args::path(path)?)), None)
            }
            (None, None) => {
                return Err(PyTypeError::new_err(
                    "Forward(): where to? Give a host and a port, a Server, or path= for a Unix socket",
                ));
            }
            (_, Some(_)) => {
                return Err(PyTypeError::new_err(
                    "Forward(path=…) goes to a Unix socket; give no host and port with it",
                ));
            }
            (Some(host), None) => Self::to_host(host, port.as_ref())?,
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
