//! Server for Python: the constructor's checks, the steps, the stop. Must never hold a lock of the
//! engine while it calls Python, nor own more of Python than the objects it was given.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::args::{self, optional_text, settings, unbuilt, whole};
use super::buffer::{Source, with_scratch};
use super::connection::accepted;
use super::error::exception;
use super::exit::stop_at_exit;
use super::ledger::Ledger;
use super::pool::Pool;
use super::process::object;
use super::service::{Handler, Service};
use super::services::Echo;
use super::wait::Attached;
use crate::net;
use crate::net::address::{Address, Target, Transport, UnixName, host_text};
use crate::net::base::Mutex;
use crate::net::control::{Cause, Config, Limits, StopReport};
use crate::net::error::Error;
use crate::net::server::State;
use crate::net::service::Shape;
use crate::net::socket::{SocketOptions, bound_address};

/// More workers than any machine has CPUs for would only be a mistyped number.
const MOST_WORKERS: i64 = 1024;
/// More records than fit into memory would be one too.
const MOST_HISTORY: i64 = 100_000_000;

/// The compiled half of rsock.Server.
#[pyclass(frozen, subclass, module = "rsock._rsock")]
pub(super) struct Server {
    inner: net::server::Server,
    /// Given back as they were given; a service in Python may refer to the server again.
    service: Mutex<Option<Py<PyAny>>>,
    options: Py<PyAny>,
    limits: Py<PyAny>,
    ledger: Py<Ledger>,
    /// What handlers' errors are made of; None with any other service.
    handlers: Mutex<Option<Py<PyAny>>>,
}

/// Seconds of a report.
fn report<'py>(py: Python<'py>, report: &StopReport) -> PyResult<Bound<'py, PyAny>> {
    let fields = PyDict::new(py);
    fields.set_item("drained", report.drained)?;
    fields.set_item("forced", report.forced)?;
    fields.set_item("abandoned", report.abandoned)?;
    fields.set_item("errors", report.errors)?;
    fields.set_item("cause", report.cause.name())?;
    fields.set_item("seconds", report.seconds.as_secs_f64())?;
    object(py, "StopReport", &fields)
}

/// The service of an argument, or a TypeError that says what would be one.
fn service<'py>(
    py: Python<'py>,
    value: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, Service>> {
    let Some(value) = value else {
        return Ok(Bound::new(py, Echo::make(py)?)?.into_super());
    };
    match value.cast_into::<Service>() {
        Ok(service) => Ok(service),
        // A bare function means Handler; what cannot be one says what would be.
        Err(error) => Ok(Bound::new(py, Handler::make(error.into_inner())?)?.into_super()),
    }
}

/// What `on_error` may be.
fn on_error<'py>(py: Python<'py>, value: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
    let Some(value) = value else { return Ok("log".into_pyobject(py)?.into_any()) };
    if value.is_callable() || value.eq("log")? || value.eq("raise")? {
        return Ok(value);
    }
    let wanted = "'log', 'raise' or a function of one argument";
    if value.is_instance_of::<PyString>() {
        return Err(PyValueError::new_err(format!("on_error {}: must be {wanted}", value.repr()?)));
    }
    Err(args::wrong_type("on_error", wanted, &value))
}

impl Server {
    /// In a forked child nothing of it is usable.
    fn here(&self, py: Python<'_>) -> PyResult<&net::server::Server> {
        self.inner.check_origin().map_err(|error| exception(py, error))?;
        Ok(&self.inner)
    }

    /// How a service finds it.
    pub(super) fn handle(&self, py: Python<'_>) -> PyResult<net::control::ServerHandle> {
        self.here(py).map(net::server::Server::handle)
    }

    /// The address it is, or was, bound to; None before that.
    fn bound(&self, py: Python<'_>) -> PyResult<Option<Address>> {
        match self.here(py)?.address() {
            Ok(address) => Ok(Some(address)),
            Err(Error::State { .. }) => Ok(None),
            Err(error) => Err(exception(py, error)),
        }
    }

    fn stopped<'py>(
        &self,
        py: Python<'py>,
        drain: Option<Bound<'py, PyAny>>,
        cause: Cause,
    ) -> PyResult<Bound<'py, PyAny>> {
        let drain = drain.map(|drain| args::seconds("drain", &drain)).transpose()?;
        let inner = self.here(py)?;
        let stopped = Attached::run(py, |waiter| inner.stop(drain, cause, waiter))?;
        report(py, &stopped)
    }
}

/// Where to listen, when that is no host and port: a path, or what a descriptor of the caller's is.
fn place(
    py: Python<'_>,
    path: Option<UnixName>,
    fd: Option<RawFd>,
    transport: Option<Transport>,
) -> PyResult<Target> {
    let found = fd.and_then(bound_address);
    match (path, found) {
        (Some(name), _) => Ok(Target::unix(name)),
        (None, Some(Address::Unix(name))) if transport.is_none_or(|it| it == Transport::Unix) => {
            Ok(Target::unix(name))
        }
        (None, _) if transport == Some(Transport::Unix) => Err(PyValueError::new_err(match fd {
            Some(fd) => format!("fd={fd} and transport='unix': it is no Unix socket"),
            None => "transport='unix' needs a path: path='/tmp/x.sock'".to_owned(),
        })),
        (None, Some(Address::Unix(_))) => Err(PyValueError::new_err(format!(
            "fd={} and transport='{}': it is a Unix socket",
            fd.unwrap_or(-1),
            transport.map_or("tcp", Transport::name)
        ))),
        // What else it is, `create` finds out.
        (None, _) => Target::new("127.0.0.1", 0).map_err(|error| exception(py, error)),
    }
}

/// Refuses what was asked for and has no meaning on the transport.
fn check_transport(
    target: &Target,
    fd: Option<RawFd>,
    options: &SocketOptions,
    limits: &Limits,
) -> Result<(), Error> {
    let refuse = |text| Err(Error::Value(text));
    if target.as_unix().is_some() {
        options.check_unix()?;
        if let Some(most) = limits.per_host {
            return refuse(format!(
                "Limits(per_host={most}): the peers of a Unix socket have no hosts"
            ));
        }
    }
    let Some(mode) = options.mode else { return Ok(()) };
    let why = match target.as_unix() {
        Some(name) if name.is_abstract() => "an abstract name has no file",
        None => "the permissions of a Unix socket's file; TCP has none",
        Some(_) if fd.is_some() => "the file of a socket given by fd= is not ours to change",
        Some(_) => return Ok(()),
    };
    refuse(format!("SocketOptions(mode=0o{mode:o}): {why}"))
}

fn named(cause: &str) -> PyResult<Cause> {
    Cause::named(cause).ok_or_else(|| PyValueError::new_err(format!("cause {cause:?}: unknown")))
}

/// A weak reference, so that whoever waits for connections keeps no server alive.
fn weak(server: &Bound<'_, Server>) -> PyResult<Py<PyAny>> {
    Ok(server.py().import("weakref")?.getattr("ref")?.call1((server,))?.unbind())
}

#[pymethods]
impl Server {
    #[new]
    #[pyo3(signature = (
        host=None, port=None, service=None, *, transport=None, path=None, fd=None, workers=None,
        options=None, limits=None, faults=None, seed=None, trace=None, history=None, drain=None,
        on_error=None, allow_external=None, name=None,
    ), text_signature = "(host='127.0.0.1', port=0, service=None, *, transport='tcp', path=None, fd=None, \
        workers=None, options=None, limits=None, faults=(), seed=None, trace=False, history=10_000, \
        drain=1.0, on_error='log', allow_external=False, name=None)")]
    #[allow(clippy::too_many_arguments, reason = "the signature that users see")]
    fn new<'py>(
        py: Python<'py>,
        host: Option<Bound<'py, PyAny>>,
        port: Option<Bound<'py, PyAny>>,
        service: Option<Bound<'py, PyAny>>,
        transport: Option<Bound<'py, PyAny>>,
        path: Option<Bound<'py, PyAny>>,
        fd: Option<Bound<'py, PyAny>>,
        workers: Option<Bound<'py, PyAny>>,
        options: Option<Bound<'py, PyAny>>,
        limits: Option<Bound<'py, PyAny>>,
        faults: Option<Bound<'py, PyAny>>,
        seed: Option<Bound<'py, PyAny>>,
        trace: Option<Bound<'py, PyAny>>,
        history: Option<Bound<'py, PyAny>>,
        drain: Option<Bound<'py, PyAny>>,
        on_error: Option<Bound<'py, PyAny>>,
        allow_external: Option<Bound<'py, PyAny>>,
        name: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let transport = args::transport(transport.as_ref())?;
        let others = [("host", host.as_ref()), ("port", port.as_ref()), ("fd", fd.as_ref())];
        let unix = args::unix(path.as_ref(), transport, &others)?;
        unbuilt("faults", "()", faults.as_ref(), |value| {
            Ok(value.cast::<PyTuple>().is_ok_and(|value| value.is_empty()))
        })?;
        unbuilt("seed", "None", seed.as_ref(), |_| Ok(false))?;
        let allow_external = args::flag("allow_external", allow_external.as_ref())?;
        if fd.is_some() && (host.is_some() || port.is_some()) {
            return Err(PyTypeError::new_err(
                "fd= is a listener with an address of its own; give no host and port with it",
            ));
        }
        let fd = fd.map(|fd| whole("fd", &fd, 0, i64::from(RawFd::MAX))).transpose()?;
        let fd = fd.map(|fd| fd as RawFd);
        let target = match &host {
            _ if unix.is_some() || fd.is_some() => place(py, unix.flatten(), fd, transport)?,
            Some(host) => args::target(host, port.as_ref())?,
            None => {
                let port = port.as_ref().map_or(Ok(0), args::port)?;
                Target::new("127.0.0.1", port).map_err(|error| exception(py, error))?
            }
        };
        let workers =
            workers.map(|workers| whole("workers", &workers, 1, MOST_WORKERS)).transpose()?;
        let history =
            history.map_or(Ok(10_000), |history| whole("history", &history, 0, MOST_HISTORY))?;
        let drain =
            drain.map_or(Ok(Duration::from_secs(1)), |drain| args::seconds("drain", &drain))?;
        let name = optional_text("name", name.as_ref())?;
        let options = settings(py, "options", "SocketOptions", &args::DEFAULT_OPTIONS, options)?;
        let limits = settings(py, "limits", "Limits", &args::DEFAULT_LIMITS, limits)?;
        let service = self::service(py, service)?;
        let on_error = self::on_error(py, on_error)?;
        let socket_options = args::socket_options(&options)?;
        let engine_limits = args::limits(&limits)?;
        check_transport(&target, fd, &socket_options, &engine_limits)
            .map_err(|error| exception(py, error))?;
        if let Some(linger) = socket_options.linger.filter(|linger| !linger.is_zero()) {
            return Err(PyValueError::new_err(format!(
                "SocketOptions(linger={}): above 0 it makes close() wait, which a server's threads never do; \
                 leave it at None, or give 0 to reset connections at their end",
                linger.as_secs()
            )));
        }
        if transport == Some(Transport::Udp) && socket_options.reuse_port {
            return Err(PyValueError::new_err(
                "SocketOptions(reuse_port=True) would let others take datagrams of a UDP server; workers=… \
                 has as many sockets on the port as it has threads",
            ));
        }
        let transport = match transport {
            _ if target.as_unix().is_some() => Transport::Unix,
            transport => transport.unwrap_or(Transport::Tcp),
        };
        let shape = service.get().shape_for(transport)?;
        if let Ok(handler) = service.cast::<Handler>() {
            let check = py.import("rsock._handlers")?.getattr("check_arity")?;
            check.call1((handler.get().function(py), transport.name()))?;
        }
        let config = Config {
            transport,
            allow_external,
            target,
            fd,
            shape,
            stages: None,
            workers: workers.map(|workers| workers as usize),
            options: socket_options,
            limits: engine_limits,
            history: history as usize,
            trace: args::trace(trace.as_ref())?,
            drain,
            name: name.unwrap_or_else(|| format!("server-{}", NUMBER.fetch_add(1, Relaxed))),
        };
        let inner = net::server::Server::new(config);
        let ledger = Py::new(py, Ledger::new(inner.ledger()))?;
        let handlers = if matches!(service.get().shape, Shape::Handler) {
            Some(py.import("rsock._handlers")?.getattr("Handlers")?.call1((on_error,))?.unbind())
        } else {
            None
        };
        Ok(Self {
            inner,
            service: Mutex::new(Some(service.into_any().unbind())),
            options: options.unbind(),
            limits: limits.unbind(),
            ledger,
            handlers: Mutex::new(handlers),
        })
    }

    /// Opens the socket: socket(2). Raises OSError, naming the step and the address, and
    /// socket.gaierror for an unknown host; StateError where that was done already. Blocks only for a
    /// host name, with the interpreter released. Returns the server, as all steps do.
    fn create(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let inner = slf.get().here(slf.py())?;
        Attached::run(slf.py(), |waiter| inner.create(None, waiter))?;
        Ok(slf)
    }

    /// Gives the socket its address, creating it first: bind(2). `address` replaces the host and port, or
    /// the path, of the constructor.
    ///
    /// The file of a Unix socket is made by this, with the permissions of SocketOptions(mode=…) from the
    /// start. One that a process left which was killed is replaced, under a lock file beside it; one whose
    /// socket is alive, and a file of another kind, never: EADDRINUSE.
    ///
    /// Raises OSError where the address is taken, foreign or not permitted, and has then closed all
    /// that it opened; if a Server of this process holds it, the error names it. Where that one is just
    /// ending, waits for it up to 1 s, with the interpreter released.
    #[pyo3(signature = (address=None))]
    fn bind<'py>(
        slf: Bound<'py, Self>,
        address: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        let inner = slf.get().here(slf.py())?;
        let unix = inner.config().target.as_unix().is_some();
        let target = address.map(|address| {
            let target = args::destination(&address)?;
            match (unix, target.as_unix()) {
                (true, None) => Err(args::wrong_type("address", "a path", &address)),
                (false, Some(_)) => {
                    Err(args::wrong_type("address", "a (host, port) pair", &address))
                }
                _ => Ok(target),
            }
        });
        let target = target.transpose()?;
        stop_at_exit(slf.py())?;
        Attached::run(slf.py(), |waiter| inner.bind(target.as_ref(), waiter))?;
        Ok(slf)
    }

    /// Has the kernel take connections into the queue, doing first what was not done: listen(2). They
    /// are served from `start` on. `backlog` None is that of the options. Raises as `bind`.
    #[pyo3(signature = (backlog=None))]
    fn listen<'py>(
        slf: Bound<'py, Self>,
        backlog: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        let backlog = backlog
            .map(|backlog| whole("backlog", &backlog, 0, i64::from(i32::MAX)))
            .transpose()?;
        let inner = slf.get().here(slf.py())?;
        stop_at_exit(slf.py())?;
        Attached::run(slf.py(), |waiter| {
            inner.listen(backlog.map(|backlog| backlog as u32), waiter)
        })?;
        Ok(slf)
    }

    /// Starts serving, doing first what was not done; returns when the port is open. A server that
    /// serves already is left as it is. Raises as `bind`; StateError for a server that was stopped.
    fn start(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let py = slf.py();
        let inner = slf.get().here(py)?;
        stop_at_exit(py)?;
        if inner.state() != State::Serving {
            Attached::run(py, |waiter| inner.start(waiter))?;
        }
        Ok(slf)
    }

    /// Stops accepting, delivers what is owed for up to `drain` seconds (None: the server's own), then
    /// resets what is left; 0 resets at once. Once started, it still serves those that wait in the
    /// queue. A connection that has sent nothing yet is given 0.25 s for its first byte.
    ///
    /// Blocks, with the interpreter released, for at most `drain` and 50 ms. A second call, from any
    /// thread, takes the earlier deadline and returns the same StopReport. Ctrl-C ends the wait, not
    /// the stop.
    #[pyo3(signature = (drain=None))]
    fn stop<'py>(
        &self,
        py: Python<'py>,
        drain: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.stopped(py, drain, Cause::Stop)
    }

    /// Starts it, for `with`.
    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        slf.call_method0(intern!(slf.py(), "start"))
    }

    /// Stops it: at once where the body raised, else as `stop()`.
    ///
    /// Here and not in the Python half, because Python looks for signals when it enters a function of its
    /// own: Ctrl-C would end `__exit__` before its first line, and nobody would stop the server.
    fn __exit__(
        slf: &Bound<'_, Self>,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_type, traceback);
        let (py, server) = (slf.py(), slf.get());
        let left = slf.call_method1(intern!(py, "_leave"), (exc,));
        if left.is_err() && matches!(server.inner.state(), State::Serving | State::Draining) {
            let at_once = Some(Duration::ZERO);
            Attached::run(py, |waiter| server.inner.stop(at_once, Cause::Exception, waiter))?;
        }
        left.map(drop)
    }

    /// As `stop`, with the cause that the report is to name. For the Python half.
    fn _stop<'py>(
        &self,
        py: Python<'py>,
        drain: Option<Bound<'py, PyAny>>,
        cause: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.stopped(py, drain, named(cause)?)
    }

    /// Begins a stop and returns at once. For handlers that end the program.
    fn _begin_stop(&self, cause: &str) -> PyResult<()> {
        self.inner.begin_stop(named(cause)?);
        Ok(())
    }

    /// What reports the errors of handlers; None with any other service.
    #[getter]
    fn _handlers(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.handlers.lock().as_ref().map(|handlers| handlers.clone_ref(py))
    }

    /// What handler threads take their connections from.
    fn _pool(slf: &Bound<'_, Self>) -> PyResult<Pool> {
        let py = slf.py();
        Ok(Pool::new(slf.get().here(py)?.pool(), weak(slf)?))
    }

    /// Waits for the next connection, for the Python half of `accept`.
    #[pyo3(signature = (timeout=None))]
    fn _accept<'py>(
        slf: &Bound<'py, Self>,
        timeout: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let deadline = args::deadline(args::timeout("timeout", timeout.as_ref())?);
        let inner = slf.get().here(py)?;
        if inner.config().transport == Transport::Udp {
            return with_scratch(inner.config().limits.datagram, |scratch| {
                let (bytes, from) =
                    Attached::run(py, |waiter| inner.receive(scratch, deadline, waiter))?;
                (PyBytes::new(py, &scratch[..bytes]), args::user_address(py, &from)?)
                    .into_pyobject(py)
            });
        }
        let stream = Attached::run(py, |waiter| inner.accept(deadline, waiter))?;
        accepted(py, stream, &weak(slf)?)
    }

    /// Sends a datagram from the server's port and returns its length: sendto(2). With a handler or
    /// `Accept()` on UDP, for answers that are not what a handler returns.
    ///
    /// Never blocks, but for a host that is a name. Raises BlockingIOError where there is no room,
    /// PermissionError for a peer outside the loopback that would get more than it has sent or than
    /// its share, OSError EMSGSIZE for what no datagram has room for; StateError while the server does
    /// not serve; TypeError with any other server.
    fn sendto<'py>(
        &self,
        py: Python<'py>,
        data: Bound<'py, PyAny>,
        address: Bound<'py, PyAny>,
    ) -> PyResult<usize> {
        let inner = self.here(py)?;
        let config = inner.config();
        if config.transport != Transport::Udp
            || !matches!(config.shape, Shape::Handler | Shape::Accept)
        {
            return Err(PyTypeError::new_err(
                "sendto: only a UDP server with a handler or Accept() sends on demand",
            ));
        }
        let target = args::address(&address)?;
        let data = Source::new(data)?;
        Attached::run(py, |waiter| inner.send_to(&target, data.as_slice(), waiter))
    }

    /// Begins a stop and returns at once. For `__del__`: whoever keeps the warning keeps the server.
    fn _abandon(&self) {
        self.inner.abandon();
    }

    /// Blocks until the server has stopped, whoever stops it, and returns the StopReport.
    ///
    /// Raises TimeoutError after `timeout` seconds (None waits for ever), StateError where it was
    /// never started. Releases the interpreter.
    #[pyo3(signature = (timeout=None))]
    fn wait<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let deadline = args::deadline(args::timeout("timeout", timeout.as_ref())?);
        let inner = self.here(py)?;
        let stopped = Attached::run(py, |waiter| inner.wait(deadline, waiter))?;
        report(py, &stopped)
    }

    /// Number of the listening descriptor; -1 where there is none.
    fn fileno(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.here(py)?.fileno().map_err(|error| exception(py, error))
    }

    /// The listener's own address as socket.getsockname() gives it: a pair, four for IPv6, or a path.
    fn getsockname<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let address = self.here(py)?.address().map_err(|error| exception(py, error))?;
        args::socket_address(py, &address)
    }

    /// The address it is, or was, bound to: always (host, port), an IPv6 scope inside the host; of a Unix
    /// socket its path, a str. StateError before bind.
    #[getter]
    fn address<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let address = self.here(py)?.address().map_err(|error| exception(py, error))?;
        args::user_address(py, &address)
    }

    /// Host of `address`; before bind, the host that was asked for. None of a Unix socket.
    #[getter]
    fn host(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let inner = self.here(py)?;
        Ok(match self.bound(py)? {
            Some(Address::Ip(address)) => Some(host_text(&address)),
            Some(Address::Unix(_)) => None,
            None => {
                let target = &inner.config().target;
                target.as_unix().is_none().then(|| target.host().to_owned())
            }
        })
    }

    /// Port of `address`; before bind, the port that was asked for. None of a Unix socket.
    #[getter]
    fn port(&self, py: Python<'_>) -> PyResult<Option<u16>> {
        let inner = self.here(py)?;
        Ok(match self.bound(py)? {
            Some(Address::Ip(address)) => Some(address.port()),
            Some(Address::Unix(_)) => None,
            None => {
                let target = &inner.config().target;
                target.as_unix().is_none().then(|| target.port())
            }
        })
    }

    /// Path of a Unix socket, a str, also before bind; an abstract name begins with a NUL. None of any
    /// other transport.
    #[getter]
    fn path<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyString>>> {
        let inner = self.here(py)?;
        let bound = self.bound(py)?;
        let name = match &bound {
            Some(address) => address.as_unix(),
            None => inner.config().target.as_unix(),
        };
        name.map(|name| args::name_text(py, name)).transpose()
    }

    /// How bytes travel: "tcp", "udp" or "unix".
    #[getter]
    fn transport(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.here(py).map(|inner| inner.config().transport.name())
    }

    /// Its name in messages.
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<&str> {
        self.here(py).map(|inner| inner.config().name.as_str())
    }

    /// "new", "created", "bound", "listening", "serving", "draining" or "stopped".
    #[getter]
    fn state(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.here(py).map(|inner| inner.state().name())
    }

    /// How many connections have finished their handshake and wait in the kernel's queue to be
    /// accepted: TCP_INFO of the listener, tcp(7). 0 before listen and after the end. Does not block.
    #[getter]
    fn waiting(&self, py: Python<'_>) -> PyResult<usize> {
        self.here(py)?.waiting().map_err(|error| exception(py, error))
    }

    /// What is done with each connection.
    #[getter]
    fn service(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.here(py)?;
        Ok(self.service.lock().as_ref().map(|service| service.clone_ref(py)))
    }

    /// The SocketOptions it was made with.
    #[getter]
    fn options(&self, py: Python<'_>) -> Py<PyAny> {
        self.options.clone_ref(py)
    }

    /// The Limits it was made with.
    #[getter]
    fn limits(&self, py: Python<'_>) -> Py<PyAny> {
        self.limits.clone_ref(py)
    }

    /// Its account of connections.
    #[getter]
    fn ledger(&self, py: Python<'_>) -> PyResult<Py<Ledger>> {
        self.here(py)?;
        Ok(self.ledger.clone_ref(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // The collector must never wait: a lock that is held now protects an object in use.
        if let Some(service) = self.service.try_lock() {
            if let Some(service) = service.as_ref() {
                visit.call(service)?;
            }
        }
        if let Some(handlers) = self.handlers.try_lock() {
            if let Some(handlers) = handlers.as_ref() {
                visit.call(handlers)?;
            }
        }
        visit.call(&self.options)?;
        visit.call(&self.limits)
    }

    fn __clear__(&self) {
        let service = self.service.try_lock().and_then(|mut service| service.take());
        let handlers = self.handlers.try_lock().and_then(|mut handlers| handlers.take());
        drop((service, handlers));
    }
}

/// Stops all servers of this process at once, each for up to `drain` seconds (None: its own), and
/// returns their StopReports, oldest server first. Blocks with the interpreter released.
#[pyfunction]
#[pyo3(signature = (drain=None))]
pub(super) fn stop_all<'py>(
    py: Python<'py>,
    drain: Option<Bound<'py, PyAny>>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let drain = drain.map(|drain| args::seconds("drain", &drain)).transpose()?;
    let reports =
        Attached::run(py, |waiter| net::server::stop_all(drain, None, Cause::Stop, waiter))?;
    reports.iter().map(|stopped| report(py, stopped)).collect()
}
