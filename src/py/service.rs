//! Services as Python sees them: one class each. Must never do what a service does.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use pyo3::{Borrowed, PyTraverseError, PyVisit};

use super::args::{self, whole};
use super::error::exception;
use super::server::Server;
use crate::net;
use crate::net::address::endpoint::Transport;
use crate::net::address::target::Target;
use crate::net::base::lock::Mutex;
use crate::net::service::shape::Shape;
use crate::net::services::{self, To};

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

/// Makes the Python class of each service: its doc, its signature as Python shows it, its arguments, and
/// how the engine's own is made of them. One entry here registers a service. Two are equal when the
/// engine's are.
macro_rules! services {
    ($(
        $(#[$doc:meta])*
        $name:ident $text:tt ($py:ident $(, $argument:ident)*) => $make:expr;
    )*) => {$(
        $(#[$doc])*
        #[pyclass(frozen, extends = Service, module = "rsock")]
        pub(super) struct $name {
            service: Arc<services::$name>,
        }

        #[pymethods]
        impl $name {
            #[new]
            #[pyo3(signature = ($($argument = Argument::Default),*), text_signature = $text)]
            #[allow(unused_variables, reason = "some need no interpreter")]
            pub(super) fn make(
                $py: Python<'_>,
                $($argument: Argument<'_>),*
            ) -> PyResult<PyClassInitializer<Self>> {
                let service = Arc::new($make);
                let shape = Shape::Stream(Arc::clone(&service) as Arc<dyn net::service::service::Service>);
                Ok(PyClassInitializer::from(Service { shape }).add_subclass(Self { service }))
            }

            fn __eq__(&self, other: &Self) -> bool {
                self.service == other.service
            }

            fn __hash__(&self) -> u64 {
                let mut hasher = DefaultHasher::new();
                (stringify!($name), &self.service).hash(&mut hasher);
                hasher.finish()
            }
        }
    )*};
}

services! {
    /// Sends back whatever it receives, until the peer has finished (RFC 862). Served by Rust threads
    /// alone: it never needs the interpreter.
    Echo "()" (py) => services::Echo;

    /// Sends whole lines back. The line `quit` (bytes, or a str for its UTF-8) is not echoed and closes the
    /// connection; None is no such line. A line ends with LF or CR LF, which is sent back unless
    /// `newline` is False; what has no ending when the peer has finished is a line as well.
    ///
    /// `limit` is for a whole line in bytes, its ending included; the smaller of it and `Limits.line`
    /// holds, and a longer line ends the connection (`closed_by` "limit"). Raises TypeError and
    /// ValueError for what cannot be, naming it: a `quit` with an end of a line in it, for example.
    LineEcho "(quit=b'exit', newline=True, limit=65_536)" (py, quit, newline, limit) => {
        let quit = quit.or(|| Ok(Some(b"exit".to_vec())), |quit| {
            if quit.is_none() { Ok(None) } else { args::octets("quit", &quit).map(Some) }
        })?;
        let newline = newline.or(|| Ok(true), |newline| args::boolean("newline", &newline))?;
        let limit = limit.or(|| Ok(65_536), |limit| whole("limit", &limit, 1, MOST_LINE))?;
        raised(py, services::LineEcho::new(quit.as_deref(), newline, limit as usize))?
    };

    /// Reads and throws away, until the peer has finished (RFC 863). It never answers.
    Discard "()" (py) => services::Discard;

    /// Sends the 95 printing characters of ASCII in lines of 72, each line beginning one further, without
    /// end (RFC 864), as fast as the peer reads. Throws away what it receives; ends when the
    /// peer does.
    Chargen "()" (py) => services::Chargen;

    /// Sends date and time in UTC as a line for people, and closes (RFC 867):
    /// `Monday, February 22, 1982 17:37:43-UTC`.
    Daytime "()" (py) => services::Daytime;

    /// Sends the seconds since 1900 as 32 bits, most significant byte first, and closes (RFC 868). In
    /// 2036 they begin at 0 again.
    Time "()" (py) => services::Time;

    /// Sends `text` (bytes, or a str for its UTF-8) as it is, and closes: the quote of the day (RFC 865).
    /// ValueError where it is not shorter than 512 bytes.
    Quote "(text)" (py, text) => {
        let text = text.needed("Quote", "text")?;
        raised(py, services::Quote::new(&args::octets("text", &text)?))?
    };

    /// Sends `message` (bytes, or a str for its UTF-8) as it is, of any length, and closes. The peer gets
    /// all of it, whatever it sends meanwhile.
    Greeting "(message)" (py, message) => {
        let message = message.needed("Greeting", "message")?;
        services::Greeting::new(&args::octets("message", &message)?)
    };
}

/// The most that LineEcho(limit=…) may be, as Limits.line.
const MOST_LINE: i64 = 1 << 30;

/// An argument of a service: given, or not, which None is not.
pub(super) enum Argument<'py> {
    Default,
    Given(Bound<'py, PyAny>),
}

impl<'py> FromPyObject<'_, 'py> for Argument<'py> {
    type Error = std::convert::Infallible;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> Result<Self, Self::Error> {
        Ok(Self::Given(value.to_owned()))
    }
}

impl<'py> Argument<'py> {
    fn or<T>(
        self,
        default: impl FnOnce() -> PyResult<T>,
        given: impl FnOnce(Bound<'py, PyAny>) -> PyResult<T>,
    ) -> PyResult<T> {
        match self {
            Self::Default => default(),
            Self::Given(value) => given(value),
        }
    }

    fn needed(self, service: &str, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.or(|| Err(PyTypeError::new_err(format!("{service}() needs an argument: {name}"))), Ok)
    }
}

fn raised<T>(py: Python<'_>, result: net::error::Result<T>) -> PyResult<T> {
    result.map_err(|error| exception(py, error))
}

/// Serves the first connection with the first of `services`, the second with the second, and so on; all
/// later ones with `rest`, or where there is none, with the last of `services`. Which one a
/// connection is, is its `id` in the ledger.
///
/// Takes services in Rust only. Raises TypeError for a Handler, a function or Accept(): these are
/// handed connections in another way; a handler may look at `conn.id` itself.
#[pyclass(frozen, extends = Service, module = "rsock")]
pub(super) struct ByConnection {
    /// (services, rest) as given, for equality; one of them may refer to a server.
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
    #[pyo3(signature = (*services, rest=None))]
    fn make(
        services: Bound<'_, PyTuple>,
        rest: Option<Bound<'_, PyAny>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let py = services.py();
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
        // The collector must never wait: a lock that is held now protects an object in use.
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

/// The engine's service of one that ByConnection is given.
fn nested(
    place: &str,
    value: &Bound<'_, PyAny>,
) -> PyResult<Arc<dyn net::service::service::Service>> {
    let why = match value.cast::<Service>() {
        Ok(service) => match &service.get().shape {
            Shape::Stream(service) => return Ok(Arc::clone(service)),
            Shape::Datagram(_) | Shape::Handler | Shape::Accept => {
                "is not one of those in Rust, such as Echo(); a \
                handler may look at conn.id itself"
            }
        },
        Err(_) if value.is_instance_of::<PyType>() => "is a class; give an object, such as Echo()",
        Err(_) if value.is_callable() => {
            "is a function; only services in Rust, such as Echo(), \
            are chosen by connection, and a handler may look at conn.id itself"
        }
        Err(_) => "is no service; give one in Rust, such as Echo()",
    };
    Err(PyTypeError::new_err(format!("{place} of ByConnection {why}: {}", args::shown(value))))
}
