//! Recordings for Python: where to record, what to redact, and the contents of a file. Must never
//! touch a byte of a connection.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyString, PyTuple};

use super::args::{shown, user_address, wrong_type};
use super::error::exception;
use crate::net;
use crate::net::base::Mutex;
use crate::net::error::Result;
use crate::net::recording::{
    Content, Direction, Event, Moment, Piece, Plan, REDACTED, RecordedConnection, Recording,
    Redaction, What,
};

/// Return what a recording contains, as plain values. For the Python half.
#[pyfunction]
pub(super) fn _read_recording<'py>(
    py: Python<'py>,
    path: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyTuple>> {
    let path = file("path", &path)?;
    let read = py.detach(|| Recording::read(&path));
    contents(py, read)
}

/// Return what a recording in memory contains. For the Python half.
#[pyfunction]
pub(super) fn _parse_recording<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyTuple>> {
    contents(py, py.detach(|| Recording::parse(data)))
}

/// (transport, microseconds since 1970 or None, target, connections, seconds or None, tear or None)
fn contents(py: Python<'_>, read: Result<Recording>) -> PyResult<Bound<'_, PyTuple>> {
    let recording = read.map_err(|error| exception(py, error))?;
    let Recording { transport, started, target, connections, stopped, torn } = recording;
    let started = started.map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default());
    let connections = connections.iter().map(|connection| of_connection(py, connection));
    let connections = PyList::new(py, connections.collect::<PyResult<Vec<_>>>()?)?;
    let torn = torn.map(|torn| (torn.line, torn.offset, torn.what));
    (
        transport.name(),
        started.map(|since| since.as_micros() as u64),
        target,
        connections,
        stopped.map(|at| at.as_secs_f64()),
        torn,
    )
        .into_pyobject(py)
}

/// (number, transport, address, seconds, events, address of the server or None)
fn of_connection<'py>(
    py: Python<'py>,
    connection: &RecordedConnection,
) -> PyResult<Bound<'py, PyTuple>> {
    let RecordedConnection { number, client, local, at, events } = connection;
    let events = events.iter().map(|event| of_event(py, event));
    let events = PyList::new(py, events.collect::<PyResult<Vec<_>>>()?)?;
    let address = user_address(py, &client.address)?;
    let local = local.as_ref().map(|local| user_address(py, &local.address)).transpose()?;
    (*number, client.transport.name(), address, at.as_secs_f64(), events, local).into_pyobject(py)
}

/// (seconds, direction, kind, bytes, ranges of any bytes)
fn of_event<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyTuple>> {
    let nothing = Content::default();
    let (kind, content) = match &event.what {
        What::Bytes(content) | What::Datagram(content) => ("data", content),
        What::End => ("end", &nothing),
        What::Reset => ("reset", &nothing),
    };
    let mut any = Vec::new();
    let mut at = 0;
    for piece in content.pieces() {
        let length = match piece {
            Piece::Exactly(bytes) => bytes.len(),
            Piece::Any(bytes) => {
                any.push((at, at + bytes.len()));
                bytes.len()
            }
        };
        at += length;
    }
    let direction = match event.direction {
        Direction::Up => "up",
        Direction::Down => "down",
    };
    let data = PyBytes::new(py, content.bytes());
    (event.at.as_secs_f64(), direction, kind, data, PyTuple::new(py, any)?).into_pyobject(py)
}

/// The moments of a recording in the order of time, read from its file without keeping them. For the
/// Python half.
///
/// Raises OSError if the file cannot be read twice, as a pipe, and ValueError as `_read_recording`
/// does.
#[pyclass(frozen, module = "rsock._rsock")]
pub(super) struct Timeline {
    inner: Mutex<net::recording::Timeline>,
}

#[pymethods]
impl Timeline {
    #[new]
    fn new(py: Python<'_>, path: Bound<'_, PyAny>) -> PyResult<Self> {
        let path = file("path", &path)?;
        let inner = py.detach(|| net::recording::Timeline::open(&path));
        let inner = Mutex::new(inner.map_err(|error| exception(py, error))?);
        Ok(Self { inner })
    }

    /// What `_read_recording` returns, without connections.
    fn header<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        contents(py, Ok(py.detach(|| self.inner.lock().header().clone())))
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// (number, connection or None, event or None)
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let moment = py.detach(|| self.inner.lock().next_moment());
        let moment = match moment.map_err(|error| exception(py, error))? {
            None => return Ok(None),
            Some(Moment::Opened(connection)) => (
                connection.number,
                Some(of_connection(py, &connection)?),
                None::<Bound<'_, PyTuple>>,
            ),
            Some(Moment::Event(number, event)) => (number, None, Some(of_event(py, &event)?)),
        };
        moment.into_pyobject(py).map(Some)
    }
}

/// Where to record, from the arguments `recording` and `redact`.
pub(super) fn plan(
    recording: Option<&Bound<'_, PyAny>>,
    redact: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Plan>> {
    let redact = redact.filter(|redact| !redact.is_none());
    let Some(recording) = recording.filter(|recording| !recording.is_none()) else {
        return match redact {
            Some(_) => Err(PyTypeError::new_err("redact= says what recording= must not have")),
            None => Ok(None),
        };
    };
    let path = file("recording", recording)?;
    let redaction = redact.map(redaction).transpose()?.unwrap_or_default();
    Ok(Some(Plan { path, redaction }))
}

/// A path of the file system: str, bytes or os.PathLike.
pub(super) fn file(name: &str, value: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    let wanted = "a path: str, bytes or os.PathLike";
    let plain = value.py().import("os")?.call_method1("fspath", (value,));
    let plain = plain.map_err(|_| wrong_type(name, wanted, value))?;
    let path: OsString = match plain.cast::<PyBytes>() {
        Ok(bytes) => OsStr::from_bytes(bytes.as_bytes()).to_owned(),
        Err(_) => plain.extract().map_err(|_| {
            PyValueError::new_err(format!("{name} {}: not valid text", shown(value)))
        })?,
    };
    let wrong = |why: &str| Err(PyValueError::new_err(format!("{name} {}: {why}", shown(value))));
    match path.as_bytes() {
        [] => wrong("no path"),
        bytes if bytes.contains(&0) => wrong("no NUL in a path"),
        _ => Ok(path.into()),
    }
}

/// A pattern, a (pattern, replacement) pair, or an iterable of them.
fn redaction(redact: &Bound<'_, PyAny>) -> PyResult<Redaction> {
    let py = redact.py();
    let mut rules: Vec<(String, Vec<u8>)> = Vec::new();
    if let Ok(rule) = rule(redact)? {
        rules.push(rule);
    } else if !redact.is_instance_of::<PyString>() {
        let each = redact.try_iter().map_err(|_| wrong_rule(redact))?;
        for each in each {
            let each = each?;
            rules.push(rule(&each)?.map_err(|()| wrong_rule(&each))?);
        }
    } else {
        return Err(wrong_rule(redact));
    }
    let rules: Vec<_> = rules.iter().map(|(pattern, by)| (&**pattern, &**by)).collect();
    Redaction::new(&rules).map_err(|error| exception(py, error))
}

fn wrong_rule(value: &Bound<'_, PyAny>) -> PyErr {
    let wanted = "a pattern of bytes, a (pattern, replacement) pair, or a list of them";
    wrong_type("redact", wanted, value)
}

/// A rule; Ok(Err) if the value is none.
#[allow(clippy::type_complexity, reason = "said in the line above")]
fn rule(value: &Bound<'_, PyAny>) -> PyResult<std::result::Result<(String, Vec<u8>), ()>> {
    if let Ok(pair) = value.cast::<PyTuple>() {
        if pair.len() == 2 {
            let (first, second) = (pair.get_item(0)?, pair.get_item(1)?);
            if let (Some(pattern), Ok(by)) = (pattern(&first)?, second.cast::<PyBytes>()) {
                return Ok(Ok((pattern, by.as_bytes().to_vec())));
            }
        }
        return Ok(Err(()));
    }
    Ok(pattern(value)?.map(|pattern| (pattern, REDACTED.to_vec())).ok_or(()))
}

/// The text of a pattern of bytes, which may be compiled by `re`; None if the value is none.
fn pattern(value: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Some(ascii(bytes.as_bytes())));
    }
    let compiled = value.py().import("re")?.getattr("Pattern")?;
    if !value.is_instance(&compiled)? {
        return Ok(None);
    }
    let source = value.getattr("pattern")?;
    let Ok(bytes) = source.cast::<PyBytes>() else { return Ok(None) };
    let flags = value.getattr("flags")?.cast::<PyInt>()?.extract::<u32>()?;
    // As in the module re: IGNORECASE, MULTILINE, DOTALL, VERBOSE. The others mean nothing for
    // bytes, but for LOCALE.
    let known = [(2, 'i'), (8, 'm'), (16, 's'), (64, 'x')];
    if flags & 4 != 0 {
        let text = format!("redact: pattern {}: no re.LOCALE", shown(value));
        return Err(PyValueError::new_err(text));
    }
    let letters: String =
        known.iter().filter(|(flag, _)| flags & flag != 0).map(|&(_, letter)| letter).collect();
    let source = ascii(bytes.as_bytes());
    Ok(Some(if letters.is_empty() { source } else { format!("(?{letters}){source}") }))
}

/// A pattern with an escape in place of each byte that is not ASCII.
fn ascii(pattern: &[u8]) -> String {
    let mut text = String::with_capacity(pattern.len());
    let mut is_escaped = false;
    for &byte in pattern {
        if byte.is_ascii() {
            text.push(byte as char);
        } else if is_escaped {
            // The backslash in front of it is there.
            text.push_str(&format!("x{byte:02x}"));
        } else {
            text.push_str(&format!("\\x{byte:02x}"));
        }
        is_escaped = byte == b'\\' && !is_escaped;
    }
    text
}
