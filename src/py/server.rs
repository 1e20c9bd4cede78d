//! Server for Python. Owns its steps, stop and properties; must never hold a lock of the engine
//! while it calls Python, nor keep Python objects other than those it was passed.

use std::os::fd::{IntoRawFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::args;
use super::buffer::{Source, with_scratch};
use super::connection::accepted;
use super::error::{called_twice, exception, not_called};
use super::exit::stop_at_exit;
use super::fault_objects::FaultObjects;
use super::imports;
use super::keywords::no_more;
use super::ledger::Ledger;
use super::pool::Pool;
use super::process::object;
use super::server_arguments::{CheckedServer, ServerArguments};
use super::tls::Tls;
use super::wait::Attached;
use crate::net;
use crate::net::address::{Address, host_text, reachable};
use crate::net::base::Mutex;
use crate::net::control::{Cause, StopReport};
use crate::net::error::Error;
use crate::net::server::State;
use crate::net::service::Shape;
use crate::net::stage::faults::FaultHost;

/// The compiled half of rsock.Server.
///
/// In a forked child of the process that made it, methods and most properties raise StateError, a
/// RuntimeError, and the end of `with` has no effect.
#[pyclass(frozen, subclass, module = "rsock._rsock")]
pub(super) struct Server {
    /// Set by `__init__`.
    parts: OnceLock<Parts>,
}

/// What `Server.__init__` has made.
struct Parts {
    inner: net::server::Server,
    /// The object that was passed, for the property. A service in Python may refer to the server.
    service: Mutex<Option<Py<PyAny>>>,
    options: Py<PyAny>,
    limits: Py<PyAny>,
    ledger: Py<Ledger>,
    /// The argument, checked.
    on_error: Py<PyAny>,
    faults: FaultObjects,
    /// The `rsock._handlers.Handlers` that reports the errors of handlers; None with other
    /// services.
    handlers: Mutex<Option<Py<PyAny>>>,
    /// The TLS of new connections.
    tls: Mutex<Option<Py<Tls>>>,
}

impl Parts {
    fn new(py: Python<'_>, checked: CheckedServer<'_>) -> PyResult<Self> {
        let CheckedServer { config, service, options, limits, on_error, faults, tls, passed: _ } =
            checked;
        let inner = net::server::Server::new(config);
        let ledger = Py::new(py, Ledger::new(inner.ledger()))?;
        let handlers = if matches!(service.get().shape, Shape::Handler | Shape::Mixed(..)) {
            let class = py.import("rsock._handlers")?.getattr("Handlers")?;
            Some(class.call1((&on_error,))?.unbind())
        } else {
            None
        };
        Ok(Self {
            // In the same order: nothing is added before the constructor returns.
            faults: FaultObjects::new(inner.faults().list(), faults),
            inner,
            service: Mutex::new(Some(service.into_any().unbind())),
            options: options.unbind(),
            limits: limits.unbind(),
            ledger,
            on_error: on_error.unbind(),
            handlers: Mutex::new(handlers),
            tls: Mutex::new(tls),
        })
    }
}

/// The `rsock.StopReport` of a report.
fn report<'py>(py: Python<'py>, report: &StopReport) -> PyResult<Bound<'py, PyAny>> {
    let fields = PyDict::new(py);
    fields.set_item("drained", report.drained)?;
    fields.set_item("forced", report.forced)?;
    fields.set_item("abandoned", report.abandoned)?;
    fields.set_item("errors", report.errors)?;
    fields.set_item("cause", report.cause.name())?;
    fields.set_item("seconds", report.seconds.as_secs_f64())?;
    fields.set_item("seed", report.seed)?;
    object(py, "StopReport", &fields)
}

impl Server {
    /// The engine's server; StateError in a forked child, where it cannot be used.
    fn here(&self, py: Python<'_>) -> PyResult<&net::server::Server> {
        self.parts(py).map(|parts| &parts.inner)
    }

    /// What `__init__` has made, in any process. StateError before it.
    fn made(&self, py: Python<'_>) -> PyResult<&Parts> {
        self.parts.get().ok_or_else(|| not_called(py, "Server"))
    }

    /// The same, in the process of the server only.
    fn parts(&self, py: Python<'_>) -> PyResult<&Parts> {
        let parts = self.made(py)?;
        parts.inner.check_origin().map_err(|error| exception(py, error))?;
        Ok(parts)
    }

    /// The faults, with the engine's server.
    pub(super) fn faults(&self, py: Python<'_>) -> PyResult<(&FaultObjects, &dyn FaultHost)> {
        self.made(py).map(|parts| (&parts.faults, &parts.inner as &dyn FaultHost))
    }

    /// The handle by which a service finds this server.
    pub(super) fn handle(&self, py: Python<'_>) -> PyResult<net::control::ServerHandle> {
        self.here(py).map(net::server::Server::handle)
    }

    /// The address that it is, or was, bound to; None before `bind`.
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

fn named(cause: &str) -> PyResult<Cause> {
    Cause::named(cause).ok_or_else(|| PyValueError::new_err(format!("cause {cause:?}: unknown")))
}

/// A weak reference, so that a thread that waits for connections keeps no server alive.
fn weak(server: &Bound<'_, Server>) -> PyResult<Py<PyAny>> {
    Ok(server.py().import("weakref")?.getattr("ref")?.call1((server,))?.unbind())
}

#[pymethods]
impl Server {
    // Takes any arguments: a subclass has an `__init__` of its own, with arguments of its own,
    // which Python passes to both.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs), text_signature = "(host='127.0.0.1', port=0, service=None, *, transport='tcp', path=None, fd=None, \
        workers=None, options=None, limits=None, faults=(), seed=None, trace=False, history=10_000, \
        drain=1.0, on_error='log', allow_external=False, name=None, allow=(), deny=(), replace=False, \
        tls=None, proxy_protocol=())")]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { parts: OnceLock::new() }
    }

    #[pyo3(signature = (
        host=None, port=None, service=None, *, transport=None, path=None, fd=None, workers=None,
        options=None, limits=None, faults=None, seed=None, trace=None, history=None, drain=None,
        on_error=None, allow_external=None, name=None, allow=None, deny=None,
        replace=None, tls=None, proxy_protocol=None, _stages=None, **unknown,
    ))]
    #[allow(clippy::too_many_arguments, reason = "the signature that users see")]
    fn __init__<'py>(
        slf: &Bound<'py, Self>,
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
        allow: Option<Bound<'py, PyAny>>,
        deny: Option<Bound<'py, PyAny>>,
        replace: Option<Bound<'py, PyAny>>,
        tls: Option<Bound<'py, PyAny>>,
        proxy_protocol: Option<Bound<'py, PyAny>>,
        _stages: Option<Bound<'py, PyAny>>,
        unknown: Option<Bound<'py, PyDict>>,
    ) -> PyResult<()> {
        let py = slf.py();
        no_more(&py.get_type::<Self>(), unknown.as_ref())?;
        let arguments = ServerArguments {
            host,
            port,
            service,
            transport,
            path,
            fd,
            workers,
            options,
            limits,
            faults,
            seed,
            trace,
            history,
            drain,
            on_error,
            allow_external,
            name,
            allow,
            deny,
            replace,
            tls,
            proxy_protocol,
            test_stages: _stages,
        };
        let checked = arguments.check(py)?;
        let passed = checked.passed;
        let parts = Parts::new(py, checked)?;
        slf.get().parts.set(parts).map_err(|_| called_twice(py, "Server"))?;
        if let Some(fd) = passed {
            py.import("rsock._systemd")?.call_method1("claim", (fd, slf))?;
        }
        Ok(())
    }

    /// Open the socket with socket(2), and return the server, as all steps do.
    ///
    /// Blocks only to resolve a host name, with the interpreter released. Raises OSError, naming
    /// the step and the address, socket.gaierror for an unknown host, StateError if the socket was
    /// opened before, and ValueError for an address that the server cannot have, as a UDP server's
    /// outside the loopback without `allow_external`.
    fn create(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let inner = slf.get().here(slf.py())?;
        Attached::run(slf.py(), |waiter| inner.create(None, waiter))?;
        Ok(slf)
    }

    /// Bind the socket to its address with bind(2), after `create` if that was not called.
    ///
    /// `address` replaces the host and port, or the path, of the constructor. Returns the server.
    ///
    /// For a Unix socket this creates the file, with the permissions of SocketOptions(mode=…) from
    /// the start. A file that a killed process left behind is replaced, under a lock file beside
    /// it. A file whose socket is in use, or a file of another kind, is never replaced
    /// (EADDRINUSE).
    ///
    /// Raises OSError if the address is in use, not permitted or not one of this host, and the same
    /// errors as `create`, with StateError if the server is bound; TypeError for an `address` of
    /// the wrong kind. After OSError, socket.gaierror or ValueError the socket is closed, also one
    /// that `create` had opened, and the next call begins with a new one. If a Server of this
    /// process holds the address, the error names that server; if that server is just stopping, the
    /// call first waits up to 1 s for its end, with the interpreter released.
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

    /// Let the kernel queue connections with listen(2), after `bind` if that was not called.
    ///
    /// The connections are served once `start` is called. `backlog` is the capacity of the queue;
    /// None takes it from the options. Returns the server. Raises the same errors as `bind`.
    #[pyo3(signature = (backlog=None))]
    fn listen<'py>(
        slf: Bound<'py, Self>,
        backlog: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, Self>> {
        let backlog = backlog
            .map(|backlog| args::whole("backlog", &backlog, 0, i64::from(i32::MAX)))
            .transpose()?;
        let inner = slf.get().here(slf.py())?;
        stop_at_exit(slf.py())?;
        Attached::run(slf.py(), |waiter| {
            inner.listen(backlog.map(|backlog| backlog as u32), waiter)
        })?;
        Ok(slf)
    }

    /// Start serving, after `listen` if that was not called; return once connections are accepted.
    ///
    /// Has no effect on a server that is already serving; waits for a start by another thread.
    /// Returns the server.
    ///
    /// Blocks, with the interpreter released, while the host is resolved and while another server
    /// that is just stopping still holds the port (at most a second). Raises the same errors as
    /// `bind`, after closing what was opened, and those that the service names, such as Forward;
    /// StateError if the server was stopped; RuntimeError if the system has no thread for a
    /// handler.
    fn start(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        // Not in the Python half: only this call knows whether it has started the server, and there
        // no exception of a signal handler can come between the start and that knowledge.
        let py = slf.py();
        let inner = slf.get().here(py)?;
        stop_at_exit(py)?;
        if inner.state() == State::Serving {
            return Ok(slf);
        }
        let prepared = slf.call_method0(intern!(py, "_before_start"))?;
        if !Attached::run(py, |waiter| inner.start(waiter))? {
            return Ok(slf);
        }
        if let Err(error) = slf.call_method1(intern!(py, "_after_start"), (prepared,)) {
            // Interrupted, or no thread could be started that serves. `run` stops the server
            // itself.
            if !error.is_instance(py, imports::class(py, "StoppedStarting")?.as_any()) {
                let at_once = Some(Duration::ZERO);
                Attached::run(py, |waiter| inner.stop(at_once, Cause::Exception, waiter))?;
            }
            return Err(error);
        }
        Ok(slf)
    }

    /// Stop accepting, deliver pending data for up to `drain` seconds, and return a StopReport.
    ///
    /// Connections that are left after `drain` seconds are reset; 0 resets all of them at once, and
    /// None takes the server's own value. A server that was started still serves the connections
    /// that wait in the kernel's queue. A connection that has not sent anything has 0.25 s of
    /// `drain` for its first byte. A server that was never started just closes its socket.
    ///
    /// Blocks, with the interpreter released, for at most `drain` seconds plus 50 ms. A second
    /// call, from any thread, applies the earlier deadline and returns the same StopReport. Ctrl-C
    /// ends the wait, not the stop. Raises TypeError or ValueError for a `drain` that is not a
    /// number of seconds from 0.
    #[pyo3(signature = (drain=None))]
    fn stop<'py>(
        &self,
        py: Python<'py>,
        drain: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.stopped(py, drain, Cause::Stop)
    }

    /// Call `start` and return the server.
    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, PyAny>> {
        slf.call_method0(intern!(slf.py(), "start"))
    }

    /// Stop the server: at once if the body raised, otherwise as `stop()` does.
    // Not in the Python half, because the interpreter checks for signals when it enters a Python
    // function: Ctrl-C would end `__exit__` before its first line, and the server would not stop.
    fn __exit__(
        slf: &Bound<'_, Self>,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_type, traceback);
        let (py, server) = (slf.py(), slf.get());
        let left = slf.call_method1(intern!(py, "_leave"), (exc,));
        let Some(Parts { inner, .. }) = server.parts.get() else { return left.map(drop) };
        if left.is_err() && matches!(inner.state(), State::Serving | State::Draining) {
            let at_once = Some(Duration::ZERO);
            Attached::run(py, |waiter| inner.stop(at_once, Cause::Exception, waiter))?;
        }
        left.map(drop)
    }

    /// The seconds that are left to a stop: until its deadline, and 50 ms. For the Python half.
    #[getter]
    fn _left(&self, py: Python<'_>) -> PyResult<f64> {
        self.here(py).map(|inner| inner.time_left().as_secs_f64())
    }

    /// Do the same as `stop`; `cause` is the cause in the report. For the Python half.
    fn _stop<'py>(
        &self,
        py: Python<'py>,
        drain: Option<Bound<'py, PyAny>>,
        cause: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.stopped(py, drain, named(cause)?)
    }

    /// Begin a stop and return at once. For handlers that end the program.
    fn _begin_stop(&self, cause: &str) -> PyResult<()> {
        let cause = named(cause)?;
        if let Some(parts) = self.parts.get() {
            parts.inner.begin_stop(cause);
        }
        Ok(())
    }

    /// The server's number in this process. For the Python half.
    #[getter]
    fn _number(&self, py: Python<'_>) -> PyResult<u64> {
        Ok(self.made(py)?.inner.number())
    }

    /// What happens to errors, as passed to the constructor. For the Python half.
    #[getter]
    fn _on_error(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.made(py)?.on_error.clone_ref(py))
    }

    /// The object that reports the errors of handlers; None with other services.
    #[getter]
    fn _handlers(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let handlers = self.parts.get()?.handlers.lock();
        handlers.as_ref().map(|handlers| handlers.clone_ref(py))
    }

    /// Return the Pool from which handler threads take their connections.
    fn _pool(slf: &Bound<'_, Self>) -> PyResult<Pool> {
        let py = slf.py();
        Ok(Pool::new(slf.get().here(py)?.pool(), weak(slf)?))
    }

    /// Wait for the next connection or datagram. For the Python half of `accept`.
    #[pyo3(signature = (timeout=None))]
    fn _accept<'py>(
        slf: &Bound<'py, Self>,
        timeout: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let deadline = args::deadline(args::timeout("timeout", timeout.as_ref())?);
        let inner = slf.get().here(py)?;
        if inner.config().transport.is_datagram() {
            return with_scratch(inner.config().limits.datagram, |scratch| {
                let (bytes, from, to) =
                    Attached::run(py, |waiter| inner.receive(scratch, deadline, waiter))?;
                (PyBytes::new(py, &scratch[..bytes]), args::sender(py, &from, &to)?)
                    .into_pyobject(py)
            });
        }
        let stream = Attached::run(py, |waiter| inner.accept(deadline, waiter))?;
        accepted(py, stream, &weak(slf)?)
    }

    /// Send a datagram from the server's port with sendto(2), and return its length in bytes.
    ///
    /// For servers of datagrams with a handler or `Accept()`: sends a datagram that is not the
    /// return value of a handler. Blocks only to resolve a host name.
    ///
    /// Raises BlockingIOError if the system has no room for the datagram, PermissionError if a peer
    /// outside the loopback would receive more bytes than it has sent or more than its share,
    /// OSError (EMSGSIZE) if the data is too long for a datagram, socket.gaierror for an unknown
    /// host, StateError if the server is not serving, and TypeError on any other server.
    fn sendto<'py>(
        &self,
        py: Python<'py>,
        data: Bound<'py, PyAny>,
        address: Bound<'py, PyAny>,
    ) -> PyResult<usize> {
        let inner = self.here(py)?;
        let config = inner.config();
        if !config.transport.is_datagram()
            || !matches!(config.shape, Shape::Handler | Shape::Accept)
        {
            return Err(PyTypeError::new_err(
                "sendto: only a UDP server with a handler or Accept() sends on demand",
            ));
        }
        let target = if config.transport.is_unix() {
            args::destination(&address)?
        } else {
            args::address(&address)?
        };
        let data = Source::new(data)?;
        Attached::run(py, |waiter| inner.send_to(&target, data.as_slice(), waiter))
    }

    /// Begin a stop and return at once. For `__del__`.
    // Dropping the server is not enough: a program that keeps the ResourceWarning keeps the server.
    fn _abandon(&self) {
        if let Some(parts) = self.parts.get() {
            parts.inner.abandon();
        }
    }

    /// Block until the server has stopped, for any cause, and return the StopReport.
    ///
    /// Raises TimeoutError after `timeout` seconds (None means no time-out), and StateError if the
    /// server was never started. Releases the interpreter.
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

    /// End the connections and forget what they did. For the Python half.
    fn _reset(&self, py: Python<'_>, timeout: Bound<'_, PyAny>) -> PyResult<()> {
        let deadline = args::deadline(args::timeout("timeout", Some(&timeout))?);
        let inner = self.here(py)?;
        Attached::run(py, |waiter| inner.reset(deadline, waiter))
    }

    /// Return what went wrong with recordings, once, after the end. For the Python half.
    fn _take_recording_errors(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let errors = self.here(py)?.take_recording_errors().into_iter();
        Ok(errors.map(|error| exception(py, error).into_value(py).into_any()).collect())
    }

    /// Return the listening file descriptor; -1 if there is none.
    ///
    /// The server shuts the socket down when it stops, also for a process that has inherited or
    /// duplicated the descriptor; `hand_over` gives the socket to others.
    fn fileno(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.here(py)?.fileno().map_err(|error| exception(py, error))
    }

    /// Return a new descriptor of the listening socket, for a server that takes over:
    /// `Server(fd=…)`.
    ///
    /// From then on this server treats its socket as one that others use. Until it is stopped it
    /// goes on accepting, beside the others. Its end, for whatever reason, then only closes its own
    /// descriptor, without shutdown(2): clients that connect are never refused while another
    /// descriptor is open, the connections and datagrams that wait in the queue are left to the
    /// others, and the file of a Unix socket stays. What this server has accepted is drained as
    /// usual. Without another open descriptor the end resets what waits in the queue.
    ///
    /// The caller owns the descriptor, and closes it once the other server has its own. It is not
    /// inheritable: pass it to a child with subprocess' `pass_fds`, or by `socket.send_fds`. On UDP
    /// with several workers it is the socket of the first; the others end with this server, after
    /// their datagrams were answered.
    ///
    /// Blocks, with the interpreter released, until a thread of a UDP server has noticed: for
    /// at most a second. Raises StateError before `bind` and once a stop has begun, OSError
    /// (EMFILE) if the process is out of descriptors.
    fn hand_over(&self, py: Python<'_>) -> PyResult<RawFd> {
        let inner = self.here(py)?;
        let descriptor = Attached::run(py, |waiter| inner.hand_over(waiter))?;
        Ok(descriptor.into_raw_fd())
    }

    /// Return the listener's address in the form of socket.getsockname(), by getsockname(2).
    ///
    /// A (host, port) tuple, a 4-tuple for IPv6, or the path of a Unix socket. Raises StateError
    /// before `bind`.
    fn getsockname<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let address = self.here(py)?.address().map_err(|error| exception(py, error))?;
        args::socket_address(py, &address)
    }

    /// The address that the server is, or was, bound to. Raises StateError before `bind`.
    ///
    /// Always a (host, port) tuple, with an IPv6 scope inside the host; the path of a Unix socket,
    /// a str.
    #[getter]
    fn address<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let address = self.here(py)?.address().map_err(|error| exception(py, error))?;
        args::user_address(py, &address)
    }

    /// The address at which a client of this machine reaches the server: for every interface, a
    /// loopback address that this machine has. For the Python half.
    #[getter]
    fn _reachable<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.here(py)?;
        let address = inner.address().map_err(|error| exception(py, error))?;
        let dual_stack = inner.config().options.dual_stack;
        let reached = address.as_ip().map(|ip| Address::Ip(reachable(ip, dual_stack)));
        args::user_address(py, &reached.unwrap_or(address))
    }

    /// The host of `address`; before `bind`, that of the constructor. None for a Unix socket.
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

    /// The port of `address`; before `bind`, that of the constructor. None for a Unix socket.
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

    /// The path of a Unix socket, a str, also before `bind`. None with any other transport.
    ///
    /// An abstract name starts with a NUL.
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

    /// The transport: "tcp", "udp", "unix" or "unix-datagram".
    #[getter]
    fn transport(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.here(py).map(|inner| inner.config().transport.name())
    }

    /// The name of the server in messages.
    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<&str> {
        self.here(py).map(|inner| inner.config().name.as_str())
    }

    /// The state: "new", "created", "bound", "listening", "serving", "draining" or "stopped".
    #[getter]
    fn state(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.here(py).map(|inner| inner.state().name())
    }

    /// The number of connections that wait in the kernel's queue to be accepted.
    ///
    /// Their handshake is finished. Does not block. The number is read from TCP_INFO of the
    /// listener, tcp(7); it is 0 before `listen` and once the server has stopped.
    #[getter]
    fn waiting(&self, py: Python<'_>) -> PyResult<usize> {
        self.here(py)?.waiting().map_err(|error| exception(py, error))
    }

    /// The seed of the faults' random numbers.
    ///
    /// With the same seed, faults and traffic, a server has the same faults again. If none was
    /// given, it was drawn.
    #[getter]
    fn seed(&self, py: Python<'_>) -> PyResult<u64> {
        self.here(py).map(|inner| inner.faults().seed())
    }

    /// Add a fault and return its number, once every connection has it. For the Python half.
    #[pyo3(signature = (fault, level=1))]
    fn _add_fault(&self, py: Python<'_>, fault: Bound<'_, PyAny>, level: i32) -> PyResult<u64> {
        let parts = self.parts(py)?;
        parts.faults.add(&parts.inner, &fault, level)
    }

    /// Remove faults by their numbers, and return how many were there. For the Python half.
    ///
    /// Returns once no connection has them.
    fn _remove_faults(&self, py: Python<'_>, numbers: Vec<u64>) -> PyResult<usize> {
        let parts = self.parts(py)?;
        parts.inner.check_faults("remove a fault").map_err(|error| exception(py, error))?;
        parts.faults.remove(py, &parts.inner, &numbers)
    }

    /// Return number, object, connections and events of each fault. For the Python half.
    fn _list_faults<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.parts(py)?.faults.listed(py)
    }

    /// The TLS of new connections; None for clear text.
    ///
    /// Another TLS may be assigned to a server that was created with one, at any time: from then on
    /// new connections use it, and those that are open go on as they are. Raises TypeError for
    /// anything else, ValueError for one without a certificate or on a server in clear text.
    #[getter]
    fn tls(&self, py: Python<'_>) -> PyResult<Option<Py<Tls>>> {
        let tls = self.parts(py)?.tls.lock();
        Ok(tls.as_ref().map(|tls| tls.clone_ref(py)))
    }

    #[setter]
    fn set_tls(slf: &Bound<'_, Self>, value: Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let parts = slf.get().parts(py)?;
        let tls = value.cast::<Tls>().map_err(|_| args::wrong_type("tls", "a TLS", &value))?;
        let Some(engine) = &parts.inner.config().tls else {
            return Err(PyValueError::new_err(
                "tls: the server was created without tls=…, and its clients expect clear text",
            ));
        };
        engine.replace(tls.get().for_server()?).map_err(|error| exception(py, error))?;
        let before = parts.tls.lock().replace(tls.clone().unbind());
        drop(before);
        slf.call_method0(intern!(slf.py(), "_report_certificate")).map(drop)
    }

    /// The service that the server was created with.
    #[getter]
    fn service(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let service = self.parts(py)?.service.lock();
        Ok(service.as_ref().map(|service| service.clone_ref(py)))
    }

    /// The SocketOptions that the server was created with.
    #[getter]
    fn options(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let parts = self.made(py)?;
        Ok(parts.options.clone_ref(py))
    }

    /// The Limits that the server was created with.
    #[getter]
    fn limits(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let parts = self.made(py)?;
        Ok(parts.limits.clone_ref(py))
    }

    /// The Ledger, which holds a record of each connection.
    #[getter]
    fn ledger(&self, py: Python<'_>) -> PyResult<Py<Ledger>> {
        Ok(self.parts(py)?.ledger.clone_ref(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(parts) = self.parts.get() else { return Ok(()) };
        // The garbage collector must never wait: a lock that is held protects an object in use.
        if let Some(service) = parts.service.try_lock() {
            if let Some(service) = service.as_ref() {
                visit.call(service)?;
            }
        }
        if let Some(handlers) = parts.handlers.try_lock() {
            if let Some(handlers) = handlers.as_ref() {
                visit.call(handlers)?;
            }
        }
        parts.faults.traverse(&visit)?;
        visit.call(&parts.on_error)?;
        visit.call(&parts.options)?;
        visit.call(&parts.limits)
    }

    fn __clear__(&self) {
        let Some(parts) = self.parts.get() else { return };
        let service = parts.service.try_lock().and_then(|mut service| service.take());
        let handlers = parts.handlers.try_lock().and_then(|mut handlers| handlers.take());
        drop((service, handlers, parts.faults.clear()));
    }
}

/// Stop all servers of this process at the same time, and return their StopReports.
///
/// `drain` is as for `Server.stop`: each server delivers pending data for up to `drain` seconds;
/// None takes the value of each server. The reports are in the order in which the servers were
/// created, oldest first. Blocks with the interpreter released.
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
