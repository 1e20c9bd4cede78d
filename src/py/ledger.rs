//! The books for Python: Ledger and Record. Must never copy a counter that Python did not ask for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::basic::CompareOp;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList};

use super::args::{self, deadline, timeout, user_address, whole};
use super::error::exception;
use super::process::object;
use super::tcp_info::tcp_info;
use super::wait::Attached;
use crate::net;
use crate::net::address::Endpoint;
use crate::net::base::Origin;
use crate::net::ledger::{ClosedBy, Direction, Role};
use crate::net::socket::Credentials;

/// A server's account of its connections: those that are open, the last ones that were, and totals
/// that balance (accepted = open + closed). Iterates over all records it holds, oldest first.
#[pyclass(frozen, module = "rsock")]
pub(super) struct Ledger {
    inner: Arc<net::ledger::Ledger>,
    origin: Origin,
}

impl Ledger {
    pub(super) fn new(inner: Arc<net::ledger::Ledger>) -> Self {
        Self { inner, origin: Origin::here() }
    }

    fn inner(&self, py: Python<'_>) -> PyResult<&net::ledger::Ledger> {
        self.origin.check().map_err(|error| exception(py, error))?;
        Ok(&self.inner)
    }
}

/// A time-out with a default that is not for ever.
enum Patience {
    Usual,
    Given(Option<Duration>),
}

impl Patience {
    fn deadline(&self) -> Option<Instant> {
        let timeout = match self {
            Self::Usual => Some(Duration::from_secs(10)),
            Self::Given(timeout) => *timeout,
        };
        deadline(timeout)
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Patience {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let value = Some(value.to_owned()).filter(|value| !value.is_none());
        timeout("timeout", value.as_ref()).map(Self::Given)
    }
}

impl Ledger {
    fn records<'py>(
        &self,
        py: Python<'py>,
        records: Vec<Arc<net::ledger::Record>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let origin = self.origin;
        let records: Vec<_> = records
            .into_iter()
            .map(|inner| Bound::new(py, Record { inner, origin }))
            .collect::<PyResult<_>>()?;
        PyList::new(py, records)
    }
}

#[pymethods]
impl Ledger {
    /// Records of the connections open now, oldest first.
    #[getter]
    fn open<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.records(py, self.inner(py)?.open_records())
    }

    /// Records of the last connections that were closed (as many as the server's `history`), in the
    /// order of their ends.
    #[getter]
    fn closed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        self.records(py, self.inner(py)?.closed_records())
    }

    /// Sums over all connections since the start, whether still held or not.
    #[getter]
    fn totals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let totals = self.inner(py)?.totals();
        let closed_by = PyDict::new(py);
        for (name, count) in ClosedBy::NAMES.iter().zip(totals.closed_by) {
            closed_by.set_item(name, count)?;
        }
        let fields = PyDict::new(py);
        fields.set_item("accepted", totals.accepted)?;
        fields.set_item("open", totals.open)?;
        fields.set_item("closed", totals.closed)?;
        fields.set_item("refused", totals.refused)?;
        fields.set_item("accept_errors", totals.accept_errors)?;
        fields.set_item("waited", totals.waited)?;
        fields.set_item("suspects", totals.suspects)?;
        fields.set_item("dropped", totals.dropped)?;
        fields.set_item("truncated", totals.truncated)?;
        fields.set_item("messages_in", totals.received.messages)?;
        fields.set_item("messages_out", totals.sent.messages)?;
        fields.set_item("bytes_in", totals.received.bytes)?;
        fields.set_item("bytes_out", totals.sent.bytes)?;
        fields.set_item("closed_by", closed_by)?;
        object(py, "Totals", &fields)
    }

    /// Blocks until exactly `open` connections are open and at least `closed` have been closed since
    /// the start; returns the records held at that moment, oldest first.
    ///
    /// Raises TimeoutError after `timeout` seconds (None waits for ever). Releases the interpreter.
    #[pyo3(signature = (open=None, closed=None, timeout=Patience::Usual), text_signature = "($self, open=None, closed=None, timeout=10.0)")]
    fn wait<'py>(
        &self,
        py: Python<'py>,
        open: Option<Bound<'py, PyAny>>,
        closed: Option<Bound<'py, PyAny>>,
        timeout: Patience,
    ) -> PyResult<Bound<'py, PyList>> {
        if open.is_none() && closed.is_none() {
            return Err(PyTypeError::new_err("wait() for what? Give open=, closed= or both"));
        }
        let count = |name, value: Option<Bound<'py, PyAny>>| {
            let number = value.map(|value| whole(name, &value, 0, i64::MAX)).transpose();
            number.map(|number| number.map(|number| number as u64))
        };
        let (open, closed) = (count("open", open)?, count("closed", closed)?);
        let inner = self.inner(py)?;
        let deadline = timeout.deadline();
        let found = Attached::run(py, |waiter| inner.wait(open, closed, deadline, waiter))?;
        self.records(py, found)
    }

    /// An iterator over the records of connections that close from now on, in the order of their ends;
    /// it blocks until the next one has, and ends when the server has stopped.
    ///
    /// `timeout` is how many seconds it waits for each; TimeoutError is raised then, and it can be asked
    /// again. None waits for as long as it takes. Releases the interpreter. It keeps only its place in
    /// the ledger: what the ledger forgets before it is asked for is missed, and counted in `missed`.
    /// Raises ValueError where the ledger remembers none (history=0).
    #[pyo3(signature = (timeout=None))]
    fn follow(&self, py: Python<'_>, timeout: Option<Bound<'_, PyAny>>) -> PyResult<Follower> {
        let timeout = args::timeout("timeout", timeout.as_ref())?;
        self.inner(py)?;
        let inner = self.inner.follow().map_err(|error| exception(py, error))?;
        Ok(Follower { inner, timeout, origin: self.origin })
    }

    /// All records it holds, oldest first, as flat dicts of plain values with the same keys: what
    /// `pandas.DataFrame` and `csv.DictWriter` take. Times are aware datetimes (UTC), lengths of time
    /// float seconds; what is not known is None. Does not block.
    fn to_dicts(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), "rsock._ledger", "to_dicts")
    }

    /// The same by columns, a dict of lists: what `polars.DataFrame` and `pandas.DataFrame` take, however
    /// late the first value of a column comes. Does not block.
    fn to_columns(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), "rsock._ledger", "to_columns")
    }

    /// The same as CSV (RFC 4180) with a line of names. Written to a path or an open text file; returned
    /// as a str where none is given. Times are in the notation of ISO 8601, None is empty.
    ///
    /// Raises the OSError of a file that cannot be written.
    #[pyo3(signature = (path_or_file=None))]
    fn to_csv(
        slf: &Bound<'_, Self>,
        path_or_file: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        written(slf, "to_csv", path_or_file)
    }

    /// The same as lines of JSON, an object for each record; target and errors as of `to_csv`.
    #[pyo3(signature = (path_or_file=None))]
    fn to_jsonl(
        slf: &Bound<'_, Self>,
        path_or_file: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        written(slf, "to_jsonl", path_or_file)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.records(py, self.inner(py)?.records())?.try_iter()
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.inner(py)?.len())
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), "rsock._display", "ledger_repr")
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), "rsock._display", "ledger_html")
    }
}

/// What `Ledger.follow` returns: gives the record of each connection that closes.
#[pyclass(frozen, module = "rsock._rsock")]
pub(super) struct Follower {
    inner: net::ledger::Follower,
    timeout: Option<Duration>,
    origin: Origin,
}

#[pymethods]
impl Follower {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Record>> {
        self.origin.check().map_err(|error| exception(py, error))?;
        let deadline = deadline(self.timeout);
        let next = Attached::run(py, |waiter| self.inner.next(deadline, waiter))?;
        Ok(next.map(|inner| Record { inner, origin: self.origin }))
    }

    /// How many records it has missed: the ledger had forgotten them before they were asked for.
    #[getter]
    fn missed(&self) -> u64 {
        self.inner.missed()
    }
}

/// The account of one connection. Its numbers go on counting while the connection is open.
#[pyclass(frozen, module = "rsock")]
pub(super) struct Record {
    inner: Arc<net::ledger::Record>,
    origin: Origin,
}

impl Record {
    /// That of a stream; None before it is connected.
    pub(super) fn of(stream: &net::stream::Stream) -> Option<Self> {
        let origin = stream.origin();
        stream.record().map(|inner| Self { inner: Arc::clone(inner), origin })
    }

    /// That of a peer's datagram.
    pub(super) fn of_peer(inner: &Arc<net::ledger::Record>, origin: Origin) -> Self {
        Self { inner: Arc::clone(inner), origin }
    }
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "in",
        Direction::Out => "out",
    }
}

fn endpoint<'py>(py: Python<'py>, endpoint: &Endpoint) -> PyResult<Bound<'py, PyAny>> {
    let fields = PyDict::new(py);
    fields.set_item("transport", endpoint.transport.name())?;
    fields.set_item("address", user_address(py, &endpoint.address)?)?;
    object(py, "Endpoint", &fields)
}

#[pymethods]
impl Record {
    /// The connection's number in its server, from 1; a client's among those of the process.
    #[getter]
    fn id(&self) -> u64 {
        self.inner.id()
    }

    /// Which end ours is: "server" (it was accepted) or "client" (it connected).
    #[getter]
    fn role(&self) -> &'static str {
        match self.inner.role() {
            Role::Server => "server",
            Role::Client => "client",
        }
    }

    /// How its bytes travel: "tcp", "udp" or "unix".
    #[getter]
    fn transport(&self) -> &'static str {
        self.inner.transport().name()
    }

    /// The process at the other end of a Unix socket, as the kernel vouches for it: a PeerCredentials of
    /// pid, uid and gid (SO_PEERCRED, unix(7)). None with any other transport.
    #[getter]
    fn peer_credentials<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(Credentials { pid, uid, gid }) = self.inner.credentials() else { return Ok(None) };
        let fields = PyDict::new(py);
        fields.set_item("pid", pid)?;
        fields.set_item("uid", uid)?;
        fields.set_item("gid", gid)?;
        object(py, "PeerCredentials", &fields).map(Some)
    }

    /// The server's side, an Endpoint.
    #[getter]
    fn local<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        endpoint(py, &self.inner.local())
    }

    /// The peer's side, an Endpoint. IPv4 peers of a dual-stack port are shown as IPv4.
    #[getter]
    fn remote<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        endpoint(py, &self.inner.remote())
    }

    /// When it was accepted: seconds since 1970, as time.time().
    #[getter]
    fn opened_at(&self) -> f64 {
        self.inner.opened_at().as_secs_f64()
    }

    /// How many seconds it was, or has been, open.
    #[getter]
    fn seconds(&self) -> f64 {
        self.inner.seconds().as_secs_f64()
    }

    /// Receives that carried data; datagrams, also empty ones, on UDP.
    #[getter]
    fn messages_in(&self) -> u64 {
        self.inner.received().messages
    }

    /// Sends that carried data; datagrams, also empty ones, on UDP.
    #[getter]
    fn messages_out(&self) -> u64 {
        self.inner.sent().messages
    }

    /// Bytes received from the peer.
    #[getter]
    fn bytes_in(&self) -> u64 {
        self.inner.received().bytes
    }

    /// Bytes sent to the peer, which is to say to the kernel.
    #[getter]
    fn bytes_out(&self) -> u64 {
        self.inner.sent().bytes
    }

    /// Bits received: 8 × `bytes_in`.
    #[getter]
    fn bits_in(&self) -> u64 {
        self.inner.received().bytes * 8
    }

    /// Bits sent: 8 × `bytes_out`.
    #[getter]
    fn bits_out(&self) -> u64 {
        self.inner.sent().bytes * 8
    }

    /// The account of the leg to the target of a Forward, a Leg; None where there is none, or not yet.
    #[getter]
    fn far<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(far) = self.inner.far() else { return Ok(None) };
        let fields = PyDict::new(py);
        fields.set_item("local", endpoint(py, &far.local())?)?;
        fields.set_item("remote", endpoint(py, &far.remote())?)?;
        fields.set_item("messages_in", far.received().messages)?;
        fields.set_item("messages_out", far.sent().messages)?;
        fields.set_item("bytes_in", far.received().bytes)?;
        fields.set_item("bytes_out", far.sent().bytes)?;
        object(py, "Leg", &fields).map(Some)
    }

    /// What ended it; None while it is open.
    ///
    /// - "peer": the peer finished first (FIN), and got all that it was owed.
    /// - "reset": the peer's RST. A client that closes with data unread sends one, too.
    /// - "local": Python closed it, or its handler returned.
    /// - "service": a service in Rust ended it; of a Forward, its target finished first.
    /// - "limit": a limit did; `limit` names it.
    /// - "error": an error of ours, of the service or of its handler; `error` has its words.
    /// - "stop": the server stopped, in peace or at the deadline (its StopReport counts each).
    /// - "detached": its descriptor was given away by `detach()`.
    #[getter]
    fn closed_by(&self) -> Option<&'static str> {
        self.inner.closed_by().map(ClosedBy::name)
    }

    /// The limit that ended it, by its name in Limits; None where none did.
    #[getter]
    fn limit(&self) -> Option<&'static str> {
        match self.inner.closed_by() {
            Some(ClosedBy::Limit(name)) => Some(name),
            _ => None,
        }
    }

    /// The words of the error that ended it, or that its handler raised at its end; None where there
    /// was none.
    #[getter]
    fn error(&self) -> Option<String> {
        self.inner.error().map(str::to_owned)
    }

    /// When it ended: seconds since 1970, as time.time(); None while it is open.
    #[getter]
    fn closed_at(&self) -> Option<f64> {
        let record = &self.inner;
        record.closed_by().map(|_| (record.opened_at() + record.seconds()).as_secs_f64())
    }

    /// What the kernel knows of the connection, a TcpInfo: while it is open as it is now, afterwards as
    /// it was just before the close. None where it is none of TCP's. Does not block.
    #[getter]
    fn tcp_info<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        // A child's copy of the lock may be held by a thread that is not there.
        self.origin.check().map_err(|error| exception(py, error))?;
        self.inner.tcp_info().map(|info| tcp_info(py, &info)).transpose()
    }

    /// What was received and sent, a list of TraceEvent, oldest first: the last ones, as far as the
    /// server's `trace` reaches. None where the server has none, and of a client.
    #[getter]
    fn trace<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        self.origin.check().map_err(|error| exception(py, error))?;
        let Some(events) = self.inner.trace() else { return Ok(None) };
        let events = events.iter().map(|event| {
            let fields = PyDict::new(py);
            fields.set_item("number", event.number)?;
            fields.set_item("seconds", event.after.as_secs_f64())?;
            fields.set_item("direction", direction(event.direction))?;
            fields.set_item("size", event.size)?;
            fields.set_item("data", PyBytes::new(py, &event.data))?;
            object(py, "TraceEvent", &fields)
        });
        let events: Vec<_> = events.collect::<PyResult<_>>()?;
        PyList::new(py, events).map(Some)
    }

    /// Its numbers after RFC 147, a SocketPair: the socket that receives and the one that sends. None
    /// on a Unix path, which has no host and no port.
    #[getter]
    fn rfc147(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), "rsock._ledger", "rfc147_pair")
    }

    /// The record as a flat dict of plain values: a row of the table that `Ledger.to_dicts` gives. Does
    /// not block.
    fn to_dict(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), "rsock._ledger", "to_dict")
    }

    fn __richcmp__<'py>(
        &self,
        other: &Bound<'py, PyAny>,
        op: CompareOp,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = other.py();
        let same =
            other.cast::<Self>().ok().map(|other| Arc::ptr_eq(&self.inner, &other.get().inner));
        Ok(match (op, same) {
            (CompareOp::Eq, Some(same)) => same.into_pyobject(py)?.to_owned().into_any(),
            (CompareOp::Ne, Some(same)) => (!same).into_pyobject(py)?.to_owned().into_any(),
            _ => py.NotImplemented().into_bound(py),
        })
    }

    fn __hash__(&self) -> usize {
        Arc::as_ptr(&self.inner) as usize
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), "rsock._display", "record_repr")
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), "rsock._display", "record_html")
    }
}

fn written(
    ledger: &Bound<'_, Ledger>,
    how: &str,
    target: Option<Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let module = ledger.py().import("rsock._ledger")?;
    Ok(module.call_method1(how, (ledger, target))?.unbind())
}

/// What is best said in Python: `rsock.MODULE.NAME(object)`.
fn in_python(object: &Bound<'_, PyAny>, module: &str, name: &str) -> PyResult<Py<PyAny>> {
    Ok(object.py().import(module)?.call_method1(name, (object,))?.unbind())
}
