//! The conversion of the engine's errors to Python exceptions. Owns the only match that does so;
//! must never lose the data that an interrupted call had taken.

use std::path::PathBuf;

use pyo3::exceptions::{PyOSError, PyOverflowError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyType};

use super::imports;
use crate::net::error::{Error, TlsError};

/// An exception of a class of rsock.
fn own(py: Python<'_>, name: &str, args: impl OwnArgs) -> PyErr {
    match imports::class(py, name) {
        Ok(class) => args.raise(&class),
        Err(error) => error,
    }
}

/// The arguments of an exception of rsock.
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
        Error::File { errno, path, .. } => file_error(py, errno, text, path),
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
            // Its text has the number of bytes.
            Error::TimedOut { .. } => with_partial(py, PyTimeoutError::new_err(text), &partial),
            cause => with_partial(py, exception(py, cause), &partial),
        },
        Error::Tls { kind, .. } => tls(py, kind, text),
        Error::OverLimit { .. } | Error::Value(_) => PyValueError::new_err(text),
        Error::Overflow(_) => PyOverflowError::new_err(text),
        Error::State { .. } | Error::StreamState { .. } | Error::Forked { .. } => {
            own(py, "StateError", text)
        }
        // The waiter keeps the signal handler's exception and raises that instead (see `wait`).
        Error::Interrupted => os_error(py, libc::EINTR, text),
    }
}

/// An exception of the module ssl.
fn tls(py: Python<'_>, kind: TlsError, text: String) -> PyErr {
    // The numbers that Python's own have: SSL_ERROR_SSL and SSL_ERROR_EOF of OpenSSL.
    let (name, number) = match kind {
        TlsError::Verify => ("SSLCertVerificationError", 1),
        TlsError::Cut => ("SSLEOFError", 8),
        TlsError::Other => ("SSLError", 1),
    };
    match imports::of_ssl(py, name) {
        Ok(class) => PyErr::from_type(class, (number, text)),
        Err(error) => error,
    }
}

/// The exception of an `__init__` that is called a second time.
pub(super) fn called_twice(py: Python<'_>, class: &str) -> PyErr {
    own(py, "StateError", format!("{class}.__init__() has been called already"))
}

/// The exception of a call before `__init__`, which a subclass has replaced by its own.
pub(super) fn not_called(py: Python<'_>, class: &str) -> PyErr {
    let hint = "the __init__() of a subclass must call super().__init__()";
    own(py, "StateError", format!("{class}.__init__() has not been called; {hint}"))
}

/// An OSError from (errno, text), for which Python chooses the subclass, such as
/// ConnectionRefusedError.
pub(super) fn os_error(py: Python<'_>, errno: i32, text: String) -> PyErr {
    // Created here, not when it is raised: before 3.12 compiled callers such as uvloop, which
    // expect BlockingIOError, would otherwise see the class OSError.
    match py.get_type::<PyOSError>().call1((errno, text)) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// An OSError from (errno, text, filename), as of a call that takes a path.
fn file_error(py: Python<'_>, errno: i32, text: String, path: PathBuf) -> PyErr {
    match py.get_type::<PyOSError>().call1((errno, text, path.into_os_string())) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// The same exception, with the bytes that were taken from the stream as its attribute `partial`.
pub(super) fn with_partial(py: Python<'_>, error: PyErr, partial: &[u8]) -> PyErr {
    // Fails only if the exception class forbids attributes; the bytes are lost then.
    let _ = error.value(py).setattr("partial", PyBytes::new(py, partial));
    error
}
