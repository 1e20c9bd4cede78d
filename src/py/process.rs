//! The process's limits for Python. Must never change one that it was not asked to.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::error::exception;
use super::imports;
use crate::net::base::process;

/// An object of a dataclass of ours, made by keyword.
pub(super) fn object<'py>(
    py: Python<'py>,
    class: &str,
    fields: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    imports::class(py, class)?.call((), Some(fields))
}

/// The limits of this process, now: descriptors, client ports, accept queue. Does not block.
///
/// Follows getrlimit(2) and proc(5). Raises OSError where the system does not tell.
#[pyfunction]
pub(super) fn process_limits(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let limits = process::process_limits().map_err(|error| exception(py, error))?;
    let fields = PyDict::new(py);
    fields.set_item("fd_soft", limits.fd_soft)?;
    fields.set_item("fd_hard", limits.fd_hard)?;
    fields.set_item("fd_in_use", limits.fd_in_use)?;
    fields.set_item("ephemeral_ports", limits.ephemeral_ports)?;
    fields.set_item("backlog_max", limits.backlog_max)?;
    object(py, "ProcessLimits", &fields)
}

/// Raises the soft limit of open descriptors to the hard one and returns it. Does not block.
///
/// Follows setrlimit(2). Raises OSError where the system refuses.
#[pyfunction]
pub(super) fn raise_fd_limit(py: Python<'_>) -> PyResult<u64> {
    process::raise_fd_limit().map_err(|error| exception(py, error))
}
