//! A condition on a ledger that a coroutine waits for. Must never block: the loop that runs the
//! coroutine does.

use std::os::fd::RawFd;

use pyo3::prelude::*;

use super::error::exception;
use super::ledger::Ledger;
use crate::net;
use crate::net::base::Mutex;

/// A condition on a ledger, watched for a coroutine. For the Python half.
#[pyclass(frozen, module = "rsock._rsock")]
pub(super) struct Watch {
    /// None once `close` was called.
    inner: Mutex<Option<net::ledger::Watch>>,
    ledger: Py<Ledger>,
}

#[pymethods]
impl Watch {
    #[new]
    fn new(ledger: Py<Ledger>, open: Option<u64>, closed: Option<u64>) -> Self {
        let inner = Mutex::new(Some(ledger.get().watch(open, closed)));
        Self { inner, ledger }
    }

    /// Return the descriptor that becomes readable when the condition is met.
    ///
    /// None where the process has no descriptor for it: the caller calls `check` again and again.
    fn fileno(&self) -> Option<RawFd> {
        self.inner.lock().as_ref().and_then(net::ledger::Watch::fileno)
    }

    /// Return the records if the condition is met now; None otherwise.
    fn check<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let found = self.inner.lock().as_ref().map(net::ledger::Watch::check);
        let found = found.transpose().map_err(|error| exception(py, error))?.flatten();
        found.map(|records| self.ledger.get().records(py, records)).transpose()
    }

    /// Raise the TimeoutError of a wait that has taken too long.
    fn late(&self, py: Python<'_>) -> PyResult<()> {
        let late = self.inner.lock().as_ref().map(net::ledger::Watch::late);
        late.map_or(Ok(()), |late| Err(exception(py, late)))
    }

    /// Give the descriptor back.
    fn close(&self) {
        let inner = self.inner.lock().take();
        drop(inner);
    }
}
