//! Calls to the interpreter's own C API. Owns the check for sub-interpreters, with the end of
//! threads; must never admit a second interpreter: its objects would share the engine's state,
//! which exists once per process, with those of the first.

use std::ffi::c_ulong;

use pyo3::exceptions::{PyImportError, PySystemExit};
use pyo3::ffi;
use pyo3::prelude::*;

/// Fails with ImportError in a sub-interpreter. Python 3.12 and later refuse the import themselves;
/// 3.11 does not.
pub(super) fn check(_py: Python<'_>) -> PyResult<()> {
    // SAFETY: `_py` proves that this thread is attached, so that there is a current interpreter.
    let id = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    // The main interpreter's number is 0 by the documentation of the C API.
    if id == 0 {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "rsock does not work in sub-interpreters; import it in the main one",
    ))
}

/// Raise SystemExit in another thread, as soon as that thread runs Python code again.
///
/// `ident` is its `threading.get_ident()`. Has no effect if the thread has ended. For handlers that
/// the end of the interpreter does not wait for. Does not block.
#[pyfunction]
pub(super) fn _end_thread(py: Python<'_>, ident: c_ulong) {
    let exit = py.get_type::<PySystemExit>();
    // SAFETY: this thread is attached, and the class lives as long as the interpreter; the call
    // takes a reference of its own. An unknown thread id has no effect.
    unsafe { ffi::PyThreadState_SetAsyncExc(ident as _, exit.as_ptr()) };
}
