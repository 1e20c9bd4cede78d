//! Connections for Python, and the pool's side of their server. Must never keep a server alive while
//! nothing is served.

use std::sync::Arc;

use pyo3::exceptions::{
    PyBrokenPipeError, PyConnectionResetError, PyOSError, PyTimeoutError, PyTypeError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyTuple, PyType};

use super::args;
use super::buffer::Source;
use super::error::exception;
use super::ledger::Record;
use super::stream::Stream;
use super::written;
use crate::net;
use crate::net::base::fork::Origin;
use crate::net::base::lock::Mutex;
use crate::net::handoff::job::Job;
use crate::net::ledger::closed_by::ClosedBy;

/// The longest words of an exception that a record keeps.
const MOST_WORDS: usize = 500;

/// An accepted stream on its way into a Connection.
#[pyclass(frozen, module = "rsock._rsock")]
pub(super) struct Handed {
    stream: Mutex<Option<Arc<net::stream::stream::Stream>>>,
    server: Py<PyAny>,
}

/// The compiled half of rsock.Connection.
#[pyclass(frozen, subclass, extends = Stream, module = "rsock._rsock")]
pub(super) struct Connection {
    /// A weak reference.
    server: Py<PyAny>,
}

/// Makes the Python object of an accepted stream; `server` is a weak reference to its server.
pub(super) fn connection<'py>(
    py: Python<'py>,
    stream: Arc<net::stream::stream::Stream>,
    server: &Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let handed = Handed { stream: Mutex::new(Some(stream)), server: server.clone_ref(py) };
    CLASS.import(py, "rsock._connection", "Connection")?.call1((Bound::new(py, handed)?,))
}

#[pymethods]
impl Connection {
    #[new]
    fn new(handed: &Bound<'_, PyAny>) -> PyResult<PyClassInitializer<Self>> {
        let made_by_servers = || {
            PyTypeError::new_err(
                "connections are made by servers: serve with a handler, or Accept()",
            )
        };
        let handed = handed.cast::<Handed>().map_err(|_| made_by_servers())?;
        let stream = handed.get().stream.lock().take().ok_or_else(made_by_servers)?;
        let server = handed.get().server.clone_ref(handed.py());
        Ok(PyClassInitializer::from(Stream::new(stream)).add_subclass(Self { server }))
    }

    /// The server that accepted it; None once nobody holds that any more.
    #[getter]
    fn server<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.server.bind(py).call0()
    }

    /// Its account in the server's ledger. Bytes that go through `fileno()` or `to_socket()` are not
    /// counted.
    #[getter]
    fn record(slf: &Bound<'_, Self>) -> Option<Record> {
        Record::of(slf.as_super().get().inner())
    }

    /// The number of its record: in its server, from 1.
    #[getter]
    fn id(slf: &Bound<'_, Self>) -> Option<u64> {
        slf.as_super().get().inner().record().map(|record| record.id())
    }

    /// For the pool: its handler has returned, or raised `error`. Closes the connection and says whether
    /// the error is one to be reported: what the peer caused is only recorded.
    fn _returned(slf: &Bound<'_, Self>, error: Option<Bound<'_, PyAny>>) -> PyResult<bool> {
        let py = slf.py();
        let base = slf.as_super().get();
        let Some(error) = error else {
            base.end(py, |stream| stream.close());
            return Ok(false);
        };
        let blame = blame(base, &error)?;
        let words = words(&error);
        base.end(py, |stream| match blame {
            Blame::Peer(by) => stream.close_for(by, Some(words)),
            Blame::Stop => stream.close(),
            Blame::Handler => stream.fail(words),
        });
        Ok(matches!(blame, Blame::Handler))
    }
}

/// Whose doing it is that a handler raised.
enum Blame {
    Peer(ClosedBy),
    /// The server ended the connection under it.
    Stop,
    Handler,
}

fn blame(base: &Stream, error: &Bound<'_, PyAny>) -> PyResult<Blame> {
    let py = error.py();
    let stream = base.inner();
    let mark = error.getattr(intern!(py, "_stream")).and_then(|mark| mark.extract::<usize>());
    let own = mark.is_ok_and(|mark| Some(mark) == base.mark());
    let errno = || match error.is_instance_of::<PyOSError>() {
        true => PyResult::Ok(error.getattr("errno")?.extract::<Option<i32>>()?.unwrap_or(0)),
        false => Ok(0),
    };
    // ENOTCONN of a connection that was one: a reset has come that no read has met.
    let is_over = || stream.peer_address().is_err_and(|error| error.raw() == Some(libc::ENOTCONN));
    // What a TLS socket says that was made of this connection.
    let of_double = || -> PyResult<bool> {
        Ok(stream.is_duplicated()
            && (error.is_instance_of::<PyConnectionResetError>()
                || error.is_instance_of::<PyBrokenPipeError>()
                || error.is_instance_of::<PyTimeoutError>()
                || errno()? == libc::ENOTCONN && is_over()
                || error.is_instance_of::<PyOSError>()
                    && error.get_type().getattr("__module__")?.eq("ssl")?))
    };
    if !own && !of_double()? {
        return Ok(Blame::Handler);
    }
    // A certificate that is refused is both.
    if error.is_instance_of::<PyValueError>() && !error.is_instance_of::<PyOSError>() {
        return Ok(Blame::Peer(ClosedBy::Limit("line")));
    }
    if !error.is_instance_of::<PyOSError>() {
        let incomplete = written::class(py, "IncompleteRead")?;
        return Ok(match error.is_instance(&incomplete)? {
            false => Blame::Handler,
            true if stream.draining() && !stream.was_ended() => Blame::Stop,
            true => Blame::Peer(ClosedBy::Peer),
        });
    }
    if stream.was_reset() {
        return Ok(Blame::Peer(ClosedBy::Reset));
    }
    if stream.draining() {
        return Ok(Blame::Stop);
    }
    let errno = errno()?;
    if !own && matches!(errno, libc::ECONNRESET | libc::EPIPE | libc::ENOTCONN) {
        return Ok(Blame::Peer(ClosedBy::Reset));
    }
    // A bad call is the handler's own: use after close, an option that is none, waiting forbidden.
    Ok(match errno {
        libc::EBADF | libc::EINVAL | libc::ENOPROTOOPT | libc::EAGAIN | libc::EBUSY => {
            Blame::Handler
        }
        _ => Blame::Peer(ClosedBy::Error),
    })
}

/// An exception in one line: "ValueError: what was wrong".
fn words(error: &Bound<'_, PyAny>) -> String {
    let kind = error.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
    let text =
        error.str().map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned());
    let words = if text.is_empty() { kind } else { format!("{kind}: {text}") };
    words.chars().take(MOST_WORDS).collect()
}

/// A datagram on its way through a handler. Never seen by its function, which is given what is in it.
#[pyclass(frozen, module = "rsock._rsock")]
pub(super) struct Datagram {
    inner: Mutex<Option<net::handoff::job::Datagram>>,
    record: Arc<net::ledger::record::Record>,
    origin: Origin,
    server: Py<PyAny>,
}

impl Datagram {
    /// Runs a call with the datagram: only before its handler has returned.
    pub(super) fn with<T>(
        &self,
        call: impl FnOnce(&net::handoff::job::Datagram) -> T,
    ) -> PyResult<T> {
        let inner = self.inner.lock();
        inner.as_ref().map(call).ok_or_else(|| PyTypeError::new_err("its handler has returned"))
    }
}

#[pymethods]
impl Datagram {
    /// What was received.
    #[getter]
    fn data<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.with(|datagram| PyBytes::new(py, datagram.data()))
    }

    /// Who sent it, as a pair.
    #[getter]
    fn address<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        args::user_address(py, &self.record.remote().address)
    }

    /// The account of whoever sent it.
    #[getter]
    fn record(&self) -> Record {
        Record::of_peer(&self.record, self.origin)
    }

    /// The number of that account.
    #[getter]
    fn id(&self) -> u64 {
        self.record.id()
    }

    /// The server; None once nobody holds that any more.
    #[getter]
    fn server<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.server.bind(py).call0()
    }

    /// Sends what its handler has returned.
    fn _reply(&self, py: Python<'_>, answer: Bound<'_, PyAny>) -> PyResult<()> {
        let wrong = |_| args::wrong_type("what the handler returned", "bytes, or None", &answer);
        let source = Source::new(answer.clone()).map_err(wrong)?;
        self.with(|datagram| datagram.reply(source.as_slice()))?
            .map_err(|error| exception(py, error))
    }

    /// For the pool: its handler has returned, or raised `error`, which is to be reported.
    fn _returned(&self, error: Option<Bound<'_, PyAny>>) -> bool {
        let datagram = self.inner.lock().take();
        if let (Some(datagram), Some(error)) = (datagram, &error) {
            datagram.fail(words(error));
        }
        error.is_some()
    }
}

/// What the threads of a pool take their connections from. Keeps no server alive.
#[pyclass(frozen, module = "rsock._rsock")]
pub(super) struct Pool {
    inner: net::handoff::pool::Pool,
    server: Py<PyAny>,
}

impl Pool {
    pub(super) fn new(inner: net::handoff::pool::Pool, server: Py<PyAny>) -> Self {
        Self { inner, server }
    }
}

#[pymethods]
impl Pool {
    /// The next connection or datagram for this thread; None when it is to end. Blocks with the
    /// interpreter released.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !self.inner.is_here() {
            // A handler has forked, and its thread came here in the child.
            return Ok(None);
        }
        // One that waits already is taken without giving the interpreter up.
        let job = match self.inner.try_next() {
            Some(job) => Some(job),
            None => py.detach(|| self.inner.next()),
        };
        let given = |job| match job {
            Job::Stream(stream) => connection(py, stream, &self.server),
            Job::Datagram(datagram) => {
                let record = Arc::clone(datagram.record());
                let (inner, server) = (Mutex::new(Some(datagram)), self.server.clone_ref(py));
                let origin = Origin::here();
                Ok(Bound::new(py, Datagram { inner, record, origin, server })?.into_any())
            }
        };
        job.map(given).transpose()
    }

    /// Whether another thread is to be started. It must call `next` until that gives None, and then
    /// `left`; `missing` where it cannot be started.
    fn wants_thread(&self) -> bool {
        self.inner.is_here() && self.inner.wants_thread()
    }

    /// The calling thread ends.
    fn left(&self) {
        if self.inner.is_here() {
            self.inner.thread_left();
        }
    }

    /// A thread that was wanted could not be started.
    fn missing(&self) {
        if self.inner.is_here() {
            self.inner.thread_missing();
        }
    }

    /// Whether connections had to wait for a thread; true once.
    fn should_warn(&self) -> bool {
        self.inner.should_warn()
    }

    /// Names this thread for debuggers and /proc.
    fn name_thread(&self, name: &str) {
        self.inner.name_thread(name);
    }
}

/// A connection with the peer's address, a pair or a path: what `accept` returns.
pub(super) fn accepted<'py>(
    py: Python<'py>,
    stream: Arc<net::stream::stream::Stream>,
    server: &Py<PyAny>,
) -> PyResult<Bound<'py, PyTuple>> {
    let remote = stream.record().map(|record| record.remote().address);
    let address = remote.map(|remote| args::user_address(py, &remote)).transpose()?;
    (connection(py, stream, server)?, address).into_pyobject(py)
}
