//! Client for Python: a blocking stream with the methods of socket.socket. Must never buffer, nor
//! release the interpreter for a small call that can be served at once.

use std::net::Shutdown;
use std::os::fd::RawFd;
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use super::args::{self, length, settings};
use super::buffer::{Sink, Source, with_scratch};
use super::error::exception;
use super::process::object;
use super::wait::{Attached, Detached};
use crate::net::endpoint::{canonical, host_text};
use crate::net::error::Error;
use crate::net::stream::{OptionValue, Stream};

/// Up to so much is sent with the interpreter held: the copy into the kernel takes less time than
/// giving the interpreter up and getting it back.
const SMALL: usize = 64 * 1024;
/// How long a wait may spin, at most: beyond that it only burns a CPU.
const MOST_SPIN: f64 = 0.01;

/// The compiled half of rsock.Client.
#[pyclass(frozen, subclass, module = "rsock._rsock")]
pub(super) struct Client {
    inner: Stream,
}

impl Client {
    fn inner(&self) -> &Stream {
        &self.inner
    }

    fn read_until<'py>(
        &self,
        py: Python<'py>,
        step: &'static str,
        delimiter: &[u8],
        limit: isize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let limit = length("limit", limit)?;
        if delimiter.is_empty() {
            return Err(PyValueError::new_err("delimiter b'': must not be empty"));
        }
        if limit < delimiter.len() {
            return Err(PyValueError::new_err(format!(
                "limit {limit}: has no room for a delimiter of {} bytes",
                delimiter.len()
            )));
        }
        let taken =
            Attached::run(py, |waiter| self.inner().recv_until(step, delimiter, limit, waiter))?;
        Ok(PyBytes::new(py, &taken))
    }
}

/// States of RFC 9293 by the kernel's numbers (include/net/tcp_states.h).
const STATES: [&str; 13] = [
    "UNKNOWN",
    "ESTABLISHED",
    "SYN-SENT",
    "SYN-RECEIVED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "CLOSED",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
    "SYN-RECEIVED",
];

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (host=None, port=None, *, timeout=None, transport=None, path=None, options=None,
        source_address=None, spin=200e-6),
        text_signature = "(host=None, port=None, *, timeout=None, transport='tcp', path=None, options=None, \
        source_address=None, spin=200e-6)")]
    #[allow(clippy::too_many_arguments, reason = "the signature that users see")]
    fn new<'py>(
        py: Python<'py>,
        host: Option<Bound<'py, PyAny>>,
        port: Option<Bound<'py, PyAny>>,
        timeout: Option<Bound<'py, PyAny>>,
        transport: Option<Bound<'py, PyAny>>,
        path: Option<Bound<'py, PyAny>>,
        options: Option<Bound<'py, PyAny>>,
        source_address: Option<Bound<'py, PyAny>>,
        spin: f64,
    ) -> PyResult<Self> {
        args::only_tcp(transport.as_ref(), path.as_ref())?;
        let target = match (&host, &port) {
            (Some(host), None) if host.is_instance_of::<PyTuple>() => {
                Some(args::target(host, None)?)
            }
            (Some(host), Some(port)) => Some(args::target(host, Some(port))?),
            (None, None) => None,
            (Some(_), None) => {
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
        let options = args::socket_options(&settings(
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
        let inner =
            Stream::new(timeout, options, source, spin).map_err(|error| exception(py, error))?;
        if let Some(target) = target {
            Attached::run(py, |waiter| inner.connect(&target, waiter))?;
        }
        Ok(Self { inner })
    }

    /// Connects to (host, port): connect(2). Every address of a name is tried in turn.
    ///
    /// Blocks up to the time-out, with the interpreter released. Raises ConnectionRefusedError and
    /// other OSErrors naming the address, socket.gaierror for an unknown host, TimeoutError.
    fn connect(&self, py: Python<'_>, address: &Bound<'_, PyAny>) -> PyResult<()> {
        let target = args::address(address)?;
        Attached::run(py, |waiter| self.inner().connect(&target, waiter))
    }

    /// As `connect`, but returns errno in place of raising an OSError of the system; 0 is success.
    fn connect_ex(&self, py: Python<'_>, address: &Bound<'_, PyAny>) -> PyResult<i32> {
        let target = args::address(address)?;
        let mut errno = 0;
        Attached::run(py, |waiter| match self.inner().connect(&target, waiter) {
            // As socket.connect_ex: the time-out of a blocking connect is EAGAIN.
            Err(Error::TimedOut { .. }) => {
                errno = libc::EAGAIN;
                Ok(())
            }
            Err(error) => match error.raw() {
                Some(raw) => {
                    errno = raw;
                    Ok(())
                }
                None => Err(error),
            },
            Ok(()) => Ok(()),
        })?;
        Ok(errno)
    }

    /// Sends what there is room for and returns how many bytes that was: send(2).
    ///
    /// Blocks while there is no room at all. Raises BrokenPipeError, ConnectionResetError,
    /// TimeoutError, BlockingIOError (time-out 0).
    #[pyo3(signature = (data, flags=0))]
    fn send<'py>(&self, py: Python<'py>, data: Bound<'py, PyAny>, flags: i32) -> PyResult<usize> {
        let data = Source::new(data)?;
        let slice = data.as_slice();
        if slice.len() <= SMALL {
            Attached::run(py, |waiter| self.inner().send(slice, flags, waiter))
        } else {
            Detached::run(py, |waiter| self.inner().send(slice, flags, waiter))
        }
    }

    /// Sends all of it. The time-out holds for the call as a whole; what ends it early carries the
    /// number of bytes that were sent as `.sent`. Raises as `send`.
    #[pyo3(signature = (data, flags=0))]
    fn sendall<'py>(&self, py: Python<'py>, data: Bound<'py, PyAny>, flags: i32) -> PyResult<()> {
        let data = Source::new(data)?;
        let slice = data.as_slice();
        let mut sent = 0;
        let result = if slice.len() <= SMALL {
            Attached::run(py, |waiter| self.inner().sendall(slice, flags, &mut sent, waiter))
        } else {
            Detached::run(py, |waiter| self.inner().sendall(slice, flags, &mut sent, waiter))
        };
        result.inspect_err(|error| {
            // Fails only on an exception class that forbids attributes.
            let _ = error.value(py).setattr("sent", sent);
        })
    }

    /// Receives what is there, at most `bufsize` bytes (and at most 256 KiB, but with
    /// MSG_WAITALL): recv(2). b"" means that
    /// the peer has finished.
    ///
    /// Blocks while nothing is there. Raises ConnectionResetError, TimeoutError, BlockingIOError
    /// (time-out 0), ValueError for a negative size.
    #[pyo3(signature = (bufsize, flags=0))]
    fn recv<'py>(
        &self,
        py: Python<'py>,
        bufsize: isize,
        flags: i32,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let bufsize = length("bufsize", bufsize)?;
        if flags & libc::MSG_WAITALL != 0 && flags & libc::MSG_PEEK == 0 {
            let taken =
                Attached::run(py, |waiter| self.inner().recv_all("recv", bufsize, flags, waiter))?;
            return Ok(PyBytes::new(py, &taken));
        }
        with_scratch(bufsize, |scratch| {
            let count = Attached::run(py, |waiter| self.inner().recv(scratch, flags, waiter))?;
            Ok(PyBytes::new(py, &scratch[..count]))
        })
    }

    /// Receives into a writable buffer and returns how many bytes came; 0 means that the peer has
    /// finished. `nbytes` 0 is the buffer's length. Blocks and raises as `recv`.
    #[pyo3(signature = (buffer, nbytes=0, flags=0))]
    fn recv_into(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        nbytes: isize,
        flags: i32,
    ) -> PyResult<usize> {
        let nbytes = length("nbytes", nbytes)?;
        let mut sink = Sink::new(buffer)?;
        let slice = sink.as_mut_slice();
        if nbytes > slice.len() {
            return Err(PyValueError::new_err(format!(
                "nbytes {nbytes}: the buffer has only {} bytes",
                slice.len()
            )));
        }
        let wanted = if nbytes == 0 { slice.len() } else { nbytes };
        if flags & libc::MSG_WAITALL != 0 && flags & libc::MSG_PEEK == 0 {
            let taken = Attached::run(py, |waiter| {
                self.inner().recv_all("recv_into", wanted, flags, waiter)
            })?;
            slice[..taken.len()].copy_from_slice(&taken);
            return Ok(taken.len());
        }
        Attached::run(py, |waiter| self.inner().recv(&mut slice[..wanted], flags, waiter))
    }

    /// Receives exactly `n` bytes; b"" where the peer has finished before the first of them.
    ///
    /// Raises IncompleteRead, with `.partial`, where it finishes within them. TimeoutError and
    /// KeyboardInterrupt carry what had come as `.partial`. Blocks and raises as `recv`; the time-out
    /// holds for the call as a whole.
    fn recv_exactly<'py>(&self, py: Python<'py>, n: isize) -> PyResult<Bound<'py, PyBytes>> {
        let count = length("n", n)?;
        let taken = Attached::run(py, |waiter| self.inner().recv_exactly(count, waiter))?;
        Ok(PyBytes::new(py, &taken))
    }

    /// Receives up to and with `delimiter`, and nothing behind it; b"" where the peer has finished
    /// before the first byte.
    ///
    /// Raises ValueError, with what had come as `.partial`, where the delimiter is not within `limit`
    /// bytes; otherwise as `recv_exactly`.
    #[pyo3(signature = (delimiter, limit=65_536))]
    fn recv_until<'py>(
        &self,
        py: Python<'py>,
        delimiter: Bound<'py, PyAny>,
        limit: isize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let delimiter = Source::new(delimiter)?;
        self.read_until(py, "recv_until", delimiter.as_slice(), limit)
    }

    /// Receives a line, its b"\n" included: `recv_until(b"\n", limit)`.
    #[pyo3(signature = (limit=65_536))]
    fn recv_line<'py>(&self, py: Python<'py>, limit: isize) -> PyResult<Bound<'py, PyBytes>> {
        self.read_until(py, "recv_line", b"\n", limit)
    }
    /// Ends one direction or both: shutdown(2), with socket.SHUT_RD, SHUT_WR or SHUT_RDWR. Does not
    /// block. After SHUT_WR the peer sees the end, and can still be read.
    fn shutdown(&self, py: Python<'_>, how: i32) -> PyResult<()> {
        let how = match how {
            libc::SHUT_RD => Shutdown::Read,
            libc::SHUT_WR => Shutdown::Write,
            libc::SHUT_RDWR => Shutdown::Both,
            _ => {
                return Err(PyOSError::new_err((
                    libc::EINVAL,
                    format!("shutdown {how}: no such direction"),
                )));
            }
        };
        self.inner().shutdown(how).map_err(|error| exception(py, error))
    }

    /// Closes the stream; the peer gets what was sent, then the end. Calls of other threads end with
    /// OSError EBADF. Closing twice is closing once. Blocks only under SocketOptions(linger=…).
    fn close(&self, py: Python<'_>) {
        py.detach(|| self.inner().close());
    }

    /// Closes it with a reset (RST): the peer gets ConnectionResetError, and nothing of what was not
    /// sent yet. Does not block.
    fn abort(&self, py: Python<'_>) {
        py.detach(|| self.inner().abort());
    }

    /// Gives the descriptor away, open, and returns its number, or -1 if it is
    /// closed; this object is closed then. OSError
    /// EBUSY while another thread's call is using it.
    fn detach(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.inner().detach().map_err(|error| exception(py, error))
    }

    /// Number of the descriptor, which is blocking unless the time-out is 0; -1 once closed.
    fn fileno(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.inner().fileno().map_err(|error| exception(py, error))
    }

    /// Sets the time-out of every call in seconds; None waits for ever, 0 never.
    #[pyo3(signature = (value))]
    fn settimeout(&self, py: Python<'_>, value: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let timeout = args::timeout("timeout", value.as_ref())?;
        self.inner().set_timeout(timeout).map_err(|error| exception(py, error))
    }

    /// The time-out in seconds, or None.
    fn gettimeout(&self) -> Option<f64> {
        self.inner().timeout().map(|timeout| timeout.as_secs_f64())
    }

    /// `settimeout(None)` for True, `settimeout(0)` for False.
    fn setblocking(&self, py: Python<'_>, flag: &Bound<'_, PyAny>) -> PyResult<()> {
        let timeout = if flag.is_truthy()? { None } else { Some(Duration::ZERO) };
        self.inner().set_timeout(timeout).map_err(|error| exception(py, error))
    }

    /// Whether calls may wait: False exactly for a time-out of 0.
    fn getblocking(&self) -> bool {
        self.inner().timeout() != Some(Duration::ZERO)
    }

    /// Sets a socket option: setsockopt(2), with an int, bytes, or None and a length.
    #[pyo3(signature = (level, optname, value, optlen=None))]
    fn setsockopt<'py>(
        &self,
        py: Python<'py>,
        level: i32,
        optname: i32,
        value: Option<Bound<'py, PyAny>>,
        optlen: Option<u32>,
    ) -> PyResult<()> {
        let value = match (value, optlen) {
            (None, Some(length)) => OptionValue::Length(length),
            (Some(value), None) => match value.extract::<i32>() {
                Ok(number) => OptionValue::Bytes(number.to_ne_bytes().to_vec()),
                Err(error) if error.is_instance_of::<pyo3::exceptions::PyOverflowError>(py) => {
                    return Err(error);
                }
                Err(_) => OptionValue::Bytes(Source::new(value)?.as_slice().to_vec()),
            },
            _ => {
                return Err(PyTypeError::new_err("setsockopt takes a value, or None and a length"));
            }
        };
        self.inner().setsockopt(level, optname, value).map_err(|error| exception(py, error))
    }

    /// A socket option: getsockopt(2). An int, or with `buflen` that many bytes at most.
    #[pyo3(signature = (level, optname, buflen=0))]
    fn getsockopt<'py>(
        &self,
        py: Python<'py>,
        level: i32,
        optname: i32,
        buflen: isize,
    ) -> PyResult<Bound<'py, PyAny>> {
        if !(0..=1024).contains(&buflen) {
            return Err(PyOSError::new_err((
                libc::EINVAL,
                format!("getsockopt buflen {buflen}: must be from 0 to 1024"),
            )));
        }
        let wanted = if buflen == 0 { size_of::<i32>() } else { buflen as usize };
        let value = self
            .inner()
            .getsockopt(level, optname, wanted)
            .map_err(|error| exception(py, error))?;
        if buflen > 0 {
            return Ok(PyBytes::new(py, &value).into_any());
        }
        let mut number = [0; size_of::<i32>()];
        number[..value.len()].copy_from_slice(&value);
        Ok(i32::from_ne_bytes(number).into_pyobject(py)?.into_any())
    }

    /// The peer's address as socket.getpeername() gives it. OSError ENOTCONN where there is none.
    fn getpeername<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let address = self.inner().peer_address().map_err(|error| exception(py, error))?;
        args::socket_address(py, &address)
    }

    /// The own address as socket.getsockname() gives it.
    fn getsockname<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let address = self.inner().local_address().map_err(|error| exception(py, error))?;
        args::socket_address(py, &address)
    }

    /// Address family as a number: AF_INET or AF_INET6.
    #[getter]
    fn family(&self) -> i32 {
        self.inner().family()
    }

    /// Socket type as a number: SOCK_STREAM.
    #[getter]
    fn r#type(&self) -> i32 {
        libc::SOCK_STREAM
    }

    /// Protocol number: IPPROTO_TCP.
    #[getter]
    fn proto(&self) -> i32 {
        libc::IPPROTO_TCP
    }

    /// The time-out in seconds, or None.
    #[getter]
    fn timeout(&self) -> Option<f64> {
        self.gettimeout()
    }

    /// Whether it was closed, aborted or detached.
    #[getter]
    fn closed(&self) -> bool {
        self.inner().is_closed()
    }

    /// The five things a socket is: descriptor, own host and port, the peer's host and port. OSError
    /// ENOTCONN before it is connected.
    #[getter]
    fn five_tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let raise = |error| exception(py, error);
        let local = canonical(self.inner().local_address().map_err(raise)?);
        let remote = canonical(self.inner().peer_address().map_err(raise)?);
        let fields = PyDict::new(py);
        fields.set_item("fd", self.inner().fileno().map_err(raise)?)?;
        fields.set_item("local_host", host_text(&local))?;
        fields.set_item("local_port", local.port())?;
        fields.set_item("remote_host", host_text(&remote))?;
        fields.set_item("remote_port", remote.port())?;
        object(py, "FiveTuple", &fields)
    }

    /// What the kernel knows of the connection now: TCP_INFO of tcp(7), as a TcpInfo. Does not block.
    #[getter]
    fn tcp_info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (info, algorithm) = self.inner().tcp_info().map_err(|error| exception(py, error))?;
        let seconds = |micros: u32| f64::from(micros) / 1e6;
        let fields = PyDict::new(py);
        fields.set_item("state", STATES.get(usize::from(info.state)).unwrap_or(&STATES[0]))?;
        fields.set_item("rtt", seconds(info.rtt))?;
        fields.set_item("rtt_variance", seconds(info.rttvar))?;
        fields.set_item("retransmit_timeout", seconds(info.rto))?;
        fields.set_item("retransmits", info.total_retrans)?;
        fields.set_item("segments_in", info.segs_in)?;
        fields.set_item("segments_out", info.segs_out)?;
        fields.set_item("bytes_acked", info.bytes_acked)?;
        fields.set_item("bytes_received", info.bytes_received)?;
        fields.set_item("send_mss", info.snd_mss)?;
        fields.set_item("receive_mss", info.rcv_mss)?;
        fields.set_item("advertised_mss", info.advmss)?;
        fields.set_item("path_mtu", info.pmtu)?;
        fields.set_item("congestion_window", info.snd_cwnd)?;
        fields.set_item("slow_start_threshold", info.snd_ssthresh)?;
        fields.set_item("receive_space", info.rcv_space)?;
        fields.set_item("unacknowledged", info.unacked)?;
        fields.set_item("lost", info.lost)?;
        fields.set_item("delivery_rate", info.delivery_rate)?;
        fields.set_item("congestion_algorithm", algorithm)?;
        object(py, "TcpInfo", &fields)
    }
}
