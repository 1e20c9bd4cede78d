//! The process's limits for Python. Owns `process_limits` with `raise_fd_limit`; must never change
//! a limit without an explicit call.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::error::exception;
use super::imports;
use crate::net::base::process;

/// An object of a dataclass of rsock, created from keyword arguments.
pub(super) fn object<'py>(
    py: Python<'py>,
    class: &str,
    fields: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    imports::class(py, class)?.call((), Some(fields))
}

/// Return the current limits of this process, a ProcessLimits. Does not block.
///
/// They concern descriptors, client ports and the accept queue, and are read with getrlimit(2) and
/// from proc(5). Raises OSError if the system does not supply them.
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

/// Raise the soft limit of open descriptors to the hard limit, and return it. Does not block.
///
/// Calls setrlimit(2). Raises OSError if the system refuses.
#[pyfunction]
pub(super) fn raise_fd_limit(py: Python<'_>) -> PyResult<u64> {
    process::raise_fd_limit().map_err(|error| exception(py, error))
}
