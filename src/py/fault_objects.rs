//! The faults of a server or a client for Python. Owns the objects that were passed, beside the engine's faults
//! that were made of them; must never call Python while it holds their lock.

use std::ffi::CString;
use std::sync::Arc;

use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;
use pyo3::types::PyList;
use pyo3::{PyTraverseError, PyVisit};

use super::error::exception;
use super::faults::fault;
use super::wait::Attached;
use crate::net::base::Mutex;
use crate::net::stage::faults::{Fault, FaultHost, Installed};

/// Warns of open connections that a fault cannot reach. `level` is as for Python's `warnings.warn`.
fn warn(host: &dyn FaultHost, object: &Bound<'_, PyAny>, made: &Fault, level: i32) -> PyResult<()> {
    let py = object.py();
    let unreached = host.unreached(made).map_err(|error| exception(py, error))?;
    let Some((count, name)) = unreached else { return Ok(()) };
    let connections = if count == 1 { "connection" } else { "connections" };
    let text = format!(
        "{count} open {connections} of {name} will not have {}: a handler or accept() has the \
         socket itself. Connections that are accepted from now on have it. With \
         Server(…, faults=[]), a fault that is added later reaches all of them",
        object.repr()?,
    );
    let text = CString::new(text.replace('\0', "\\0")).expect("without a NUL");
    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, level)
}

type Objects = Vec<(Arc<Installed>, Py<PyAny>)>;

/// The faults of one server or client with their objects, in the order of their numbers.
pub(super) struct FaultObjects(Mutex<Objects>);

impl FaultObjects {
    /// The objects of faults that were there from the beginning.
    pub(super) fn new(faults: Vec<Arc<Installed>>, objects: Vec<Bound<'_, PyAny>>) -> Self {
        let objects = objects.into_iter().map(Bound::unbind);
        Self(Mutex::new(faults.into_iter().zip(objects).collect()))
    }

    /// Adds a fault, and returns its number once every connection has it. Warns of those that
    /// cannot have it. After an exception it is not there.
    pub(super) fn add(
        &self,
        host: &dyn FaultHost,
        object: &Bound<'_, PyAny>,
        level: i32,
    ) -> PyResult<u64> {
        let made = fault("fault", object)?;
        warn(host, object, &made, level)?;
        let added = Attached::run(object.py(), |waiter| host.add_fault(made, waiter))?;
        let (id, object) = (added.id, object.clone().unbind());
        let mut objects = self.0.lock();
        // Another thread may have added a later one meanwhile.
        let index = objects.partition_point(|(one, _)| one.id < id);
        objects.insert(index, (added, object));
        Ok(id)
    }

    /// Removes faults by their numbers, and returns how many were there, once no connection has
    /// them.
    pub(super) fn remove(
        &self,
        py: Python<'_>,
        host: &dyn FaultHost,
        ids: &[u64],
    ) -> PyResult<usize> {
        let mut objects = self.0.lock();
        let all = std::mem::take(&mut *objects);
        let (removed, kept): (Objects, Objects) =
            all.into_iter().partition(|(one, _)| ids.contains(&one.id));
        *objects = kept;
        drop(objects);
        let ids: Vec<_> = removed.iter().map(|(one, _)| one.id).collect();
        drop(removed);
        if !ids.is_empty() {
            Attached::run(py, |waiter| host.remove_faults(&ids, waiter))?;
        }
        Ok(ids.len())
    }

    /// Number, object, connections and events of each fault.
    pub(super) fn listed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let row = |(one, object): &(Arc<Installed>, Py<PyAny>)| {
            let label = &one.fault.label;
            (one.id, object.clone_ref(py), label.connections(), label.events())
        };
        let rows: Vec<_> = self.0.lock().iter().map(row).collect();
        PyList::new(py, rows)
    }

    /// Never waits: a lock that is held protects objects in use.
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(objects) = self.0.try_lock() else { return Ok(()) };
        objects.iter().try_for_each(|(_, object)| visit.call(object))
    }

    /// Takes the objects, for the garbage collector.
    pub(super) fn clear(&self) -> Option<Vec<(Arc<Installed>, Py<PyAny>)>> {
        self.0.try_lock().map(|mut objects| std::mem::take(&mut *objects))
    }
}
