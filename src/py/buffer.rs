//! Python's memory, lent to the engine for one call. All `unsafe` of the border; must never outlive
//! the object that lends, nor touch memory that is not contiguous.

use std::cell::Cell;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// A contiguous export of an object's memory, given back when dropped.
///
/// PyBUF_SIMPLE, as `socket` asks for: it fits whatever has bytes, ctypes structures included, which
/// pyo3's own buffers do not.
pub(super) struct Export<'py> {
    // On the heap: an exporter may keep its address.
    view: Box<ffi::Py_buffer>,
    py: Python<'py>,
}

impl<'py> Export<'py> {
    fn new(data: &Bound<'py, PyAny>, flags: std::ffi::c_int) -> PyResult<Self> {
        let py = data.py();
        if data.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err(
                "a bytes-like object is required, not 'str'; encode it first",
            ));
        }
        let mut view = Box::new(ffi::Py_buffer::new());
        // SAFETY: attached; the view is fresh, and released once, by `drop`, where this succeeds.
        match unsafe { ffi::PyObject_GetBuffer(data.as_ptr(), &raw mut *view, flags) } {
            0 => Ok(Self { view, py }),
            _ => Err(PyErr::fetch(py)),
        }
    }

    fn length(&self) -> usize {
        usize::try_from(self.view.len).unwrap_or(0)
    }
}

impl Drop for Export<'_> {
    fn drop(&mut self) {
        let _attached = self.py;
        // SAFETY: attached, and exported by `new`.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.view) };
    }
}

/// What is sent: any contiguous buffer; `bytes` without the price of an export.
pub(super) enum Source<'py> {
    Bytes(Bound<'py, PyBytes>),
    Buffer(Export<'py>),
}

impl<'py> Source<'py> {
    pub(super) fn new(data: Bound<'py, PyAny>) -> PyResult<Self> {
        match data.cast_into::<PyBytes>() {
            Ok(bytes) => Ok(Self::Bytes(bytes)),
            Err(error) => Export::new(&error.into_inner(), ffi::PyBUF_SIMPLE).map(Self::Buffer),
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes(),
            Self::Buffer(export) if export.length() == 0 => &[],
            // SAFETY: the export holds the memory in place for as long as `self` lives, and it is
            // contiguous. Another thread may write to a bytearray meanwhile, as it may during
            // socket.send; the bytes are only handed to the kernel, which reads them as they are.
            Self::Buffer(export) => unsafe {
                std::slice::from_raw_parts(export.view.buf.cast(), export.length())
            },
        }
    }
}

/// Where something is received to: a writable contiguous buffer.
pub(super) struct Sink<'py>(Export<'py>);

impl<'py> Sink<'py> {
    pub(super) fn new(step: &str, buffer: &Bound<'py, PyAny>) -> PyResult<Self> {
        Export::new(buffer, ffi::PyBUF_WRITABLE).map(Self).map_err(|error| {
            // What can be read only is a mistake of type, as with `socket`.
            match Export::new(buffer, ffi::PyBUF_SIMPLE) {
                Ok(_) => PyTypeError::new_err(format!("{step} needs a writable buffer")),
                Err(_) => error,
            }
        })
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        if self.0.length() == 0 {
            return &mut [];
        }
        // SAFETY: as in `Source::as_slice`, and writable; the kernel writes into it.
        unsafe { std::slice::from_raw_parts_mut(self.0.view.buf.cast(), self.0.length()) }
    }
}

thread_local! {
    /// Where `recv` receives to, so that it allocates only what has come. Taken for the length of a
    /// call: a signal handler may receive as well.
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The most that is lent: as much as a socket holds by default, and little enough to keep for each
/// thread.
pub(super) const SCRATCH: usize = 256 * 1024;

/// Lends the thread's scratch buffer of `wanted` bytes, at most `SCRATCH`.
pub(super) fn with_scratch<T>(wanted: usize, use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut scratch = KEPT.take();
    if scratch.len() < wanted {
        scratch.resize(wanted, 0);
    }
    let result = use_it(&mut scratch[..wanted]);
    KEPT.set(scratch);
    result
}
