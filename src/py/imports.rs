//! The names of those modules of ours that are written in Python and need nothing of this one: held from
//! the first import on, because somebody may ask while the interpreter ends, when no module can be imported
//! any more. Must never hold one that refers to this module.

use pyo3::exceptions::PyNameError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

static NAMES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

/// Imports the modules.
pub(super) fn hold(py: Python<'_>) -> PyResult<()> {
    let names = PyDict::new(py);
    for module in ["rsock._types", "rsock._exceptions"] {
        names.update(py.import(module)?.dict().as_mapping())?;
    }
    // Set already where somebody imports it anew.
    let _ = NAMES.set(py, names.unbind());
    Ok(())
}

/// A class by its name.
pub(super) fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    let found = NAMES.get(py).map(|names| names.bind(py).get_item(name)).transpose()?.flatten();
    let found = found.ok_or_else(|| PyNameError::new_err(name.to_owned()))?;
    Ok(found.cast_into()?)
}
