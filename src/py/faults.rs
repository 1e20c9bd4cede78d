//! Faults from Python: how the engine's are made of `rsock.faults`. Owns the reading of their fields,
//! which their classes have checked; must never know one kind of fault from another.

use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyString, PyType};

use super::args::{shown, wrong_type};
use super::error::exception;
use crate::net::stage::faults::{Connections, Fault, Params, Scope, Value, Window};

/// The engine's fault of an instance of `rsock.faults.Fault`. `name` is the argument.
pub(super) fn fault(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Fault> {
    let py = value.py();
    let class = py.import("rsock.faults")?.getattr("Fault")?;
    if let Ok(given) = value.cast::<PyType>() {
        if given.is_subclass(&class)? {
            let name = given.name()?;
            return Err(PyTypeError::new_err(format!(
                "{name} is a class: give an instance of it, as in {name}(…)"
            )));
        }
    }
    if !value.is_instance(&class)? {
        // As on the command line.
        let wanted = match value.is_instance_of::<PyString>() {
            true => "a fault of rsock.faults, such as Latency(0.2) or parse('latency:0.2')",
            false => "a fault of rsock.faults, such as Latency(0.2)",
        };
        return Err(wrong_type(name, wanted, value));
    }
    let kind: String = value.getattr("_name")?.extract()?;
    let fields = value.call_method0("_parameters")?.cast_into::<PyDict>()?;
    let mut params = Params::default();
    for (name, value) in fields {
        if !value.is_none() {
            params.set(name.extract()?, parameter(&value)?);
        }
    }
    let text: String = value.str()?.extract()?;
    Fault::new(&kind, &params, scope(value)?, &text).map_err(|error| exception(py, error))
}

fn parameter(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if value.is_instance_of::<PyBool>() {
        Ok(Value::Flag(value.extract()?))
    } else if value.is_instance_of::<PyString>() {
        Ok(Value::Text(value.extract()?))
    } else if value.is_instance_of::<PyBytes>() {
        Ok(Value::Bytes(value.extract()?))
    } else if value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>() {
        Ok(Value::Number(value.extract()?))
    } else {
        Err(wrong_type("parameter", "a number, bytes or a str", value))
    }
}

fn scope(value: &Bound<'_, PyAny>) -> PyResult<Scope> {
    let direction: String = value.getattr("direction")?.extract()?;
    let connections = value.getattr("connections")?;
    let time = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    let window: Option<(f64, Option<f64>)> = value.getattr("when")?.extract()?;
    Ok(Scope {
        up: direction != "down",
        down: direction != "up",
        probability: value.getattr("probability")?.extract()?,
        connections: if connections.is_none() {
            Connections::All
        } else if let Ok(first) = connections.extract() {
            Connections::First(first)
        } else {
            Connections::Numbered(connections.extract()?)
        },
        window: window.map(|(from, to)| Window { from: time(from), to: to.map(time) }),
    })
}

/// Faults of the engine, each with the object that it was made of.
type Faults<'py> = Vec<(Fault, Bound<'py, PyAny>)>;

/// The faults of an argument: any iterable of them. None if it was not given.
pub(super) fn faults<'py>(value: Option<&Bound<'py, PyAny>>) -> PyResult<Option<Faults<'py>>> {
    let Some(value) = value else { return Ok(None) };
    let wanted = "a list of faults, as in faults=[Latency(0.2)]";
    if value.is_instance_of::<PyString>() || value.is_instance_of::<PyBytes>() {
        return Err(wrong_type("faults", wanted, value));
    }
    let Ok(items) = value.try_iter() else {
        // One fault without a list is the usual mistake; a class is another one.
        fault("faults", value)?;
        return Err(wrong_type("faults", wanted, value));
    };
    let items: Vec<_> = items.collect::<PyResult<_>>()?;
    let made = items
        .into_iter()
        .enumerate()
        .map(|(index, item)| Ok((fault(&format!("faults[{index}]"), &item)?, item)));
    made.collect::<PyResult<Faults<'py>>>().map(Some)
}

/// The argument `seed`: an int of 64 bits without a sign.
pub(super) fn seed(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<u64>> {
    let Some(value) = value else { return Ok(None) };
    if !value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>() {
        return Err(wrong_type("seed", "an int", value));
    }
    let seed = value.extract().map_err(|_| {
        PyValueError::new_err(format!("seed {}: must be from 0 to 2**64 - 1", shown(value)))
    })?;
    Ok(Some(seed))
}
