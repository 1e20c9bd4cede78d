//! The engine's errors as Python's exceptions: the one match. Nothing else builds exceptions of the
//! engine's errors; must never lose what a cut-off call had taken.

use pyo3::exceptions::{PyOSError, PyOverflowError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};

use super::imports;
use crate::net::error::Error;

/// An exception of a class of ours.
fn own(py: Python<'_>, name: &str, args: impl OwnArgs) -> PyErr {
    match imports::class(py, name) {
        Ok(class) => args.raise(&class),
        Err(error) => error,
    }
}

/// What one of our own exceptions is made of.
trait OwnArgs {
    fn raise(self, class: &Bound<'_, PyType>) -> PyErr;
}

impl OwnArgs for String {
    fn raise(self, class: &Bound<'_, PyType>) -> PyErr {
        PyErr::from_type(class.clone(), self)
    }
}

impl OwnArgs for (String, Py<PyBytes>) {
    fn raise(self, class: &Bound<'_, PyType>) -> PyErr {
        PyErr::from_type(class.clone(), self)
    }
}

/// The exception of an error of the engine.
pub(super) fn exception(py: Python<'_>, error: Error) -> PyErr {
    static GAIERROR: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let text = error.to_string();
    match error {
        Error::Os { errno, .. } => os_error(py, errno, text),
        Error::Resolve { code, .. } => match GAIERROR.import(py, "socket", "gaierror") {
            Ok(class) => PyErr::from_type(class.clone(), (code, text)),
            Err(error) => error,
        },
        Error::TimedOut { .. } => PyTimeoutError::new_err(text),
        Error::Incomplete { .. } => {
            own(py, "IncompleteRead", (text, PyBytes::new(py, b"").unbind()))
        }
        Error::Cut { cause, partial } => match *cause {
            Error::Incomplete { .. } => {
                own(py, "IncompleteRead", (text, PyBytes::new(py, &partial).unbind()))
            }
            cause => with_partial(py, exception(py, cause), &partial),
        },
        Error::OverLimit { .. } | Error::Value(_) => PyValueError::new_err(text),
        Error::Overflow(_) => PyOverflowError::new_err(text),
        Error::State { .. } | Error::Forked { .. } => own(py, "StateError", text),
        // A waiter keeps the reason and raises it in this one's place (see `wait`).
        Error::Interrupted => os_error(py, libc::EINTR, text),
    }
}

/// An OSError from (errno, text), so that Python picks ConnectionRefusedError and friends by itself.
pub(super) fn os_error(py: Python<'_>, errno: i32, text: String) -> PyErr {
    // Made now, and the class asked of what was made: before 3.12 one that Python makes when it is
    // raised stays an OSError to compiled callers such as uvloop, which look for BlockingIOError.
    match py.get_type::<PyOSError>().call1((errno, text)) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// The same exception with what had been taken from the stream as `.partial`.
pub(super) fn with_partial(py: Python<'_>, error: PyErr, partial: &[u8]) -> PyErr {
    // Fails only on an exception class that forbids attributes; then there is no place for it.
    let _ = error.value(py).setattr("partial", PyBytes::new(py, partial));
    error
}
