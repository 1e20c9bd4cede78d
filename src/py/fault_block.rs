//! The block of `with server.fault(…)`, or of a client, for Python. Owns which fault a block has added; must never
//! leave one there when the block has not begun, or has ended.

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use super::client::Client;
use super::fault_objects::FaultObjects;
use super::server::Server;
use crate::net::base::Mutex;
use crate::net::stage::faults::FaultHost;

/// What has the fault.
#[derive(FromPyObject)]
enum Owner {
    Server(Py<Server>),
    Client(Py<Client>),
}

impl Owner {
    fn faults(&self, py: Python<'_>) -> PyResult<(&FaultObjects, &dyn FaultHost)> {
        match self {
            Self::Server(server) => server.get().faults(py),
            Self::Client(client) => client.get().faults(py),
        }
    }
}

/// The compiled half of what `Server.fault` and `Client.fault` return.
// In Rust, because the interpreter checks for signals when it enters and leaves a Python function:
// Ctrl-C behind the call that adds the fault would leave it there, and `__exit__` is not called.
#[pyclass(frozen, subclass, module = "rsock._rsock")]
pub(super) struct FaultBlock {
    owner: Owner,
    fault: Py<PyAny>,
    /// The numbers of the faults that blocks have added which have not ended, innermost last.
    numbers: Mutex<Vec<u64>>,
}

#[pymethods]
impl FaultBlock {
    #[new]
    fn new(owner: Owner, fault: Bound<'_, PyAny>) -> PyResult<Self> {
        // Refuses at once what is no fault.
        super::faults::fault("fault", &fault)?;
        let numbers = Mutex::new(Vec::new());
        Ok(Self { owner, fault: fault.unbind(), numbers })
    }

    /// Add the fault, and return it once every connection has it.
    fn __enter__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (faults, host) = self.owner.faults(py)?;
        let number = faults.add(host, self.fault.bind(py), 1)?;
        self.numbers.lock().push(number);
        Ok(self.fault.clone_ref(py))
    }

    /// Remove the fault, and return once no connection has it.
    ///
    /// Has no effect if the server has stopped, or if the fault was removed.
    fn __exit__(
        &self,
        py: Python<'_>,
        exc_type: &Bound<'_, PyAny>,
        exc: &Bound<'_, PyAny>,
        traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_type, exc, traceback);
        let (faults, host) = self.owner.faults(py)?;
        let number = self.numbers.lock().pop();
        match number {
            // A forked child leaves its copy of the block; the parent's goes on.
            Some(number) if host.is_here() => faults.remove(py, host, &[number]).map(drop),
            _ => Ok(()),
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<FaultBlock {}>", self.fault.bind(py).repr()?))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match &self.owner {
            Owner::Server(server) => visit.call(server)?,
            Owner::Client(client) => visit.call(client)?,
        }
        visit.call(&self.fault)
    }
}
