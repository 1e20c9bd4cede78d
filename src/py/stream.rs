//! A stream for Python: what Client and Connection have in common, with the methods of socket.socket.
//! Must never buffer, nor release the interpreter for a small call that can be served at once.

use std::io::{IoSlice, IoSliceMut};
use std::net::Shutdown;
use std::os::fd::{IntoRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use pyo3::exceptions::{PyBufferError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList, PySequence};

use super::args::{self, length, name_text};
use super::buffer::{SCRATCH, Sink, Source, with_scratch};
use super::error::{exception, os_error};
use super::ledger::Record;
use super::process::object;
use super::tcp_info::tcp_info;
use super::wait::{Attached, Detached};
use crate::net;
use crate::net::address::{Address, Target, Transport, UnixName, host_text};
use crate::net::base::Waiter;
use crate::net::datagram::MOST_DATAGRAM;
use crate::net::error::{Error, Result};
use crate::net::stream::{DeferredClose, Message, OptionValue};
use crate::net::sys::{control_message, control_messages};

/// Up to so much is sent with the interpreter held: the copy into the kernel takes less time than
/// giving the interpreter up and getting it back.
const SMALL: usize = 64 * 1024;
/// More control messages than the kernel ever has for one call: its own bound on them is near this.
const MOST_CONTROL: usize = 64 * 1024;
/// A datagram's sender; None on a stream, but for the peer of a Unix socket that has a name.
type Sender<'py> = Option<Bound<'py, PyAny>>;

/// One end of a connection, as a socket: what Client and Connection share.
#[pyclass(frozen, subclass, module = "rsock._rsock")]
pub(super) struct Stream {
    inner: Arc<net::stream::Stream>,
    /// Files of `makefile` that are open: the last one of them to be closed does what `close` put off.
    files: AtomicUsize,
    close_wanted: AtomicBool,
}

impl Stream {
    pub(super) fn new(inner: Arc<net::stream::Stream>) -> Self {
        Self { inner, files: AtomicUsize::new(0), close_wanted: AtomicBool::new(false) }
    }

    pub(super) fn inner(&self) -> &net::stream::Stream {
        &self.inner
    }

    /// What errors of this stream bear as `_stream`; None for a client's, which nobody asks for.
    pub(super) fn mark(&self) -> Option<usize> {
        self.inner.is_accepted().then_some(Arc::as_ptr(&self.inner) as usize)
    }

    fn marked(&self, py: Python<'_>, error: PyErr) -> PyErr {
        if let Some(mark) = self.mark() {
            // Fails only on an exception class that forbids attributes: one of a signal's handler.
            let _ = error.value(py).setattr(intern!(py, "_stream"), mark);
        }
        error
    }

    fn raised(&self, py: Python<'_>, error: Error) -> PyErr {
        self.marked(py, exception(py, error))
    }

    /// Runs a call that holds the interpreter but while it waits.
    fn attached<T>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&net::stream::Stream, &mut dyn Waiter) -> Result<T>,
    ) -> PyResult<T> {
        Attached::run(py, |waiter| call(&self.inner, waiter))
            .map_err(|error| self.marked(py, error))
    }

    /// Runs a call that may take long, with the interpreter released as a whole.
    fn detached<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&net::stream::Stream, &mut dyn Waiter) -> Result<T> + Send,
    ) -> PyResult<T> {
        Detached::run(py, |waiter| call(&self.inner, waiter))
            .map_err(|error| self.marked(py, error))
    }

    /// Closes it, in whichever way: with the interpreter held, which takes less than giving it up and
    /// getting it back, unless the close may wait for the peer.
    pub(super) fn end(
        &self,
        py: Python<'_>,
        close: impl FnOnce(&net::stream::Stream) -> Option<DeferredClose> + Send,
    ) {
        if self.inner.may_linger() {
            py.detach(|| drop(close(&self.inner)));
        } else if let Some(farewell) = close(&self.inner) {
            // May start a thread.
            py.detach(|| drop(farewell));
        }
    }

    /// An address beside what is sent: where a datagram goes. A connected TCP stream ignores it, a Unix
    /// socket refuses it.
    fn check_destination(
        &self,
        py: Python<'_>,
        step: &'static str,
        address: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Target>> {
        let Some(address) = address else { return Ok(None) };
        if !self.inner.is_unix() {
            return args::address(address).map(Some);
        }
        let target = args::destination(address)?;
        let errno = match self.inner.peer_address() {
            Ok(_) => libc::EISCONN,
            Err(_) if self.inner.is_closed() => libc::EBADF,
            Err(_) => libc::EOPNOTSUPP,
        };
        Err(self.raised(py, Error::errno(step, target, errno)))
    }

    /// Where to connect: a stream may take a path, too.
    fn target(&self, address: &Bound<'_, PyAny>) -> PyResult<Target> {
        if self.is_datagram() { args::address(address) } else { args::destination(address) }
    }

    /// Whom a message came from.
    fn sender<'py>(&self, py: Python<'py>, message: &Message) -> PyResult<Sender<'py>> {
        match message.from {
            Some(from) => args::socket_address(py, &Address::Ip(from)).map(Some),
            None => self.named_peer(py, message.bytes),
        }
    }

    /// Whom bytes came from, as recvfrom(2) says it of a stream: nobody, or the name of a Unix socket's peer.
    fn named_peer<'py>(&self, py: Python<'py>, bytes: usize) -> PyResult<Sender<'py>> {
        if bytes == 0 || !self.inner.is_unix() {
            return Ok(None);
        }
        match self.inner.peer_address() {
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
            // As a socket does: only its other receives ask the system for nothing.
            return Ok(PyBytes::new(py, b""));
        }
        with_scratch(bufsize, |scratch| {
            blank(scratch, flags);
            let count =
                self.attached(py, |stream, waiter| stream.recv(step, scratch, flags, waiter))?;
            // With MSG_TRUNC it may be told of more than there was room for.
            Ok(PyBytes::new(py, &scratch[..count.min(scratch.len())]))
        })
    }

    fn is_datagram(&self) -> bool {
        self.inner.transport() == Transport::Udp
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

    /// What recvmsg(2) gives beside the data: control messages, flags and the sender.
    fn beside_data<'py>(
        &self,
        py: Python<'py>,
        message: &Message,
        control: &[u8],
    ) -> PyResult<(Bound<'py, PyList>, i32, Sender<'py>)> {
        let control = control_messages(&control[..message.control])
            .map(|(level, kind, data)| (level, kind, PyBytes::new(py, data)));
        let control = PyList::new(py, control.collect::<Vec<_>>())?;
        Ok((control, message.flags, self.sender(py, message)?))
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
            self.attached(py, |stream, waiter| stream.recv_until(step, delimiter, limit, waiter))?;
        Ok(PyBytes::new(py, &taken))
    }
}

/// How much of a buffer is to be received into; `nbytes` 0 is all of it.
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

/// Room for control messages of so many bytes, as far as there can be so many.
fn room_for_control(ancbufsize: isize) -> PyResult<Vec<u8>> {
    let size = length("ancbufsize", ancbufsize)?;
    if size > i32::MAX as usize {
        return Err(PyValueError::new_err(format!(
            "ancbufsize {size}: must be from 0 to {}",
            i32::MAX
        )));
    }
    Ok(vec![0; size.min(MOST_CONTROL)])
}

/// What MSG_TRUNC throws away leaves the buffer as it was: with what another connection had sent.
fn blank(scratch: &mut [u8], flags: i32) {
    if flags & libc::MSG_TRUNC != 0 {
        scratch.fill(0);
    }
}

/// A control message of three parts: level, type, data.
fn one_control_message(item: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let parts = item.cast::<PySequence>().map_err(PyErr::from)?;
    if parts.len()? != 3 {
        return Err(PyTypeError::new_err(format!(
            "a control message has three parts (level, type, data), not {}",
            parts.len()?
        )));
    }
    let data = Source::new(parts.get_item(2)?)?;
    let (level, kind) = (parts.get_item(0)?.extract()?, parts.get_item(1)?.extract()?);
    Ok(control_message(level, kind, data.as_slice()))
}

#[pymethods]
impl Stream {
    /// Connects to (host, port), every address of a name being tried in turn, or to the path of a Unix
    /// socket (str, bytes or os.PathLike): connect(2). A client is of either kind until it is connected.
    ///
    /// Blocks up to the time-out, with the interpreter released. Raises ConnectionRefusedError and
    /// other OSErrors naming the address, socket.gaierror for an unknown host, TimeoutError; ValueError
    /// for a path that no socket can have, and for options that a Unix socket has not.
    fn connect(&self, py: Python<'_>, address: &Bound<'_, PyAny>) -> PyResult<()> {
        let target = self.target(address)?;
        self.attached(py, |stream, waiter| stream.connect(&target, waiter))
    }

    /// As `connect`, but returns errno in place of raising an OSError of the system; 0 is success.
    fn connect_ex(&self, py: Python<'_>, address: &Bound<'_, PyAny>) -> PyResult<i32> {
        let target = self.target(address)?;
        let mut errno = 0;
        self.attached(py, |stream, waiter| match stream.connect(&target, waiter) {
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
            self.attached(py, |stream, waiter| stream.send(slice, flags, waiter))
        } else {
            self.detached(py, |stream, waiter| stream.send(slice, flags, waiter))
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
            self.attached(py, |stream, waiter| stream.sendall(slice, flags, &mut sent, waiter))
        } else {
            self.detached(py, |stream, waiter| stream.sendall(slice, flags, &mut sent, waiter))
        };
        result.inspect_err(|error| {
            // Fails only on an exception class that forbids attributes.
            let _ = error.value(py).setattr("sent", sent);
        })
    }

    /// Receives what is there, at most `bufsize` bytes: recv(2). b"" means that the peer has finished.
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
        self.receive(py, "recv", bufsize, flags)
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
        self.receive_into(py, "recv_into", buffer, nbytes, flags)
    }

    /// As `recv`, with the sender's address behind it, which is None on a stream: recvfrom(2).
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
        let bufsize = length("bufsize", bufsize)?.min(MOST_DATAGRAM);
        with_scratch(bufsize, |scratch| {
            let message = self.attached(py, |stream, waiter| {
                let slices = &mut [IoSliceMut::new(scratch)];
                stream.receive_message(step, slices, &mut [], flags, waiter)
            })?;
            let data = &scratch[..message.bytes.min(scratch.len())];
            Ok((PyBytes::new(py, data), self.sender(py, &message)?))
        })
    }

    /// As `recv_into`, with the sender's address behind it, which is None on a stream: recvfrom(2).
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

    /// Receives data and control messages: recvmsg(2). Returns (data, [(level, type, data), …],
    /// flags, the sender's address or None on a stream). Blocks and raises as `recv`.
    #[pyo3(signature = (bufsize, ancbufsize=0, flags=0))]
    fn recvmsg<'py>(
        &self,
        py: Python<'py>,
        bufsize: isize,
        ancbufsize: isize,
        flags: i32,
    ) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyList>, i32, Sender<'py>)> {
        let bufsize = length("bufsize", bufsize)?;
        let mut control = room_for_control(ancbufsize)?;
        let (data, message) = if bufsize > SCRATCH {
            let (taken, message) = self.attached(py, |stream, waiter| {
                stream.receive_vec("recvmsg", bufsize, &mut control, flags, waiter)
            })?;
            (PyBytes::new(py, &taken), message)
        } else {
            with_scratch(bufsize, |scratch| {
                blank(scratch, flags);
                let message = self.attached(py, |stream, waiter| {
                    let slices = &mut [IoSliceMut::new(scratch)];
                    stream.receive_message("recvmsg", slices, &mut control, flags, waiter)
                })?;
                let data = &scratch[..message.bytes.min(scratch.len())];
                PyResult::Ok((PyBytes::new(py, data), message))
            })?
        };
        let (control, flags, from) = self.beside_data(py, &message, &control)?;
        Ok((data, control, flags, from))
    }

    /// As `recvmsg`, into writable buffers, filled one after the other. Returns (bytes, [(level, type,
    /// data), …], flags, sender).
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
            .map(|buffer| {
                Sink::new("recvmsg_into", &buffer?).map_err(|error| {
                    // As with a socket, for which it is one mistake with what cannot be written to.
                    match error.is_instance_of::<PyBufferError>(py) {
                        true => PyTypeError::new_err(error.value(py).to_string()),
                        false => error,
                    }
                })
            })
            .collect::<PyResult<Vec<_>>>()?;
        let mut slices: Vec<_> =
            sinks.iter_mut().map(|sink| IoSliceMut::new(sink.as_mut_slice())).collect();
        let mut control = room_for_control(ancbufsize)?;
        let message = self.attached(py, |stream, waiter| {
            stream.receive_message("recvmsg_into", &mut slices, &mut control, flags, waiter)
        })?;
        let (control, flags, from) = self.beside_data(py, &message, &control)?;
        Ok((message.bytes, control, flags, from))
    }

    /// Sends buffers one after the other as if they were one, with control messages (level, type, data):
    /// sendmsg(2). Returns how many bytes there was room for. Blocks and raises as `send`. `address` is where a
    /// datagram goes, if not to whom its client is connected to; a stream has its peer: there it is
    /// checked, and ignored as the system does.
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
        let mut control = Vec::new();
        if let Some(ancdata) = ancdata {
            for item in ancdata.try_iter()? {
                control.extend(one_control_message(&item?)?);
            }
        }
        let target = self.check_destination(py, "sendmsg", address)?;
        self.attached(py, |stream, waiter| {
            stream.send_message(&slices, &control, flags, target.as_ref(), waiter)
        })
    }

    /// Sends one datagram to an address, `sendto(data, address)` or `sendto(data, flags, address)`: sendto(2).
    /// A host that is a name is resolved each time. On a stream it is `send`: the address is checked, and
    /// ignored as the system does. Blocks and raises as `send`.
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

    /// For the Python half of `sendfile`: sends `count` bytes (None: all) of the regular file `file`, a
    /// descriptor, from `offset` on, and returns how many it was; `.sent` on what ends it early.
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

    /// Receives exactly `n` bytes; b"" where the peer has finished before the first of them.
    ///
    /// Raises IncompleteRead, with `.partial`, where it finishes within them. TimeoutError and
    /// KeyboardInterrupt carry what had come as `.partial`. Blocks and raises as `recv`; the time-out
    /// holds for the call as a whole.
    fn recv_exactly<'py>(&self, py: Python<'py>, n: isize) -> PyResult<Bound<'py, PyBytes>> {
        let count = length("n", n)?;
        let taken = self.attached(py, |stream, waiter| stream.recv_exactly(count, waiter))?;
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
                let text = format!("shutdown {how}: no such direction");
                return Err(os_error(py, libc::EINVAL, text));
            }
        };
        self.inner().shutdown(how).map_err(|error| self.raised(py, error))
    }

    /// Closes the stream; the peer gets what was sent, then the end. Calls of other threads end with
    /// OSError EBADF. Closing twice is closing once. As with any socket, files of `makefile` that are
    /// still open put it off until the last of them is closed. Blocks only under
    /// SocketOptions(linger=…).
    fn close(&self, py: Python<'_>) {
        self.close_wanted.store(true, SeqCst);
        if self.files.load(SeqCst) == 0 {
            self.end(py, |stream| stream.close());
        }
    }

    /// For `makefile`: one more file is open.
    fn _open_file(&self) {
        self.files.fetch_add(1, SeqCst);
    }

    /// What `socket.SocketIO` calls when a file of `makefile` is closed.
    fn _decref_socketios(&self, py: Python<'_>) {
        // One that was made by hand was never counted.
        let left = self.files.fetch_update(SeqCst, SeqCst, |files| files.checked_sub(1));
        if left.map_or(0, |before| before - 1) == 0 && self.close_wanted.load(SeqCst) {
            self.end(py, |stream| stream.close());
        }
    }

    /// Closes it with a reset (RST): the peer gets ConnectionResetError, and nothing of what was not
    /// sent yet. Does not block.
    fn abort(&self, py: Python<'_>) {
        self.end(py, |stream| {
            stream.abort();
            None
        });
    }

    /// For `to_socket`: a second descriptor of the same connection.
    fn _duplicate(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.inner.duplicate().map(IntoRawFd::into_raw_fd).map_err(|error| self.raised(py, error))
    }

    /// Gives the descriptor away, open, and returns its number, or -1 if it is
    /// closed; this object is closed then. OSError
    /// EBUSY while another thread's call is using it.
    fn detach(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.inner().detach().map_err(|error| self.raised(py, error))
    }

    /// Number of the descriptor, which is blocking unless the time-out is 0; -1 once closed.
    fn fileno(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.inner().fileno().map_err(|error| self.raised(py, error))
    }

    /// Sets the time-out of every call in seconds; None waits for ever, 0 never.
    #[pyo3(signature = (value))]
    fn settimeout(&self, py: Python<'_>, value: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        // A bool is a number to `socket`, though to nobody else here.
        let value = match value {
            Some(flag) if flag.is_instance_of::<PyBool>() => Some(flag.call_method0("__int__")?),
            value => value,
        };
        let timeout = args::timeout("timeout", value.as_ref())?;
        self.inner().set_timeout(timeout).map_err(|error| self.raised(py, error))
    }

    /// The time-out in seconds, or None.
    fn gettimeout(&self) -> Option<f64> {
        self.inner().timeout().map(|timeout| timeout.as_secs_f64())
    }

    /// `settimeout(None)` for what is true, `settimeout(0)` for what is not.
    fn setblocking(&self, py: Python<'_>, flag: &Bound<'_, PyAny>) -> PyResult<()> {
        let timeout = if flag.is_truthy()? { None } else { Some(Duration::ZERO) };
        self.inner().set_timeout(timeout).map_err(|error| self.raised(py, error))
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
        self.inner().setsockopt(level, optname, value).map_err(|error| self.raised(py, error))
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
            let text = format!("getsockopt buflen {buflen}: must be from 0 to 1024");
            return Err(os_error(py, libc::EINVAL, text));
        }
        let wanted = if buflen == 0 { size_of::<i32>() } else { buflen as usize };
        let value = self
            .inner()
            .getsockopt(level, optname, wanted)
            .map_err(|error| self.raised(py, error))?;
        if buflen > 0 {
            return Ok(PyBytes::new(py, &value).into_any());
        }
        let mut number = [0; size_of::<i32>()];
        number[..value.len()].copy_from_slice(&value);
        Ok(i32::from_ne_bytes(number).into_pyobject(py)?.into_any())
    }

    /// The peer's address as socket.getpeername() gives it. OSError ENOTCONN where there is none.
    fn getpeername<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let address = self.inner().peer_address().map_err(|error| self.raised(py, error))?;
        args::socket_address(py, &address)
    }

    /// The own address as socket.getsockname() gives it.
    fn getsockname<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let address = self.inner().local_address().map_err(|error| self.raised(py, error))?;
        args::socket_address(py, &address)
    }

    /// Address family as a number: AF_INET, AF_INET6 or AF_UNIX.
    #[getter]
    fn family(&self) -> i32 {
        self.inner().family()
    }

    /// Socket type as a number: SOCK_STREAM, or SOCK_DGRAM on UDP.
    #[getter]
    fn r#type(&self) -> i32 {
        if self.is_datagram() { libc::SOCK_DGRAM } else { libc::SOCK_STREAM }
    }

    /// Protocol number: IPPROTO_TCP, IPPROTO_UDP, or 0 of a Unix socket.
    #[getter]
    fn proto(&self) -> i32 {
        self.inner().protocol()
    }

    /// The time-out in seconds, or None.
    #[getter]
    fn timeout(&self) -> Option<f64> {
        self.gettimeout()
    }

    /// Whether it was closed, aborted or detached.
    #[getter]
    fn closed(&self) -> bool {
        self.close_wanted.load(SeqCst) || self.inner().is_closed()
    }

    /// Its account: of a connection, the one in its server's ledger; of a client, from when it is
    /// connected (None before). Bytes that go through `fileno()` or `to_socket()` are not counted.
    #[getter]
    fn record(&self) -> Option<Record> {
        Record::of(self.inner())
    }

    /// The number of its record: of a connection in its server, of a client among those of this
    /// process; None before it is connected.
    #[getter]
    fn id(&self) -> Option<u64> {
        self.inner().record().map(|record| record.id())
    }

    /// Whether its server is stopping: reads give what is there, then `b""`. False for a client.
    #[getter]
    fn draining(&self) -> bool {
        self.inner().draining()
    }

    /// The five things a socket is: descriptor, own host and port, the peer's host and port. Of a Unix
    /// socket the hosts are the paths ("" where there is none) and the ports 0. OSError ENOTCONN before it
    /// is connected.
    #[getter]
    fn five_tuple<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let raise = |error| self.raised(py, error);
        let local = self.inner().local_address().map_err(raise)?.canonical();
        let remote = self.inner().peer_address().map_err(raise)?.canonical();
        let fields = PyDict::new(py);
        fields.set_item("fd", self.inner().fileno().map_err(raise)?)?;
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

    /// What the kernel knows of the connection now: TCP_INFO of tcp(7), as a TcpInfo. Does not block.
    /// OSError EOPNOTSUPP of a Unix socket, which has no TCP.
    #[getter]
    fn tcp_info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let info = self.inner().tcp_info().map_err(|error| self.raised(py, error))?;
        tcp_info(py, &info)
    }
}
