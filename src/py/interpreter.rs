//! Which interpreter asks. Must never let a second one in: its objects would meet those of the first
//! in the state that the engine has once per process.

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// ImportError in a sub-interpreter. From 3.12 on Python itself refuses; 3.11 does not ask.
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
