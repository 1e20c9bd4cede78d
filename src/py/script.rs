//! The service Script for Python: its text form, and how its dialogues went. Must never build a
//! step, which the Python half writes as text.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use super::args::text as as_text;
use super::error::exception;
use super::process::object;
use super::service::Service;
use super::tls;
use crate::net::service::Shape;
use crate::net::{self, services};

/// The compiled half of rsock.Script.
#[pyclass(frozen, subclass, extends = Service, module = "rsock._rsock")]
pub(super) struct Script {
    service: Arc<services::Script>,
    text: String,
}

#[pymethods]
impl Script {
    #[new]
    #[pyo3(signature = (text=None, _parts=vec![], _tls=None),
        text_signature = "(text='', _parts=(), _tls=None)")]
    fn make(
        py: Python<'_>,
        text: Option<Bound<'_, PyAny>>,
        _parts: Vec<PyRef<'_, Self>>,
        _tls: Option<Bound<'_, PyAny>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let text = text.map_or(Ok(String::new()), |text| as_text("text", &text))?;
        let parts: Vec<_> = _parts.iter().map(|part| part.service.program()).collect();
        let tls = _tls.map(|tls| tls::of_script(&tls)).transpose()?;
        let service =
            services::Script::longer(&text, &parts, tls).map_err(|error| exception(py, error))?;
        let service = Arc::new(service);
        let shape = Shape::Stream(Arc::clone(&service) as Arc<dyn net::service::Service>);
        Ok(PyClassInitializer::from(Service { shape }).add_subclass(Self { service, text }))
    }

    /// The script in its text form, a step in each line.
    #[getter]
    fn text<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        PyString::new(py, &self.text)
    }

    /// The number of steps, those in blocks included.
    fn __len__(&self) -> usize {
        self.service.program().count()
    }

    // An empty script is a service like any other.
    fn __bool__(&self) -> bool {
        true
    }

    /// How the dialogues with the clients went that have ended, a list of ScriptResult.
    ///
    /// A result is there before the client receives the last bytes of the script, and before the
    /// ledger shows the end of the connection. They are of all servers
    /// that were started with this object, one server after the other, and in each the oldest
    /// first; `Server.script_results` has those of one server. The last 10 000 of each of the last
    /// 1 000 servers are kept.
    #[getter]
    fn results<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        listed(py, self.service.results())
    }

    /// Return the results of one server, and where dialogues are that go on. For the Python half.
    fn _results_of<'py>(&self, py: Python<'py>, server: u64) -> PyResult<Bound<'py, PyList>> {
        listed(py, self.service.results_of(server))
    }

    /// Forget the results of one server so far. For the Python half.
    fn _clear_of(&self, server: u64) {
        self.service.clear_of(server);
    }

    /// Forget the results so far.
    fn clear(&self) {
        self.service.clear();
    }
}

/// Results as a list of ScriptResult.
pub(super) fn listed<'py>(
    py: Python<'py>,
    results: Vec<services::ScriptResult>,
) -> PyResult<Bound<'py, PyList>> {
    let results = results.into_iter().map(|result| result_object(py, result));
    PyList::new(py, results.collect::<PyResult<Vec<_>>>()?)
}

/// A ScriptResult.
pub(super) fn result_object(
    py: Python<'_>,
    result: services::ScriptResult,
) -> PyResult<Bound<'_, PyAny>> {
    let captures = PyDict::new(py);
    for (name, part) in &result.captures {
        captures.set_item(name, PyBytes::new(py, part))?;
    }
    let fields = PyDict::new(py);
    fields.set_item("connection", result.connection)?;
    fields.set_item("done", result.done)?;
    fields.set_item("step", result.step)?;
    fields.set_item("steps", result.steps)?;
    fields.set_item("error", result.error)?;
    fields.set_item("captures", captures)?;
    fields.set_item("unused", PyBytes::new(py, &result.unused))?;
    fields.set_item("position", result.position)?;
    object(py, "ScriptResult", &fields)
}
