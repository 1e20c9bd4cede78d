//! The Python classes that Rust uses by name. Owns the names of `rsock._types` and
//! `rsock._exceptions` from the first import on, because no module can be imported while the
//! interpreter ends; must never hold a module that imports this one.

use pyo3::exceptions::PyNameError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

static NAMES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

/// Imports the modules, and keeps their names.
pub(super) fn hold(py: Python<'_>) -> PyResult<()> {
    let names = PyDict::new(py);
    for module in ["rsock._types", "rsock._exceptions"] {
        names.update(py.import(module)?.dict().as_mapping())?;
    }
    // Already set if the program imports this module a second time.
    let _ = NAMES.set(py, names.unbind());
    Ok(())
}

/// A class by its name.
pub(super) fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    let found = NAMES.get(py).map(|names| names.bind(py).get_item(name)).transpose()?.flatten();
    let found = found.ok_or_else(|| PyNameError::new_err(name.to_owned()))?;
    Ok(found.cast_into()?)
}

/// An exception of the module ssl, which a program without TLS does not load.
pub(super) fn of_ssl<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    Ok(py.import("ssl")?.getattr(name)?.cast_into()?)
}

/// Calls a function of the Python half: `module.name(object)`.
pub(super) fn in_python(
    object: &Bound<'_, PyAny>,
    module: &str,
    name: &str,
) -> PyResult<Py<PyAny>> {
    Ok(object.py().import(module)?.call_method1(name, (object,))?.unbind())
}
