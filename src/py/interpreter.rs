//! What the interpreter itself is asked for: whether it is the main one, and to end a thread. Must
//! never let a second one in: its objects would meet those of the first in the state that the engine
//! has once per process.

use std::ffi::c_ulong;

use pyo3::exceptions::{PyImportError, PySystemExit};
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

/// Has SystemExit raised in another thread as soon as that runs Python code again; nothing happens
/// where it has ended. For handlers that the interpreter's end does not wait for.
#[pyfunction]
pub(super) fn _end_thread(py: Python<'_>, ident: c_ulong) {
    let exit = py.get_type::<PySystemExit>();
    // SAFETY: this thread is attached, and the class lives as long as the interpreter; the call takes
    // a reference of its own. A thread that is none is not found.
    unsafe { ffi::PyThreadState_SetAsyncExc(ident as _, exit.as_ptr()) };
}
