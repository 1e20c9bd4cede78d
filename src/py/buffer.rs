//! Python's memory, lent to the engine for one call. All `unsafe` of the border; must never outlive
//! the object that lends, nor touch memory that is not contiguous.

use std::cell::Cell;

use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// What is sent: any contiguous buffer; `bytes` without the price of an export.
pub(super) enum Source<'py> {
    Bytes(Bound<'py, PyBytes>),
    Buffer(PyUntypedBuffer),
}

impl<'py> Source<'py> {
    pub(super) fn new(data: Bound<'py, PyAny>) -> PyResult<Self> {
        match data.cast_into::<PyBytes>() {
            Ok(bytes) => Ok(Self::Bytes(bytes)),
            Err(error) => export(&error.into_inner()).map(Self::Buffer),
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes(),
            Self::Buffer(buffer) if buffer.len_bytes() == 0 => &[],
            // SAFETY: the export holds the memory in place for as long as `self` lives, and it is
            // contiguous. Another thread may write to a bytearray meanwhile, as it may during
            // socket.send; the bytes are only handed to the kernel, which reads them as they are.
            Self::Buffer(buffer) => unsafe {
                std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.len_bytes())
            },
        }
    }
}

/// Where something is received to: a writable contiguous buffer.
pub(super) struct Sink(PyUntypedBuffer);

impl Sink {
    pub(super) fn new(step: &str, buffer: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = export(buffer)?;
        if buffer.readonly() {
            return Err(PyTypeError::new_err(format!("{step} needs a writable buffer")));
        }
        Ok(Self(buffer))
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        if self.0.len_bytes() == 0 {
            return &mut [];
        }
        // SAFETY: as in `Source::as_slice`, and writable; the kernel writes into it.
        unsafe { std::slice::from_raw_parts_mut(self.0.buf_ptr().cast(), self.0.len_bytes()) }
    }
}

fn export(data: &Bound<'_, PyAny>) -> PyResult<PyUntypedBuffer> {
    if data.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err(
            "a bytes-like object is required, not 'str'; encode it first",
        ));
    }
    let buffer = PyUntypedBuffer::get(data)?;
    if !buffer.is_c_contiguous() {
        return Err(PyBufferError::new_err("a contiguous buffer is required"));
    }
    Ok(buffer)
}

thread_local! {
    /// Where `recv` receives to, so that it allocates only what has come. Taken for the length of a
    /// call: a signal handler may receive as well.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The most that one `recv` returns, whatever it is asked for. As much as a socket holds by default,
/// and little enough to keep for each thread.
const MOST: usize = 256 * 1024;

/// Lends the thread's scratch buffer of at most `wanted` bytes.
pub(super) fn with_scratch<T>(wanted: usize, use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut scratch = SCRATCH.take();
    let length = wanted.min(MOST);
    if scratch.len() < length {
        scratch.resize(length, 0);
    }
    let result = use_it(&mut scratch[..length]);
    SCRATCH.set(scratch);
    result
}
