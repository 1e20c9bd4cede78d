//! The ledger for Python: Ledger, Follower and Record. Owns their conversion to Python objects;
//! must never copy a counter that Python did not request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::basic::CompareOp;
use pyo3::exceptions::{PyIndexError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyIterator, PyList, PySlice};

use super::args::{self, deadline, timeout, whole};
use super::error::exception;
use super::imports::{self, in_python};
use super::process::object;
use super::proxy::{endpoint, proxy_header};
use super::tcp_info::tcp_info;
use super::wait::Attached;
use crate::net;
use crate::net::base::Origin;
use crate::net::ledger::{
    ClosedBy, Direction, EventKind, FarEvent, FaultEvent, RETRANSMIT_BOUNDS, RTT_BOUNDS, Refusal,
    Role, TlsInfo,
};
use crate::net::socket::Credentials;

/// The module of the drawings of records and of the ledger.
const DRAWINGS: &str = "rsock._display._drawings";

/// The records of a server's connections, with totals that balance (accepted = open + closed).
///
/// It holds the records of the open connections and of the last ones that were closed. Iteration
/// yields all records that it holds, oldest first; len() is their number, and `ledger[-1]` the
/// newest.
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

/// A time-out of 10 s unless one is passed; None means no time-out.
enum WaitTimeout {
    Default,
    Given(Option<Duration>),
}

impl WaitTimeout {
    fn duration(&self) -> Option<Duration> {
        match self {
            Self::Default => Some(Duration::from_secs(10)),
            Self::Given(timeout) => *timeout,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        deadline(self.duration())
    }
}

/// The arguments `open` and `closed` of a wait, one of which must be given.
fn counts(
    call: &str,
    open: Option<Bound<'_, PyAny>>,
    closed: Option<Bound<'_, PyAny>>,
) -> PyResult<(Option<u64>, Option<u64>)> {
    if open.is_none() && closed.is_none() {
        let text = format!("{call}() needs an argument: open=, closed= or both");
        return Err(PyTypeError::new_err(text));
    }
    let count = |name, value: Option<Bound<'_, PyAny>>| {
        let number = value.map(|value| whole(name, &value, 0, i64::MAX)).transpose();
        number.map(|number| number.map(|number| number as u64))
    };
    Ok((count("open", open)?, count("closed", closed)?))
}

impl<'a, 'py> FromPyObject<'a, 'py> for WaitTimeout {
    type Error = PyErr;

    fn extract(value: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let value = Some(value.to_owned()).filter(|value| !value.is_none());
        timeout("timeout", value.as_ref()).map(Self::Given)
    }
}

/// A list of one of the classes of `rsock._types` whose repr is short.
fn listing<'py, T: IntoPyObject<'py>>(
    py: Python<'py>,
    class: &str,
    items: Vec<T>,
) -> PyResult<Bound<'py, PyAny>> {
    imports::class(py, class)?.call1((PyList::new(py, items)?,))
}

impl Ledger {
    /// Watches for numbers of open and closed connections.
    pub(super) fn watch(&self, open: Option<u64>, closed: Option<u64>) -> net::ledger::Watch {
        self.inner.watch(open, closed)
    }

    pub(super) fn records<'py>(
        &self,
        py: Python<'py>,
        records: Vec<Arc<net::ledger::Record>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let origin = self.origin;
        let records: Vec<_> = records
            .into_iter()
            .map(|inner| Bound::new(py, Record { inner, origin }))
            .collect::<PyResult<_>>()?;
        listing(py, "Listing", records)
    }
}

/// Bounds of buckets with their counts, the count above them, and the sum of all values.
type Distribution = (Vec<(f64, u64)>, u64, f64);

#[pymethods]
impl Ledger {
    /// The records of the open connections, a list, oldest first.
    #[getter]
    fn open<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.records(py, self.inner(py)?.open_records())
    }

    /// The records of the last closed connections, a list, in the order in which they ended.
    ///
    /// At most as many as the server's `history`.
    #[getter]
    fn closed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.records(py, self.inner(py)?.closed_records())
    }

    /// Sums over all connections since the start, a Totals.
    ///
    /// They include connections whose records have been dropped.
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
        let refused_by = PyDict::new(py);
        for (name, count) in Refusal::NAMES.iter().zip(totals.refused_by) {
            refused_by.set_item(name, count)?;
        }
        fields.set_item("refused_by", refused_by)?;
        fields.set_item("proxy_errors", totals.proxy_errors)?;
        for (prefix, handshakes) in [("tls", totals.tls), ("target_tls", totals.target_tls)] {
            let completed = PyDict::new(py);
            for (version, count) in TlsInfo::VERSIONS.iter().zip(handshakes.completed) {
                completed.set_item(version, count)?;
            }
            fields.set_item(format!("{prefix}_handshakes"), completed)?;
            fields.set_item(format!("{prefix}_resumed"), handshakes.resumed)?;
            fields.set_item(format!("{prefix}_failed"), handshakes.failed)?;
        }
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

    /// Histograms of the last TCP_INFO of closed connections: round-trip times in seconds, and
    /// retransmitted segments. Each is a list of (bound, count), the count above them, and the sum.
    fn _paths(&self, py: Python<'_>) -> PyResult<[Distribution; 2]> {
        let net::ledger::Paths { rtt, retransmits } = self.inner(py)?.paths();
        let micros = |value: f64| value / 1e6;
        let buckets = RTT_BOUNDS.iter().map(|bound| micros(f64::from(*bound))).zip(rtt.counts);
        let segments = RETRANSMIT_BOUNDS.iter().map(|bound| f64::from(*bound));
        let segments = segments.zip(retransmits.counts);
        Ok([
            (buckets.collect(), rtt.above, micros(rtt.sum as f64)),
            (segments.collect(), retransmits.above, retransmits.sum as f64),
        ])
    }

    /// Block until given numbers of connections are open and closed, and return the records.
    ///
    /// Waits until exactly `open` connections are open and at least `closed` have been closed since
    /// the start; None means any number. Returns the records held at that moment, oldest first.
    /// Releases the interpreter. Raises TimeoutError after `timeout` seconds (None means no
    /// time-out), and TypeError if neither number is passed.
    #[pyo3(signature = (open=None, closed=None, timeout=WaitTimeout::Default), text_signature = "($self, open=None, closed=None, timeout=10.0)")]
    fn wait<'py>(
        &self,
        py: Python<'py>,
        open: Option<Bound<'py, PyAny>>,
        closed: Option<Bound<'py, PyAny>>,
        timeout: WaitTimeout,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (open, closed) = counts("wait", open, closed)?;
        let inner = self.inner(py)?;
        let deadline = timeout.deadline();
        let found = Attached::run(py, |waiter| inner.wait(open, closed, deadline, waiter))?;
        self.records(py, found)
    }

    /// Wait as `wait` does, in a coroutine: `await ledger.wait_async(open=0)`.
    ///
    /// Blocks no event loop: the loop of asyncio, or of trio, watches a descriptor. The coroutine
    /// can be cancelled at any time. Raises the same errors as `wait`.
    #[pyo3(signature = (open=None, closed=None, timeout=WaitTimeout::Default), text_signature = "($self, open=None, closed=None, timeout=10.0)")]
    fn wait_async<'py>(
        slf: &Bound<'py, Self>,
        open: Option<Bound<'py, PyAny>>,
        closed: Option<Bound<'py, PyAny>>,
        timeout: WaitTimeout,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let (open, closed) = counts("wait_async", open, closed)?;
        slf.get().inner(py)?;
        let seconds = timeout.duration().map(|timeout| timeout.as_secs_f64());
        py.import("rsock._awaiting")?.call_method1("wait", (slf, open, closed, seconds))
    }

    /// Return an iterator over the records of connections that close from now on, a Follower.
    ///
    /// The records are in the order in which the connections end. Each step blocks, with the
    /// interpreter released, until the next connection has closed; the iterator ends when the
    /// server has stopped. A step raises TimeoutError after `timeout` seconds (None means no
    /// time-out); the iterator can be used again after that.
    ///
    /// The iterator stores only a position in the ledger. Records that the ledger drops before they
    /// are read are counted in `missed`. Raises ValueError if the ledger keeps no closed records
    /// (history=0).
    #[pyo3(signature = (timeout=None))]
    fn follow(&self, py: Python<'_>, timeout: Option<Bound<'_, PyAny>>) -> PyResult<Follower> {
        let timeout = args::timeout("timeout", timeout.as_ref())?;
        self.inner(py)?;
        let inner = self.inner.follow().map_err(|error| exception(py, error))?;
        Ok(Follower { inner, timeout, origin: self.origin })
    }

    /// Return all records that it holds as a list of flat dicts, oldest first. Does not block.
    ///
    /// All dicts have the same keys and plain values, as `pandas.DataFrame` and `csv.DictWriter`
    /// expect. Times are aware datetimes (UTC), durations are float seconds, and unknown values are
    /// None.
    fn to_dicts(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), "rsock._ledger", "to_dicts")
    }

    /// Return the same values by column, as a dict of lists. Does not block.
    ///
    /// `polars.DataFrame` and `pandas.DataFrame` expect this form; it also works if the first value
    /// of a column comes late.
    fn to_columns(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), "rsock._ledger", "to_columns")
    }

    /// Write the same values as CSV (RFC 4180), with a header line.
    ///
    /// `path_or_file` is a path or an open text file; if it is None, the text is returned as a str.
    /// Times are in ISO 8601 format, and None is an empty field. Control characters in a text are
    /// escaped, and a text that a spreadsheet would take for a formula, because it begins with `=`,
    /// `+`, `-` or `@`, has an apostrophe before it; `to_dicts` has it unchanged. Raises OSError if
    /// the file cannot be written.
    #[pyo3(signature = (path_or_file=None))]
    fn to_csv(
        slf: &Bound<'_, Self>,
        path_or_file: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        export(slf, "to_csv", path_or_file)
    }

    /// Write the same values as lines of JSON, one object for each record.
    ///
    /// `path_or_file`, the return value and the errors are as for `to_csv`.
    #[pyo3(signature = (path_or_file=None))]
    fn to_jsonl(
        slf: &Bound<'_, Self>,
        path_or_file: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        export(slf, "to_jsonl", path_or_file)
    }

    /// Return the same values as a pandas.DataFrame. Does not block.
    ///
    /// pandas is imported by this call; without it, raises ImportError. Each column has the same
    /// type in every table, even in an empty one: numbers that may be missing are of pandas' type
    /// Int64, times are aware (UTC).
    fn to_pandas(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), "rsock._ledger", "to_pandas")
    }

    /// Return the same values as a polars.DataFrame. Does not block.
    ///
    /// polars is imported by this call; without it, raises ImportError. Each column has the same
    /// type in every table, even in an empty one.
    fn to_polars(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), "rsock._ledger", "to_polars")
    }

    /// Draw the connections as bars along the time, by how they ended: a Drawing.
    ///
    /// It has the open connections and the newest closed ones, 30 at most. Does not block.
    fn timeline(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), DRAWINGS, "timeline")
    }

    /// Return one of the records that it holds, or for a slice a list of them, oldest first.
    ///
    /// `ledger[-1]` is the newest connection. Raises IndexError if there is no such record.
    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        index: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let records = self.inner(py)?.records();
        if let Ok(slice) = index.cast::<PySlice>() {
            let range = slice.indices(isize::try_from(records.len())?)?;
            let mut at = range.start;
            let mut chosen = Vec::with_capacity(range.slicelength);
            for _ in 0..range.slicelength {
                chosen.extend(usize::try_from(at).ok().and_then(|at| records.get(at)).cloned());
                at += range.step;
            }
            return self.records(py, chosen);
        }
        let number = py
            .import("operator")?
            .call_method1("index", (index,))
            .map_err(|_| args::wrong_type("an index of a Ledger", "an int or a slice", index))?;
        // A number that does not fit is out of range, too.
        let found = number.extract::<isize>().ok().and_then(|number| {
            let at = if number < 0 { number.checked_add_unsigned(records.len())? } else { number };
            records.get(usize::try_from(at).ok()?)
        });
        let Some(inner) = found else {
            return Err(PyIndexError::new_err(format!(
                "ledger[{number}]: it holds {} records",
                records.len()
            )));
        };
        let record = Record { inner: Arc::clone(inner), origin: self.origin };
        Ok(Bound::new(py, record)?.into_any())
    }

    /// Iterate over the records that it holds, newest first.
    fn __reversed__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        let mut records = self.inner(py)?.records();
        records.reverse();
        self.records(py, records)?.try_iter()
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

/// The iterator of `Ledger.follow`: yields the record of each connection that closes.
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

    /// The number of records that the ledger dropped before the iterator read them.
    #[getter]
    fn missed(&self) -> u64 {
        self.inner.missed()
    }
}

/// The record of one connection. Its numbers keep counting while the connection is open.
#[pyclass(frozen, module = "rsock")]
pub(super) struct Record {
    inner: Arc<net::ledger::Record>,
    origin: Origin,
}

impl Record {
    /// The record of a stream; None before it is connected.
    pub(super) fn of(stream: &net::stream::Stream) -> Option<Self> {
        let origin = stream.origin();
        stream.record().map(|inner| Self { inner: Arc::clone(inner), origin })
    }

    /// The record of the peer that sent a datagram.
    pub(super) fn of_peer(inner: &Arc<net::ledger::Record>, origin: Origin) -> Self {
        Self { inner: Arc::clone(inner), origin }
    }
}

fn direction(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Data(Direction::In) => "in",
        EventKind::Data(Direction::Out) => "out",
        EventKind::Fault(_) => "fault",
        EventKind::Far(FarEvent::Data(Direction::In)) => "far in",
        EventKind::Far(FarEvent::Data(Direction::Out)) => "far out",
        EventKind::Far(FarEvent::Connect(_)) => "far connect",
        EventKind::Far(FarEvent::Connected(_)) => "far connected",
        EventKind::Far(FarEvent::Failed(_)) => "far failed",
    }
}

fn fault_event<'py>(py: Python<'py>, event: &FaultEvent) -> PyResult<Bound<'py, PyAny>> {
    let fields = PyDict::new(py);
    fields.set_item("fault", &*event.fault)?;
    fields.set_item("action", event.action)?;
    fields.set_item("direction", event.way.name())?;
    fields.set_item("seconds", event.after.as_secs_f64())?;
    fields.set_item("offset", event.offset)?;
    fields.set_item("size", event.size)?;
    object(py, "FaultEvent", &fields)
}

#[pymethods]
impl Record {
    /// The number of the connection, from 1.
    ///
    /// Connections are numbered per server, clients per process.
    #[getter]
    fn id(&self) -> u64 {
        self.inner.id()
    }

    /// The role of this end: "server" (it was accepted) or "client" (it connected).
    #[getter]
    fn role(&self) -> &'static str {
        match self.inner.role() {
            Role::Server => "server",
            Role::Client => "client",
        }
    }

    /// The transport: "tcp", "udp", "unix" or "unix-datagram".
    #[getter]
    fn transport(&self) -> &'static str {
        self.inner.transport().name()
    }

    /// The process at the other end of a Unix socket, a PeerCredentials.
    ///
    /// The kernel supplies pid, uid and gid (SO_PEERCRED, unix(7)). None with other transports.
    #[getter]
    fn peer_credentials<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(Credentials { pid, uid, gid }) = self.inner.credentials() else { return Ok(None) };
        let fields = PyDict::new(py);
        fields.set_item("pid", pid)?;
        fields.set_item("uid", uid)?;
        fields.set_item("gid", gid)?;
        object(py, "PeerCredentials", &fields).map(Some)
    }

    /// The address of this end, an Endpoint.
    #[getter]
    fn local<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        endpoint(py, &self.inner.local())
    }

    /// The address of the peer, an Endpoint.
    ///
    /// An IPv4 peer of a dual-stack port is shown with its IPv4 address.
    #[getter]
    fn remote<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        endpoint(py, &self.inner.remote())
    }

    /// The address of the proxy that has passed the connection on, an Endpoint.
    ///
    /// `remote` is then the client that the proxy names. None without a proxy of
    /// `Server(proxy_protocol=…)`, or before its header has come.
    #[getter]
    fn proxy<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.inner.proxy().map(|proxy| endpoint(py, &proxy)).transpose()
    }

    /// What that proxy says about the connection, a ProxyHeader.
    #[getter]
    fn proxy_header<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.inner.proxy_header().map(|header| proxy_header(py, header)).transpose()
    }

    /// The time at which the connection was opened, in seconds since 1970, as time.time().
    #[getter]
    fn opened_at(&self) -> f64 {
        self.inner.opened_at().as_secs_f64()
    }

    /// The time for which the connection was, or has been, open, in seconds.
    #[getter]
    fn seconds(&self) -> f64 {
        self.inner.seconds().as_secs_f64()
    }

    /// The number of receives that carried data; on UDP, of datagrams, including empty ones.
    #[getter]
    fn messages_in(&self) -> u64 {
        self.inner.received().messages
    }

    /// The number of sends that carried data; on UDP, of datagrams, including empty ones.
    #[getter]
    fn messages_out(&self) -> u64 {
        self.inner.sent().messages
    }

    /// The number of bytes received from the peer.
    #[getter]
    fn bytes_in(&self) -> u64 {
        self.inner.received().bytes
    }

    /// The number of bytes sent to the peer, counted when the kernel takes them.
    #[getter]
    fn bytes_out(&self) -> u64 {
        self.inner.sent().bytes
    }

    /// The number of bits received: 8 × `bytes_in`.
    #[getter]
    fn bits_in(&self) -> u64 {
        self.inner.received().bytes * 8
    }

    /// The number of bits sent: 8 × `bytes_out`.
    #[getter]
    fn bits_out(&self) -> u64 {
        self.inner.sent().bytes * 8
    }

    /// With the service Forward: the leg to the target, a Leg. None without such a leg.
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
        fields.set_item("tls", far.tls().map(|info| super::tls::info(py, info)).transpose()?)?;
        object(py, "Leg", &fields).map(Some)
    }

    /// What ended the connection, a str; None while it is open.
    ///
    /// - "peer": the peer finished first (FIN), and received all pending data.
    /// - "reset": the peer sent RST, which a client also does if it closes with unread data.
    /// - "local": Python closed it, or its handler returned.
    /// - "service": a service in Rust ended it; with Forward, the target finished first.
    /// - "limit": a limit ended it; `limit` names the limit.
    /// - "fault": a fault of `rsock.faults` ended it; `fault` names its kind.
    /// - "error": an error of this side, of the service or of its handler; `error` has the text.
    /// - "stop": the server stopped; its StopReport counts drained and reset connections.
    /// - "detached": `detach()` gave its descriptor away.
    #[getter]
    fn closed_by(&self) -> Option<&'static str> {
        self.inner.closed_by().map(ClosedBy::name)
    }

    /// Whether this end was closed by RST, a bool; False while it is open.
    ///
    /// A FIN is the orderly end. A RST goes out instead, or behind it, where the connection was
    /// reset on purpose (`abort()`, SO_LINGER 0, a deadline, some limits and faults, an error), and
    /// where the end was closed with data that it had not read, which the kernel answers with RST
    /// (RFC 1122, section 4.2.2.13). Of a Unix socket, whether the peer gets ECONNRESET, which only
    /// unread data causes. What the kernel answers to data that arrives after the close is not
    /// counted. A connection that its handler has closed may go on to deliver what was sent; if
    /// that is cut short, the value changes after the close.
    #[getter]
    fn reset_sent(&self) -> bool {
        self.inner.reset_sent()
    }

    /// The name in Limits of the limit that ended the connection; None if no limit did.
    #[getter]
    fn limit(&self) -> Option<&'static str> {
        match self.inner.closed_by() {
            Some(ClosedBy::Limit(name)) => Some(name),
            _ => None,
        }
    }

    /// The name of the kind of fault that ended the connection, such as "reset"; None if none did.
    #[getter]
    fn fault(&self) -> Option<&'static str> {
        match self.inner.closed_by() {
            Some(ClosedBy::Fault(name)) => Some(name),
            _ => None,
        }
    }

    /// What TLS has agreed on, a TlsInfo; None without TLS, or before the handshake is complete.
    #[getter]
    fn tls<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.inner.tls().map(|info| super::tls::info(py, info)).transpose()
    }

    /// What faults have done to the connection, a list of FaultEvent, oldest first.
    ///
    /// It holds the first 256; its attribute `more` is the number of those after them. Empty where
    /// faults have done nothing.
    #[getter]
    fn faults<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // In a forked child the lock may be held by a thread that does not exist there.
        self.origin.check().map_err(|error| exception(py, error))?;
        let (events, seen) = self.inner.faults();
        let more = seen - events.len() as u64;
        let events = events.iter().map(|event| fault_event(py, event));
        let events: Vec<_> = events.collect::<PyResult<_>>()?;
        imports::class(py, "FaultEvents")?.call1((PyList::new(py, events)?, more))
    }

    /// The number of things that faults have done to the connection. For the Python half.
    #[getter]
    fn _fault_count(&self) -> u64 {
        self.inner.fault_count()
    }

    /// The text of the error that ended the connection, or that its handler raised.
    ///
    /// If a fault ended the connection, its text form. None if there was neither. It may contain what the peer sent, control characters included;
    /// displays, logs and CSV escape these.
    #[getter]
    fn error(&self) -> Option<String> {
        self.inner.error().map(str::to_owned)
    }

    /// The time at which the connection ended, in seconds since 1970, as time.time().
    ///
    /// None while it is open.
    #[getter]
    fn closed_at(&self) -> Option<f64> {
        let record = &self.inner;
        record.closed_by().map(|_| (record.opened_at() + record.seconds()).as_secs_f64())
    }

    /// The kernel's statistics of the connection, a TcpInfo.
    ///
    /// They are the current ones while the connection is open, and afterwards the last ones before
    /// the close. None for transports other than TCP. Does not block.
    #[getter]
    fn tcp_info<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        // In a forked child the lock may be held by a thread that does not exist there.
        self.origin.check().map_err(|error| exception(py, error))?;
        self.inner.tcp_info().map(|info| tcp_info(py, &info)).transpose()
    }

    /// What was received, sent and done by faults, a list of TraceEvent, oldest first.
    ///
    /// It holds the last events, within the bounds of the server's `trace`. None if the server has
    /// no trace, and for a client.
    #[getter]
    fn trace<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.origin.check().map_err(|error| exception(py, error))?;
        let Some(events) = self.inner.trace() else { return Ok(None) };
        let events = events.iter().map(|event| {
            let fields = PyDict::new(py);
            fields.set_item("number", event.number)?;
            fields.set_item("seconds", event.after.as_secs_f64())?;
            fields.set_item("direction", direction(&event.kind))?;
            fields.set_item("size", event.size)?;
            fields.set_item("data", PyBytes::new(py, &event.data))?;
            match &event.kind {
                EventKind::Data(_) | EventKind::Far(FarEvent::Data(_)) => {}
                EventKind::Fault(event) => fields.set_item("fault", fault_event(py, event)?)?,
                EventKind::Far(FarEvent::Connect(end) | FarEvent::Connected(end)) => {
                    fields.set_item("detail", end.to_string())?;
                }
                EventKind::Far(FarEvent::Failed(text)) => fields.set_item("detail", &**text)?,
            }
            object(py, "TraceEvent", &fields)
        });
        let events: Vec<_> = events.collect::<PyResult<_>>()?;
        listing(py, "TraceEvents", events).map(Some)
    }

    /// Draw what passed on the connection from top to bottom, a Drawing.
    ///
    /// Reads and writes, with their times, are those of `trace`; of more than `most` events the
    /// first and the last are drawn. The handshake and the ends of TCP are inferred, and drawn as
    /// such. Does not block. Raises ValueError for a `most` below 2.
    #[pyo3(signature = (*, most=None), text_signature = "($self, *, most=40)")]
    fn ladder<'py>(
        slf: &Bound<'py, Self>,
        most: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let most = most.map(|most| whole("most", &most, 2, 10_000)).transpose()?;
        slf.py().import(DRAWINGS)?.call_method1("ladder", (slf, most.unwrap_or(40)))
    }

    /// Draw the states of TCP (RFC 9293) with the path of the connection, a Drawing.
    ///
    /// The last state is the kernel's; the others are inferred from how the connection began and
    /// ended. Does not block. Raises ValueError for another transport.
    fn states(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), DRAWINGS, "states")
    }

    /// Draw how the bytes of the connection were cut into reads, writes and segments, a Drawing.
    ///
    /// The kernel counts segments; their sizes are computed where they agree with its count. Does
    /// not block. Raises ValueError for a transport other than TCP.
    fn segments(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), DRAWINGS, "segments")
    }

    /// The socket numbers after RFC 147, a SocketPair.
    ///
    /// It holds the receiving socket and the sending one. None for a Unix socket, which has no host
    /// and no port.
    #[getter]
    fn rfc147(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        in_python(slf.as_any(), "rsock._ledger", "rfc147_pair")
    }

    /// Return the record as a flat dict of plain values, as in the list of `Ledger.to_dicts`.
    ///
    /// Does not block.
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

fn export(
    ledger: &Bound<'_, Ledger>,
    function: &str,
    target: Option<Bound<'_, PyAny>>,
) -> PyResult<Py<PyAny>> {
    let module = ledger.py().import("rsock._ledger")?;
    Ok(module.call_method1(function, (ledger, target))?.unbind())
}
