//! Keywords that a constructor does not have. Owns their error; must never accept one.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

/// The TypeError for keywords that the constructor of a class does not have, with what was meant.
pub(super) fn no_more(
    class: &Bound<'_, PyType>,
    unknown: Option<&Bound<'_, PyDict>>,
) -> PyResult<()> {
    let Some((name, _)) = unknown.and_then(|unknown| unknown.iter().next()) else { return Ok(()) };
    let explain = class.py().import("rsock._keywords")?.getattr("unknown_of")?;
    Err(PyErr::from_value(explain.call1((class, name))?))
}
