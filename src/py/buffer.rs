//! Python memory that the engine uses for one call. Owns the `unsafe` code for it; must never keep
//! memory longer than its object lives, nor access memory that is not contiguous.

use std::cell::Cell;

use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

/// A contiguous export of an object's memory, released when dropped.
///
/// PyBUF_SIMPLE, which `socket` also requests, works for every object with bytes, including ctypes
/// structures; pyo3's own buffers do not support these.
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

/// The data of a send: any contiguous buffer. `bytes` avoids the cost of an export.
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
            // SAFETY: the export keeps the memory at its address for as long as `self` lives, and
            // it is contiguous. Another thread may write to a bytearray meanwhile, as it may during
            // socket.send; the bytes are only passed to the kernel, which reads them as they are.
            Self::Buffer(export) => unsafe {
                std::slice::from_raw_parts(export.view.buf.cast(), export.length())
            },
        }
    }
}

/// The destination of a receive: a writable contiguous buffer.
pub(super) struct Sink<'py>(Export<'py>);

impl<'py> Sink<'py> {
    pub(super) fn new(step: &str, buffer: &Bound<'py, PyAny>) -> PyResult<Self> {
        Export::new(buffer, ffi::PyBUF_WRITABLE).map(Self).map_err(|error| {
            // Whatever the reason, it is a TypeError, as with `socket`.
            match Export::new(buffer, ffi::PyBUF_SIMPLE) {
                Ok(_) => PyTypeError::new_err(format!("{step} needs a writable buffer")),
                Err(_) if error.is_instance_of::<PyTypeError>(buffer.py()) => error,
                Err(_) => PyTypeError::new_err(format!(
                    "{step} needs a writable buffer: {}",
                    error.value(buffer.py())
                )),
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
    /// The buffer into which `recv` receives, so that it allocates only for the bytes received. It
    /// is taken for the duration of a call, because a signal handler may call `recv` too.
    static KEPT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The largest scratch buffer: the default size of a socket's buffer, and small enough to keep for
/// each thread.
pub(super) const SCRATCH: usize = 256 * 1024;

/// Calls a function with `wanted` bytes of the thread's scratch buffer. More than `SCRATCH` bytes
/// are not kept.
pub(super) fn with_scratch<T>(wanted: usize, use_it: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut scratch = KEPT.take();
    if scratch.len() < wanted {
        scratch.resize(wanted, 0);
    }
    let result = use_it(&mut scratch[..wanted]);
    if wanted <= SCRATCH {
        KEPT.set(scratch);
    }
    result
}
