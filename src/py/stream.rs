//! Stream for Python: the base class of Client and Connection, with the methods of socket.socket.
//! Owns the conversion of their arguments and results; must never buffer, nor release the
//! interpreter for a small call that can return at once.

use std::io::{IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{IntoRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList, PyTuple};

use super::args::{self, length, name_text};
use super::buffer::{SCRATCH, Sink, Source, with_scratch};
use super::control;
use super::error::{exception, os_error};
use super::exit::stop_at_exit;
use super::ledger::Record;
use super::process::object;
use super::tcp_info::tcp_info;
use super::tls::Upgrade;
use super::wait::{Attached, Detached};
use crate::net;
use crate::net::address::{Address, Target, Transport, UnixName, host_text};
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};
use crate::net::stream::{DeferredClose, Message, OptionValue};

/// The most bytes that are sent with the interpreter held: copying them into the kernel takes less
/// time than releasing the interpreter and taking it back.
const SMALL: usize = 64 * 1024;
/// The sender of a datagram. On a stream: the name of a Unix socket's peer, otherwise None.
type Sender<'py> = Option<Bound<'py, PyAny>>;

/// The base class of Client and Connection: one end of a connection.
///
/// It has the methods of socket.socket.
#[pyclass(frozen, subclass, module = "rsock._rsock")]
pub(super) struct Stream {
    /// Set by `Client.__init__`, or from the start.
    inner: OnceLock<Arc<net::stream::Stream>>,
    /// The open files of `makefile`. The last of them to be closed does a deferred `close`.
    files: AtomicUsize,
    close_wanted: AtomicBool,
}

impl Stream {
    pub(super) fn new(inner: Arc<net::stream::Stream>) -> Self {
        Self { inner: OnceLock::from(inner), ..Self::unset() }
    }

    /// A stream whose `__init__` has not run yet.
    pub(super) fn unset() -> Self {
        let (files, close_wanted) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { inner: OnceLock::new(), files, close_wanted }
    }

    /// Sets the stream; gives it back if there is one already.
    pub(super) fn set(
        &self,
        inner: Arc<net::stream::Stream>,
    ) -> std::result::Result<(), Arc<net::stream::Stream>> {
        self.inner.set(inner)
    }

    /// The stream. Before `__init__` it is a closed one, as an uninitialized `socket.socket` is.
    pub(super) fn inner(&self) -> &Arc<net::stream::Stream> {
        static CLOSED: OnceLock<Arc<net::stream::Stream>> = OnceLock::new();
        self.inner
            .get()
            .unwrap_or_else(|| CLOSED.get_or_init(|| Arc::new(net::stream::Stream::closed())))
    }

    /// The value of `_stream` on errors of this stream; None for a client, whose errors need none.
    pub(super) fn mark(&self) -> Option<usize> {
        self.inner().is_accepted().then_some(Arc::as_ptr(self.inner()) as usize)
    }

    fn marked(&self, py: Python<'_>, error: PyErr) -> PyErr {
        if let Some(mark) = self.mark() {
            // Fails only if a signal handler raised an exception whose class forbids attributes.
            let _ = error.value(py).setattr(intern!(py, "_stream"), mark);
        }
        error
    }

    fn raised(&self, py: Python<'_>, error: Error) -> PyErr {
        self.marked(py, exception(py, error))
    }

    /// Runs a call that releases the interpreter only while it waits.
    fn attached<T>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&net::stream::Stream, &mut dyn Waiter) -> Result<T>,
    ) -> PyResult<T> {
        Attached::run(py, |waiter| call(self.inner(), waiter))
            .map_err(|error| self.marked(py, error))
    }

    /// Runs a call that may take long, with the interpreter released all the time.
    fn detached<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&net::stream::Stream, &mut dyn Waiter) -> Result<T> + Send,
    ) -> PyResult<T> {
        Detached::run(py, |waiter| call(self.inner(), waiter))
            .map_err(|error| self.marked(py, error))
    }

    /// Runs a call that closes the stream. It holds the interpreter, which takes less time than
    /// releasing it and taking it back, unless the close may wait for the peer.
    pub(super) fn end(
        &self,
        py: Python<'_>,
        close: impl FnOnce(&net::stream::Stream) -> Option<DeferredClose> + Send,
    ) {
        if self.inner().may_linger() {
            py.detach(|| drop(close(self.inner())));
        } else if let Some(deferred) = close(self.inner()) {
            // May start a thread.
            py.detach(|| drop(deferred));
        }
    }

    /// The address argument of a send: the destination of a datagram. A connected TCP stream
    /// ignores it, a Unix socket refuses it.
    fn check_destination(
        &self,
        py: Python<'_>,
        step: &'static str,
        address: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Target>> {
        let Some(address) = address else { return Ok(None) };
        if self.inner().transport() == Transport::UnixDatagram {
            return args::destination(address).map(Some);
        }
        if !self.inner().is_unix() {
            return args::address(address).map(Some);
        }
        let target = args::destination(address)?;
        let errno = match self.inner().peer_address() {
            Ok(_) => libc::EISCONN,
            Err(_) if self.inner().is_closed() => libc::EBADF,
            Err(_) => libc::EOPNOTSUPP,
        };
        Err(self.raised(py, Error::errno(step, target, errno)))
    }

    /// The address argument of `connect`. A stream also takes a path.
    fn target(&self, address: &Bound<'_, PyAny>) -> PyResult<Target> {
        if self.inner().transport() == Transport::Udp {
            args::address(address)
        } else {
            args::destination(address)
        }
    }

    /// The sender of a message.
    fn sender<'py>(&self, py: Python<'py>, message: &Message) -> PyResult<Sender<'py>> {
        match &message.from {
            Some(from) => args::socket_address(py, from).map(Some),
            None => self.named_peer(py, message.bytes),
        }
    }

    /// The sender that recvfrom(2) returns for a stream: the name of a Unix socket's peer,
    /// otherwise None.
    fn named_peer<'py>(&self, py: Python<'py>, bytes: usize) -> PyResult<Sender<'py>> {
        if bytes == 0 || !self.inner().is_unix() {
            return Ok(None);
        }
        match self.inner().peer_address() {
            Ok(address) if !address.as_unix().is_none_or(UnixName::is_unnamed) => {
                args::socket_address(py, &address).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Receives up to `bufsize` bytes as `recv` does.
    fn receive<'py>(
        &self,
        py: Python<'py>,
        step: &'static str,
        bufsize: isize,
        flags: i32,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let bufsize = length("bufsize", bufsize)?;
        if bufsize > SCRATCH {
            let (taken, _) = self.attached(py, |stream, waiter| {
                stream.receive_vec(step, bufsize, &mut [], flags, waiter)
            })?;
            return Ok(PyBytes::new(py, &taken));
        }
        if bufsize == 0 && step == "recv" {
            // As socket.recv does. Its other receive calls ask the system even for 0 bytes.
            return Ok(PyBytes::new(py, b""));
        }
        with_scratch(bufsize, |scratch| {
            blank(scratch, flags);
            let count =
                self.attached(py, |stream, waiter| stream.recv(step, scratch, flags, waiter))?;
            // With MSG_TRUNC the kernel may return more bytes than there was room for.
            Ok(PyBytes::new(py, &scratch[..count.min(scratch.len())]))
        })
    }

    fn is_datagram(&self) -> bool {
        self.inner().transport().is_datagram()
    }

    /// Receives into a buffer as `recv_into` does.
    fn receive_into(
        &self,
        py: Python<'_>,
        step: &'static str,
        buffer: &Bound<'_, PyAny>,
        nbytes: isize,
        flags: i32,
    ) -> PyResult<usize> {
        let mut sink = Sink::new(step, buffer)?;
        let slice = sink.as_mut_slice();
        let wanted = wanted(nbytes, slice)?;
        if wanted == 0 && step == "recv_into" {
            return Ok(0);
        }
        self.attached(py, |stream, waiter| stream.recv(step, &mut slice[..wanted], flags, waiter))
    }

    /// Receives up to `bufsize` bytes as `recvmsg` does.
    fn message<'py>(
        &self,
        py: Python<'py>,
        step: &'static str,
        bufsize: isize,
        control: &mut [u8],
        flags: i32,
    ) -> PyResult<(Bound<'py, PyBytes>, Message)> {
        let bufsize = length("bufsize", bufsize)?;
        if bufsize > SCRATCH {
            let (taken, message) = self.attached(py, |stream, waiter| {
                stream.receive_vec(step, bufsize, control, flags, waiter)
            })?;
            return Ok((PyBytes::new(py, &taken), message));
        }
        with_scratch(bufsize, |scratch| {
            blank(scratch, flags);
            let message = self.attached(py, |stream, waiter| {
                let slices = &mut [IoSliceMut::new(scratch)];
                stream.receive_message(step, slices, control, flags, waiter)
            })?;
            // With MSG_TRUNC the kernel may return more bytes than there was room for.
            let data = &scratch[..message.bytes.min(scratch.len())];
            Ok((PyBytes::new(py, data), message))
        })
    }

    /// What recvmsg(2) returns in addition to the data: control messages, flags and the sender.
    fn message_details<'py>(
        &self,
        py: Python<'py>,
        message: &Message,
        control: &[u8],
    ) -> PyResult<(Bound<'py, PyList>, i32, Sender<'py>)> {
        let control = control::received(py, &control[..message.control])?;
        Ok((control, message.flags, self.sender(py, message)?))
    }

    fn read_until<'py>(
        &self,
        py: Python<'py>,
        step: &'static str,
        delimiters: &[&[u8]],
        limit: isize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let limit = length("limit", limit)?;
        let shortest = delimiters.iter().map(|delimiter| delimiter.len()).min();
        let Some(shortest) = shortest else {
            return Err(PyValueError::new_err("delimiter (): must not be empty"));
        };
        if shortest == 0 {
            return Err(PyValueError::new_err("delimiter b'': must not be empty"));
        }
        if limit < shortest {
            return Err(PyValueError::new_err(format!(
                "limit {limit}: has no room for a delimiter of {shortest} bytes"
            )));
        }
        let taken =
            self.attached(py, |stream, waiter| stream.recv_until(step, delimiters, limit, waiter))?;
        Ok(PyBytes::new(py, &taken))
    }
}

/// How many bytes to receive into a buffer; 0 for `nbytes` means its length.
fn wanted(nbytes: isize, slice: &[u8]) -> PyResult<usize> {
    let nbytes = length("nbytes", nbytes)?;
    if nbytes > slice.len() {
        return Err(PyValueError::new_err(format!(
            "nbytes {nbytes}: the buffer has only {} bytes",
            slice.len()
        )));
    }
    Ok(if nbytes == 0 { slice.len() } else { nbytes })
}

/// Clears the buffer for MSG_TRUNC: the kernel then does not overwrite it, and it may still hold
/// bytes of another connection.
fn blank(scratch: &mut [u8], flags: i32) {
    if flags & libc::MSG_TRUNC != 0 {
        scratch.fill(0);
    }
}

/// The value of a socket option, as `setsockopt` takes it.
fn option_value(
    py: Python<'_>,
    value: Option<Bound<'_, PyAny>>,
    optlen: Option<u32>,
) -> PyResult<OptionValue> {
    let value = match (value, optlen) {
        (None, Some(length)) => return Ok(OptionValue::Length(length)),
        (Some(value), None) => value,
        _ => return Err(PyTypeError::new_err("setsockopt takes a value, or None and a length")),
    };
    match value.extract::<i32>() {
        Ok(number) => return Ok(OptionValue::Bytes(number.to_ne_bytes().to_vec())),
        Err(error) if error.is_instance_of::<PyOverflowError>(py) => return Err(error),
        Err(_) => {}
    }
    let value = Source::new(value)?;
    let slice = value.as_slice();
    if i32::try_from(slice.len()).is_err() {
        // The kernel takes a signed int, and would be given the length cut to one.
        let text = format!("setsockopt: a value of {} bytes", slice.len());
        return Err(os_error(py, libc::EINVAL, text));
    }
    Ok(OptionValue::Bytes(slice.to_vec()))
}

#[pymethods]
impl Stream {
    /// Connect to an address with connect(2).
    ///
    /// `address` is a (host, port) tuple, or the path of a Unix socket (str, bytes or os.PathLike),
    /// which a UDP client does not take. Until it is connected, a stream client takes either. All
    /// addresses of a host name are tried in turn.
    ///
    /// Blocks up to the time-out, with the interpreter released. Raises ConnectionRefusedError or
    /// another OSError that names the address, socket.gaierror for an unknown host, TimeoutError,
    /// and ValueError for a path that no socket can have or for options that a Unix socket does not
    /// have.
    fn connect(&self, py: Python<'_>, address: &Bound<'_, PyAny>) -> PyResult<()> {
        let target = self.target(address)?;
        self.attached(py, |stream, waiter| stream.connect(&target, waiter))
    }

    /// Connect as `connect` does, but return the errno of an OSError of the system.
    ///
    /// Returns 0 after success, and EAGAIN after a time-out. Blocks as `connect` does, and raises
    /// its other errors.
    fn connect_ex(&self, py: Python<'_>, address: &Bound<'_, PyAny>) -> PyResult<i32> {
        let target = self.target(address)?;
        let mut errno = 0;
        self.attached(py, |stream, waiter| match stream.connect(&target, waiter) {
            // As socket.connect_ex does for the time-out of a blocking connect.
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

    /// Send as many bytes as the system has room for with send(2), and return their number.
    ///
    /// Blocks while there is no room at all. Raises BrokenPipeError, ConnectionResetError,
    /// TimeoutError, and BlockingIOError if the time-out is 0.
    #[pyo3(signature = (data, flags=0))]
    fn send<'py>(&self, py: Python<'py>, data: Bound<'py, PyAny>, flags: i32) -> PyResult<usize> {
        let data = Source::new(data)?;
        let slice = data.as_slice();
        if slice.len() <= SMALL {
            self.attached(py, |stream, waiter| stream.send(slice, flags, waiter))
        } else {
            self.detached(py, |stream, waiter| stream.send(slice, flags, waiter))
        }
    }

    /// Send all of `data`.
    ///
    /// Blocks until the system has taken all bytes; the time-out applies to the call as a whole.
    /// Raises the same errors as `send`; their attribute `sent` is the number of bytes sent.
    #[pyo3(signature = (data, flags=0))]
    fn sendall<'py>(&self, py: Python<'py>, data: Bound<'py, PyAny>, flags: i32) -> PyResult<()> {
        let data = Source::new(data)?;
        let slice = data.as_slice();
        let mut sent = 0;
        let result = if slice.len() <= SMALL {
            self.attached(py, |stream, waiter| stream.sendall(slice, flags, &mut sent, waiter))
        } else {
            self.detached(py, |stream, waiter| stream.sendall(slice, flags, &mut sent, waiter))
        };
        result.inspect_err(|error| {
            // Fails only on an exception class that forbids attributes.
            let _ = error.value(py).setattr("sent", sent);
        })
    }

    /// Receive the bytes that have arrived, at most `bufsize`, with recv(2).
    ///
    /// Returns b"" once the peer has finished. Blocks until data arrives. Raises
    /// ConnectionResetError, TimeoutError, BlockingIOError if the time-out is 0, and ValueError if
    /// `bufsize` is negative.
    #[pyo3(signature = (bufsize, flags=0))]
    fn recv<'py>(
        &self,
        py: Python<'py>,
        bufsize: isize,
        flags: i32,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.receive(py, "recv", bufsize, flags)
    }

    /// Receive into a writable buffer with recv(2), and return the number of bytes.
    ///
    /// At most `nbytes` bytes are received; 0 means the length of the buffer. Returns 0 once the
    /// peer has finished. Blocks as `recv` does, and raises the same errors; ValueError if `nbytes`
    /// exceeds the buffer, TypeError if the buffer is read-only.
    #[pyo3(signature = (buffer, nbytes=0, flags=0))]
    fn recv_into(
        &self,
        py: Python<'_>,
        buffer: &Bound<'_, PyAny>,
        nbytes: isize,
        flags: i32,
    ) -> PyResult<usize> {
        self.receive_into(py, "recv_into", buffer, nbytes, flags)
    }

    /// Receive with recvfrom(2); return (data, address), where `address` is that of the sender.
    ///
    /// On a stream `address` is None, or the name of a Unix socket's peer if it has one. Blocks as
    /// `recv` does, and raises the same errors.
    #[pyo3(signature = (bufsize, flags=0))]
    fn recvfrom<'py>(
        &self,
        py: Python<'py>,
        bufsize: isize,
        flags: i32,
    ) -> PyResult<(Bound<'py, PyBytes>, Sender<'py>)> {
        let step = "recvfrom";
        if !self.is_datagram() {
            let data = self.receive(py, step, bufsize, flags)?;
            let sender = self.named_peer(py, data.as_bytes().len())?;
            return Ok((data, sender));
        }
        let (data, message) = self.message(py, step, bufsize, &mut [], flags)?;
        Ok((data, self.sender(py, &message)?))
    }

    /// Receive into a writable buffer with recvfrom(2); return (number of bytes, address).
    ///
    /// `address` is as for `recvfrom`. Blocks as `recv_into` does, and raises the same errors.
    #[pyo3(signature = (buffer, nbytes=0, flags=0))]
    fn recvfrom_into<'py>(
        &self,
        py: Python<'py>,
        buffer: &Bound<'py, PyAny>,
        nbytes: isize,
        flags: i32,
    ) -> PyResult<(usize, Sender<'py>)> {
        let step = "recvfrom_into";
        if !self.is_datagram() {
            let count = self.receive_into(py, step, buffer, nbytes, flags)?;
            return Ok((count, self.named_peer(py, count)?));
        }
        let mut sink = Sink::new(step, buffer)?;
        let slice = sink.as_mut_slice();
        let wanted = wanted(nbytes, slice)?;
        let message = self.attached(py, |stream, waiter| {
            let slices = &mut [IoSliceMut::new(&mut slice[..wanted])];
            stream.receive_message(step, slices, &mut [], flags, waiter)
        })?;
        Ok((message.bytes, self.sender(py, &message)?))
    }

    /// Receive data and control messages with recvmsg(2).
    ///
    /// `bufsize` and `ancbufsize` are the maximum sizes in bytes of the data and of the control
    /// messages. Returns (data, [(level, type, data), …], flags, address), where `address` is as
    /// for `recvfrom`. Blocks as `recv` does, and raises the same errors.
    #[pyo3(signature = (bufsize, ancbufsize=0, flags=0))]
    fn recvmsg<'py>(
        &self,
        py: Python<'py>,
        bufsize: isize,
        ancbufsize: isize,
        flags: i32,
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyList>, i32, Sender<'py>)> {
        let mut control = control::room(ancbufsize)?;
        let (data, message) = self.message(py, "recvmsg", bufsize, &mut control, flags)?;
        let (control, flags, from) = self.message_details(py, &message, &control)?;
        Ok((data, control, flags, from))
    }

    /// Receive into writable buffers with recvmsg(2); each is filled before the next.
    ///
    /// Returns (number of bytes, [(level, type, data), …], flags, address), as `recvmsg` does.
    /// Blocks as `recv` does, and raises the same errors; TypeError for an object that is not a
    /// writable buffer.
    #[pyo3(signature = (buffers, ancbufsize=0, flags=0))]
    fn recvmsg_into<'py>(
        &self,
        py: Python<'py>,
        buffers: &Bound<'py, PyAny>,
        ancbufsize: isize,
        flags: i32,
    ) -> PyResult<(usize, Bound<'py, PyList>, i32, Sender<'py>)> {
        let mut sinks = buffers
            .try_iter()?
            .map(|buffer| Sink::new("recvmsg_into", &buffer?))
            .collect::<PyResult<Vec<_>>>()?;
        let mut slices: Vec<_> =
            sinks.iter_mut().map(|sink| IoSliceMut::new(sink.as_mut_slice())).collect();
        let mut control = control::room(ancbufsize)?;
        let message = self.attached(py, |stream, waiter| {
            stream.receive_message("recvmsg_into", &mut slices, &mut control, flags, waiter)
        })?;
        let (control, flags, from) = self.message_details(py, &message, &control)?;
        Ok((message.bytes, control, flags, from))
    }

    /// Send buffers and control messages with sendmsg(2), and return the number of bytes sent.
    ///
    /// The buffers are sent as if they were one. `ancdata` is an iterable of control messages
    /// (level, type, data). `address` is the destination of a datagram, if it is not the address
    /// that the client is connected to. On a TCP stream `address` is checked, and then ignored as
    /// the system does; a Unix socket raises OSError. Blocks as `send` does, and raises the same
    /// errors.
    #[pyo3(signature = (buffers, ancdata=None, flags=0, address=None),
        text_signature = "($self, buffers, ancdata=(), flags=0, address=None)")]
    fn sendmsg<'py>(
        &self,
        py: Python<'py>,
        buffers: &Bound<'py, PyAny>,
        ancdata: Option<&Bound<'py, PyAny>>,
        flags: i32,
        address: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<usize> {
        let sources =
            buffers.try_iter()?.map(|buffer| Source::new(buffer?)).collect::<PyResult<Vec<_>>>()?;
        let slices: Vec<_> = sources.iter().map(|source| IoSlice::new(source.as_slice())).collect();
        let control = ancdata.map_or(Ok(Vec::new()), control::to_send)?;
        let target = self.check_destination(py, "sendmsg", address)?;
        self.attached(py, |stream, waiter| {
            stream.send_message(&slices, &control, flags, target.as_ref(), waiter)
        })
    }

    /// Send one datagram to an address with sendto(2), and return the number of bytes sent.
    ///
    /// Called as `sendto(data, address)` or `sendto(data, flags, address)`. A host name is resolved
    /// at each call. A TCP stream checks the address, ignores it as the system does, and sends to
    /// its peer; a Unix socket raises OSError. Blocks as `send` does, and raises the same errors.
    #[pyo3(signature = (data, flags, address=None, /))]
    fn sendto<'py>(
        &self,
        py: Python<'py>,
        data: Bound<'py, PyAny>,
        flags: Bound<'py, PyAny>,
        address: Option<Bound<'py, PyAny>>,
    ) -> PyResult<usize> {
        let (flags, address) = match address {
            Some(address) => (flags.extract()?, address),
            None => (0, flags),
        };
        let target = self.check_destination(py, "sendto", Some(&address))?;
        let Some(target) = target else { return self.send(py, data, flags) };
        let data = Source::new(data)?;
        let slice = data.as_slice();
        if slice.len() <= SMALL {
            self.attached(py, |stream, waiter| stream.send_to(slice, flags, &target, waiter))
        } else {
            self.detached(py, |stream, waiter| stream.send_to(slice, flags, &target, waiter))
        }
    }

    /// Send `count` bytes of a regular file, and return the number of bytes sent.
    ///
    /// `file` is a file descriptor, and `offset` the position of the first byte; None for `count`
    /// sends up to the end of the file. Errors have the attribute `sent`. For the Python half of
    /// `sendfile`.
    #[pyo3(signature = (file, offset, count))]
    fn _send_file(
        &self,
        py: Python<'_>,
        file: RawFd,
        offset: u64,
        count: Option<u64>,
    ) -> PyResult<u64> {
        let mut sent = 0;
        let result = self.detached(py, |stream, waiter| {
            stream.send_file(file, offset, count, &mut sent, waiter)
        });
        if let Err(error) = &result {
            // Fails only on an exception class that forbids attributes.
            let _ = error.value(py).setattr("sent", sent);
        }
        result.map(|()| sent)
    }

    /// Receive exactly `n` bytes; return b"" if the peer has finished before the first of them.
    ///
    /// Blocks until all have arrived; the time-out applies to the call as a whole. Raises
    /// IncompleteRead if the peer finishes after fewer bytes, and the same errors as `recv`. The
    /// bytes that had arrived are the attribute `partial` of each of these errors, and of
    /// KeyboardInterrupt: b"" if there were none.
    fn recv_exactly<'py>(&self, py: Python<'py>, n: isize) -> PyResult<Bound<'py, PyBytes>> {
        let count = length("n", n)?;
        let taken = self.attached(py, |stream, waiter| stream.recv_exactly(count, waiter))?;
        Ok(PyBytes::new(py, &taken))
    }

    /// Receive up to and including `delimiter`, and no byte after it.
    ///
    /// `delimiter` may be a tuple of several, of which the first to end counts. Returns b"" if the
    /// peer has finished before the first byte. Raises ValueError if the first `limit` bytes do not
    /// contain the delimiter; its attribute `partial` holds the bytes that had arrived. Blocks as
    /// `recv_exactly` does, and raises the same errors.
    #[pyo3(signature = (delimiter, limit=65_536))]
    fn recv_until<'py>(
        &self,
        py: Python<'py>,
        delimiter: Bound<'py, PyAny>,
        limit: isize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let delimiters = match delimiter.cast_into::<PyTuple>() {
            Ok(several) => several.iter().map(Source::new).collect::<PyResult<Vec<_>>>()?,
            Err(error) => vec![Source::new(error.into_inner())?],
        };
        let delimiters: Vec<_> = delimiters.iter().map(Source::as_slice).collect();
        self.read_until(py, "recv_until", &delimiters, limit)
    }

    /// Receive a line, including its b"\n"; the same as `recv_until(b"\n", limit)`.
    ///
    /// A line of more than `limit` bytes is a ValueError. `settimeout` limits the time.
    #[pyo3(signature = (limit=65_536))]
    fn recv_line<'py>(&self, py: Python<'py>, limit: isize) -> PyResult<Bound<'py, PyBytes>> {
        self.read_until(py, "recv_line", &[b"\n"], limit)
    }

    /// Receive the data of one frame: a length of the format `header`, then as many bytes.
    ///
    /// `header` is a format of the struct module with one integer, such as ">I" or "<H". Returns
    /// None if the peer has finished before a frame, and b"" for a frame without data. Takes no
    /// byte after the frame. Raises ValueError if the length is above `limit` or negative, and
    /// IncompleteRead if the peer finishes inside the frame; the bytes that had arrived, with those
    /// of the header, are the attribute `partial`. Blocks as `recv_exactly` does, and raises the
    /// same errors.
    #[pyo3(signature = (header=None, limit=16_777_216),
        text_signature = "($self, header='>I', limit=16777216)")]
    fn recv_frame<'py>(
        &self,
        py: Python<'py>,
        header: Option<&Bound<'py, PyAny>>,
        limit: isize,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let header = args::frame_header(header)?;
        let limit = length("limit", limit)?;
        let taken = self.attached(py, |stream, waiter| stream.recv_frame(header, limit, waiter))?;
        Ok(taken.map(|taken| PyBytes::new(py, &taken[header.size..])))
    }

    /// Send all of `data` as one frame: its length in the format `header`, then the data.
    ///
    /// `header` is as for `recv_frame`. Frames that several threads send follow each other, as none
    /// begins while another is being sent; other sends do not wait for that. The time-out applies
    /// to the call as a whole, the wait for other frames included. Raises ValueError for data that
    /// is too long for the header, OSError (EDEADLK) in a signal handler that interrupts another
    /// frame of its thread, and as `sendall`; the attribute `sent` counts the header too.
    #[pyo3(signature = (data, header=None), text_signature = "($self, data, header='>I')")]
    fn send_frame<'py>(
        &self,
        py: Python<'py>,
        data: Bound<'py, PyAny>,
        header: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let data = Source::new(data)?;
        let slice = data.as_slice();
        let header = args::frame_header(header)?;
        let Some(bytes) = header.encode(slice.len()) else {
            let (length, size) = (slice.len(), header.size);
            return Err(PyValueError::new_err(format!(
                "data of {length} bytes: the number does not fit into a header of {size} byte{}",
                if size == 1 { "" } else { "s" }
            )));
        };
        let mut sent = 0;
        let result = if slice.len() <= SMALL {
            self.attached(py, |stream, waiter| stream.send_frame(&bytes, slice, &mut sent, waiter))
        } else {
            self.detached(py, |stream, waiter| stream.send_frame(&bytes, slice, &mut sent, waiter))
        };
        result.inspect_err(|error| {
            // Fails only on an exception class that forbids attributes.
            let _ = error.value(py).setattr("sent", sent);
        })
    }

    /// Begin TLS on a connection that is in use, and wait for the end of the handshake.
    ///
    /// For protocols that upgrade, such as SMTP (RFC 3207), IMAP and POP3 (RFC 2595), XMPP and
    /// PostgreSQL. What was sent before goes out in clear text; from the call on, every method, and
    /// `fileno()`, moves clear text that is protected on the way, and `record.tls` says what was
    /// agreed on.
    ///
    /// A server's connection needs `tls`, a TLS with a certificate. A client verifies the server by
    /// `tls`, or by the authorities of the system, as True and None say; the certificate must be
    /// valid for `server_hostname`, or else for the name in `tls`, or the host that the client has
    /// connected to.
    ///
    /// Blocks up to the time-out. A handshake that fails resets the connection: ssl.SSLError has the
    /// peer's alert in words, ssl.SSLCertVerificationError what was refused; TimeoutError. Refused
    /// with the connection as it was: StateError if TLS is on, if a duplicate of the descriptor or a
    /// file of `makefile` is open, or if clear text was received that no call has read, which must
    /// not pass for protected (CVE-2011-0411); ValueError with a time-out of 0, and OSError
    /// (EOPNOTSUPP) for datagrams.
    #[pyo3(signature = (tls=None, *, server_hostname=None))]
    fn start_tls(
        &self,
        py: Python<'_>,
        tls: Option<Bound<'_, PyAny>>,
        server_hostname: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let is_server = self.inner().is_accepted();
        let upgrade = Upgrade::new(py, is_server, tls.as_ref(), server_hostname.as_ref())?;
        if self.files.load(SeqCst) > 0 {
            let text = "a file of makefile() is open, and may have read ahead; close it first";
            let error = Error::StreamState { step: "start_tls", target: String::new(), text };
            return Err(self.raised(py, error));
        }
        if !is_server {
            stop_at_exit(py)?;
        }
        self.detached(py, |stream, waiter| upgrade.start(stream, waiter))
    }

    /// Shut down one or both directions with shutdown(2). Does not block.
    ///
    /// `how` is socket.SHUT_RD, SHUT_WR or SHUT_RDWR. After SHUT_WR the peer reads the end of the
    /// stream, and data from the peer can still be received. Raises OSError: EINVAL for another
    /// value, ENOTCONN if the stream is not connected.
    fn shutdown(&self, py: Python<'_>, how: i32) -> PyResult<()> {
        let how = match how {
            libc::SHUT_RD => Shutdown::Read,
            libc::SHUT_WR => Shutdown::Write,
            libc::SHUT_RDWR => Shutdown::Both,
            _ => {
                let text = format!("shutdown {how}: no such direction");
                return Err(os_error(py, libc::EINVAL, text));
            }
        };
        self.inner().shutdown(how).map_err(|error| self.raised(py, error))
    }

    /// Close the stream with close(2).
    ///
    /// The peer receives the data that was sent, then the end of the stream. Calls that block in
    /// other threads raise OSError (EBADF). Closing a closed stream has no effect. If files of
    /// `makefile` are open, the stream is closed with the last of them, as with any socket. Blocks
    /// only with SO_LINGER, socket(7), and lets other threads run meanwhile. On a server's
    /// connection, a linger time that a duplicate has set or that its listener had makes no close
    /// wait.
    fn close(&self, py: Python<'_>) {
        self.close_wanted.store(true, SeqCst);
        if self.files.load(SeqCst) == 0 {
            self.end(py, |stream| stream.close());
        }
    }

    /// Close the stream without waiting for the peer, whatever SO_LINGER says. For `__del__`.
    fn _close_unawaited(&self, py: Python<'_>) {
        self.end(py, |stream| stream.close_unawaited());
    }

    /// Count one more open file. For `makefile`.
    fn _open_file(&self) {
        self.files.fetch_add(1, SeqCst);
    }

    /// Count one open file less. Called by `socket.SocketIO` when it is closed.
    fn _decref_socketios(&self, py: Python<'_>) {
        // A SocketIO that the program created itself was never counted.
        let left = self.files.fetch_update(SeqCst, SeqCst, |files| files.checked_sub(1));
        if left.map_or(0, |before| before - 1) == 0 && self.close_wanted.load(SeqCst) {
            self.end(py, |stream| stream.close());
        }
    }

    /// How many files are open. Some programs count theirs here, as with `socket.socket`.
    #[getter(_io_refs)]
    fn io_refs(&self) -> usize {
        self.files.load(SeqCst)
    }

    #[setter(_io_refs)]
    fn set_io_refs(&self, files: usize) {
        self.files.store(files, SeqCst);
    }

    /// Whether the stream was closed, as `socket.socket` has it under this name.
    #[getter]
    fn _closed(&self) -> bool {
        self.closed()
    }

    /// Close the stream at once, whatever files are open.
    fn _real_close(&self, py: Python<'_>) {
        self.close_wanted.store(true, SeqCst);
        self.end(py, |stream| stream.close());
    }

    /// Close the stream with a reset (RST). Does not block.
    ///
    /// Data that was not sent yet is discarded, and the peer gets ConnectionResetError.
    fn abort(&self, py: Python<'_>) {
        self.end(py, |stream| {
            stream.abort();
            None
        });
    }

    /// Return a second descriptor of the same connection, by fcntl(2). For `to_socket`.
    fn _duplicate(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.inner().duplicate().map(IntoRawFd::into_raw_fd).map_err(|error| self.raised(py, error))
    }

    /// Close this object without closing its file descriptor, and return the descriptor.
    ///
    /// The caller must close the descriptor. Returns -1 if the stream is closed. Raises OSError
    /// (EBUSY) while a call in another thread uses the descriptor.
    fn detach(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.inner().detach().map_err(|error| self.raised(py, error))
    }

    /// Return the file descriptor; -1 once the stream is closed.
    ///
    /// The descriptor is in blocking mode unless the time-out is 0.
    fn fileno(&self) -> RawFd {
        self.inner().fileno()
    }

    /// Set the time-out of each call in seconds.
    ///
    /// None means no time-out; with 0 no call waits. Raises ValueError for a negative number,
    /// OverflowError for one that is too large, and TypeError for an object that is not a number.
    #[pyo3(signature = (value))]
    fn settimeout(&self, py: Python<'_>, value: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        // socket.settimeout accepts a bool as a number. No other call of rsock does.
        let value = match value {
            Some(flag) if flag.is_instance_of::<PyBool>() => Some(flag.call_method0("__int__")?),
            value => value,
        };
        let timeout = args::timeout("timeout", value.as_ref())?;
        self.inner().set_timeout(timeout).map_err(|error| self.raised(py, error))
    }

    /// Return the time-out in seconds, or None if there is none.
    fn gettimeout(&self) -> Option<f64> {
        self.inner().timeout().map(|timeout| timeout.as_secs_f64())
    }

    /// Do the same as `settimeout(None)` if `flag` is true, otherwise as `settimeout(0)`.
    fn setblocking(&self, py: Python<'_>, flag: &Bound<'_, PyAny>) -> PyResult<()> {
        let timeout = if flag.is_truthy()? { None } else { Some(Duration::ZERO) };
        self.inner().set_timeout(timeout).map_err(|error| self.raised(py, error))
    }

    /// Return whether calls may wait: False if the time-out is 0, otherwise True.
    fn getblocking(&self) -> bool {
        self.inner().timeout() != Some(Duration::ZERO)
    }

    /// Set a socket option with setsockopt(2).
    ///
    /// `value` is an int or a bytes-like object; if it is None, `optlen` is the length of a null
    /// pointer, in bytes. Raises OSError for an option that the system refuses.
    #[pyo3(signature = (level, optname, value, optlen=None))]
    fn setsockopt<'py>(
        &self,
        py: Python<'py>,
        level: i32,
        optname: i32,
        value: Option<Bound<'py, PyAny>>,
        optlen: Option<u32>,
    ) -> PyResult<()> {
        let value = option_value(py, value, optlen)?;
        self.inner().setsockopt(level, optname, value).map_err(|error| self.raised(py, error))
    }

    /// Return the value of a socket option, by getsockopt(2).
    ///
    /// Returns an int, or, if `buflen` is not 0, at most `buflen` bytes (1024 at the most). For
    /// SO_GET_FILTER the int is the number of instructions. Raises OSError for an option that the
    /// system refuses.
    #[pyo3(signature = (level, optname, buflen=0))]
    fn getsockopt<'py>(
        &self,
        py: Python<'py>,
        level: i32,
        optname: i32,
        buflen: isize,
    ) -> PyResult<Bound<'py, PyAny>> {
        if !(0..=1024).contains(&buflen) {
            let text = format!("getsockopt buflen {buflen}: must be from 0 to 1024");
            return Err(os_error(py, libc::EINVAL, text));
        }
        if buflen == 0 {
            let number = self.inner().getsockopt_int(level, optname);
            let number = number.map_err(|error| self.raised(py, error))?;
            return Ok(number.into_pyobject(py)?.into_any());
        }
        let value = self.inner().getsockopt(level, optname, buflen as usize);
        Ok(PyBytes::new(py, &value.map_err(|error| self.raised(py, error))?).into_any())
    }

    /// Return the peer's address in the form of socket.getpeername(), by getpeername(2).
    ///
    /// Raises OSError (ENOTCONN) if the stream is not connected.
    fn getpeername<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let address = self.inner().peer_address().map_err(|error| self.raised(py, error))?;
        args::socket_address(py, &address)
    }

    /// Return the address of this end in the form of socket.getsockname(), by getsockname(2).
    fn getsockname<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let address = self.inner().local_address().map_err(|error| self.raised(py, error))?;
        args::socket_address(py, &address)
    }

    /// The address family as a number: AF_INET, AF_INET6 or AF_UNIX.
    #[getter]
    fn family(&self) -> i32 {
        self.inner().family()
    }

    /// The socket type as a number: SOCK_STREAM, or SOCK_DGRAM for datagrams.
    #[getter]
    fn r#type(&self) -> i32 {
        if self.is_datagram() { libc::SOCK_DGRAM } else { libc::SOCK_STREAM }
    }

    /// The protocol number: IPPROTO_TCP, IPPROTO_UDP, or 0 for a Unix socket.
    #[getter]
    fn proto(&self) -> i32 {
        self.inner().protocol()
    }

    /// The time-out in seconds, or None if there is none.
    #[getter]
    fn timeout(&self) -> Option<f64> {
        self.gettimeout()
    }

    /// Whether the stream was closed, aborted or detached.
    #[getter]
    fn closed(&self) -> bool {
        self.close_wanted.load(SeqCst) || self.inner().is_closed()
    }

    /// Whether a process made the stream that has forked this one since. For `__del__`.
    #[getter]
    fn _inherited(&self) -> bool {
        !self.inner().is_here()
    }

    /// The Record of the stream; None for a client that is not connected yet.
    ///
    /// The record of a connection is in its server's ledger. Bytes that pass through `fileno()` or
    /// `to_socket()` are not counted, and neither are those of a forked child, where the record
    /// stays as it was at the fork.
    #[getter]
    fn record(&self) -> Option<Record> {
        Record::of(self.inner())
    }

    /// The number of its record; None for a client that is not connected yet.
    ///
    /// Connections are numbered per server, clients per process, from 1.
    #[getter]
    fn id(&self) -> Option<u64> {
        self.inner().record().map(|record| record.id())
    }

    /// Whether the server is stopping. Always False for a client.
    ///
    /// While it is stopping, reads return the data that has arrived, then b"".
    #[getter]
    fn draining(&self) -> bool {
        self.inner().draining()
    }

    /// The descriptor, with host and port of this end and of the peer, as a FiveTuple.
    ///
    /// For a Unix socket the hosts are the paths ("" if there is none), and the ports are 0. Raises
    /// OSError (ENOTCONN) before the stream is connected.
    #[getter]
    fn five_tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let raise = |error| self.raised(py, error);
        let local = self.inner().local_address().map_err(raise)?.canonical();
        let remote = self.inner().peer_address().map_err(raise)?.canonical();
        let fields = PyDict::new(py);
        fields.set_item("fd", self.inner().fileno())?;
        for (side, address) in [("local", &local), ("remote", &remote)] {
            let (host, port) = match address {
                Address::Ip(address) => (host_text(address).into_pyobject(py)?, address.port()),
                Address::Unix(name) => (name_text(py, name)?, 0),
            };
            fields.set_item(format!("{side}_host"), host)?;
            fields.set_item(format!("{side}_port"), port)?;
        }
        object(py, "FiveTuple", &fields)
    }

    /// The kernel's current statistics of the connection: TCP_INFO of tcp(7), as a TcpInfo.
    ///
    /// Does not block. Raises OSError (EOPNOTSUPP) for a Unix socket.
    #[getter]
    fn tcp_info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let info = self.inner().tcp_info().map_err(|error| self.raised(py, error))?;
        tcp_info(py, &info)
    }
}
