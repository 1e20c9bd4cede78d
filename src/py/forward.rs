//! The service Forward for Python. Owns the check of its target; must never connect to it.

use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::args;
use super::error::exception;
use super::keywords::no_more;
use super::proxy;
use super::recording::plan;
use super::server::Server;
use super::service::Service;
use crate::net::address::Target;
use crate::net::base::Mutex;
use crate::net::service::Shape;
use crate::net::services::{self, To};

/// A service that forwards each connection to a target, and the answers back to the client.
///
/// The target is a host and port, the `path` of a Unix socket, or a Server of this process, whose
/// address is read when the forwarding server starts. Rust threads serve it. A Forward keeps a
/// reference to its target.
///
/// Each direction ends separately: a FIN is forwarded. A reset, or an error of the target, resets
/// the client. The addresses of a name are tried as in `Client`, for `connect_timeout` seconds
/// together. The name is resolved when the server starts, and again if no address could be
/// connected to. If the target cannot be reached, the client is reset, and its record names the
/// error. `record.far` describes the leg to the target.
///
/// `proxy_protocol` "v1" or "v2" sends a header of the PROXY protocol to the target first, with the
/// addresses of the client's connection; with "v2" also the TLVs that a proxy before this server has
/// sent. `record.far` counts it. Not on UDP.
///
/// With `tls` (True, or a TLS as in `Client`) the target is reached by TLS, which `connect_timeout`
/// covers too; a certificate that is refused resets the client. `Server(tls=…)` is the TLS of the
/// clients, so both sides can have TLS, or either.
///
/// On UDP (`Server(transport="udp")`) each peer has a session with its own socket to the target.
/// The session ends when nothing has passed in either direction for Limits.idle seconds, or for 60
/// seconds if that is None. `connect_timeout` has no effect on UDP.
///
/// `recording` is the path of a file that gets what crosses each connection, in both directions,
/// with times: a recording, which `Recording.read` reads. A server opens the file when it starts,
/// and replaces an older recording; it is complete when the server has stopped. A thread writes it.
/// Where the disk is slower than the connections, they are read more slowly. If a write fails, the
/// connections go on, the recording ends there, and `stop`, `wait` or the end of `with` raises the
/// OSError.
///
/// `redact` is what the recording must not have: a pattern of bytes, a (pattern, replacement)
/// pair, or a list of them. What a pattern matches, or only its groups if it has some, is replaced
/// by `[redacted]`, or by the replacement, before anything is written, however the bytes were cut
/// on their way. The patterns are those of the crate regex for bytes, like those of the module re
/// but without look-around. What is forwarded stays as it is.
///
/// Raises TypeError if there is no target, or more than one, and ValueError for a `connect_timeout`
/// of 0 or a wrong pattern. The server's start() raises OSError if the recording cannot be opened,
/// is recorded to already, or is a file of another kind, socket.gaierror if the name has no address, ValueError if the
/// target leads back to the server itself, and StateError if the target is a Server without an
/// address.
#[pyclass(frozen, extends = Service, module = "rsock")]
pub(super) struct Forward {
    target: Mutex<Option<Py<PyAny>>>,
}

impl Forward {
    /// A target by host and port, or a Server, to which the result keeps a reference.
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
                if let Some(error) = args::port_in_host(&host) {
                    return Err(error);
                }
                return Err(PyTypeError::new_err(format!(
                    "Forward({}): no target; give a host and a port, a Server, or path= for a Unix socket",
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
    #[pyo3(signature = (host=None, port=None, *, path=None, connect_timeout=None, proxy_protocol=None,
        tls=None, recording=None, redact=None, **unknown), text_signature = "(host=None, port=None, \
        *, path=None, connect_timeout=10.0, proxy_protocol=None, tls=None, recording=None, \
        redact=())")]
    #[allow(clippy::too_many_arguments, reason = "the signature that users see")]
    fn make(
        py: Python<'_>,
        host: Option<Bound<'_, PyAny>>,
        port: Option<Bound<'_, PyAny>>,
        path: Option<Bound<'_, PyAny>>,
        connect_timeout: Option<Bound<'_, PyAny>>,
        proxy_protocol: Option<Bound<'_, PyAny>>,
        tls: Option<Bound<'_, PyAny>>,
        recording: Option<Bound<'_, PyAny>>,
        redact: Option<Bound<'_, PyAny>>,
        unknown: Option<Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        no_more(&py.get_type::<Self>(), unknown.as_ref())?;
        let connect_timeout = match &connect_timeout {
            None => Duration::from_secs(10),
            Some(seconds) => args::seconds("connect_timeout", seconds)?,
        };
        if connect_timeout.is_zero() {
            return Err(PyValueError::new_err("connect_timeout must be more than 0 seconds"));
        }
        let proxy_protocol = proxy_protocol.map(|value| proxy::version(&value)).transpose()?;
        let tls = super::tls::of_client(tls.as_ref())?;
        let (to, target) = match (host, &path) {
            (None, Some(path)) if port.is_none() => {
                (To::Host(Target::unix(args::path(path)?)), None)
            }
            (None, None) => {
                return Err(PyTypeError::new_err(
                    "Forward(): no target; give a host and a port, a Server, or path= for a Unix socket",
                ));
            }
            (_, Some(_)) => {
                return Err(PyTypeError::new_err(
                    "Forward(path=…) goes to a Unix socket; give no host and port with it",
                ));
            }
            (Some(host), None) => Self::to_host(host, port.as_ref())?,
        };
        let plan = plan(recording.as_ref(), redact.as_ref())?;
        let forward = services::Forward::new(to, connect_timeout, tls)
            .map_err(|error| exception(py, error))?
            .with_proxy_protocol(proxy_protocol)
            .with_recording(plan);
        let service = Service { shape: Shape::Stream(Arc::new(forward)) };
        Ok(PyClassInitializer::from(service).add_subclass(Self { target: Mutex::new(target) }))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The garbage collector must never wait: a lock that is held protects an object in use.
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
