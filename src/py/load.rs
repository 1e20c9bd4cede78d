//! `drive` for Python: a load in Rust. Owns the check of its arguments; must never send a byte
//! itself.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFloat, PyInt};

use super::args::{self, octets, shown, whole, wrong_type};
use super::process::object;
use super::wait::Attached;
use crate::net::load::{self, Driven, Latency, Load};

/// More connections than a process can have descriptors: a larger number is a typing error.
const MOST_CONNECTIONS: i64 = 1_000_000;
/// The longest message.
const MOST_SIZE: i64 = 1 << 30;

/// Send messages on several connections at once, and return a DriveResult with the times of the
/// answers.
///
/// `address` is a (host, port) pair, or the path of a Unix socket, of a server that echoes.
/// `messages` are sent on `connections` connections together; each connection has one message
/// under way. `size` is the length of a message in bytes, or `message` is the message itself. The
/// answer is the message, byte by byte; or, with `answer`, any bytes of that length.
///
/// With `rate`, that number of messages is begun each second, and the time of an answer counts from
/// when its message was due, also when no connection was free for it. Otherwise a connection sends
/// its next message as soon as it has the answer.
///
/// A connect or an answer that takes longer than `timeout` seconds, an error or a wrong answer ends
/// its connection: `errors` counts the causes, and the others send the messages that are left.
///
/// A thread in Rust does the work. Blocks, with the interpreter released, until all messages are
/// answered or no connection is left; Ctrl-C ends it. Raises TypeError or ValueError for a wrong
/// argument, socket.gaierror for an unknown host, and OSError if the system has no descriptor.
#[pyfunction]
#[pyo3(signature = (address, *, connections=None, messages=None, size=None, message=None,
    answer=None, rate=None, timeout=None),
    text_signature = "(address, *, connections=1, messages=1_000, size=64, message=None, \
    answer=None, rate=None, timeout=10.0)")]
#[allow(clippy::too_many_arguments, reason = "the signature that users see")]
pub(super) fn drive<'py>(
    py: Python<'py>,
    address: Bound<'py, PyAny>,
    connections: Option<Bound<'py, PyAny>>,
    messages: Option<Bound<'py, PyAny>>,
    size: Option<Bound<'py, PyAny>>,
    message: Option<Bound<'py, PyAny>>,
    answer: Option<Bound<'py, PyAny>>,
    rate: Option<Bound<'py, PyAny>>,
    timeout: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let target = args::destination(&address)?;
    let number = |name: &str, value: Option<Bound<'py, PyAny>>, usual: i64, most: i64| {
        value.map_or(Ok(usual), |value| whole(name, &value, 1, most))
    };
    if let (Some(size), Some(_)) = (&size, &message) {
        return Err(PyValueError::new_err(format!(
            "size={} and message=: the message has a length of its own",
            shown(size)
        )));
    }
    let message = match message {
        Some(message) => octets("message", &message)?,
        None => pattern(number("size", size, 64, MOST_SIZE)? as usize),
    };
    if message.is_empty() {
        return Err(PyValueError::new_err("message: must have at least one byte"));
    }
    let timeout = timeout
        .map_or(Ok(Duration::from_secs(10)), |timeout| args::seconds("timeout", &timeout))?
        .min(Duration::from_secs(366 * 86_400));
    let load = Load {
        target,
        connections: number("connections", connections, 1, MOST_CONNECTIONS)? as usize,
        messages: number("messages", messages, 1_000, i64::MAX)? as u64,
        message,
        answer: answer
            .map(|answer| whole("answer", &answer, 1, MOST_SIZE))
            .transpose()?
            .map(|answer| answer as usize),
        rate: rate.map(|rate| self::rate(&rate)).transpose()?,
        timeout,
    };
    let driven = Attached::run(py, |waiter| load::drive(&load, waiter))?;
    drive_result(py, &driven)
}

/// The `rsock.DriveResult` of a run.
fn drive_result<'py>(py: Python<'py>, driven: &Driven) -> PyResult<Bound<'py, PyAny>> {
    let errors = PyDict::new(py);
    for (cause, count) in &driven.errors {
        errors.set_item(cause, count)?;
    }
    let fields = PyDict::new(py);
    fields.set_item("messages", driven.messages)?;
    fields.set_item("missing", driven.missing)?;
    fields.set_item("bytes", driven.bytes)?;
    fields.set_item("seconds", driven.elapsed.as_secs_f64())?;
    fields.set_item("errors", errors)?;
    fields.set_item("latency", driven.latency().map(|times| latencies(py, &times)).transpose()?)?;
    object(py, "DriveResult", &fields)
}

/// The `rsock.Latencies` of a run.
fn latencies<'py>(py: Python<'py>, times: &Latency) -> PyResult<Bound<'py, PyAny>> {
    let fields = PyDict::new(py);
    fields.set_item("min", times.min)?;
    fields.set_item("mean", times.mean)?;
    fields.set_item("p50", times.p50)?;
    fields.set_item("p90", times.p90)?;
    fields.set_item("p99", times.p99)?;
    fields.set_item("p999", times.p999)?;
    fields.set_item("max", times.max)?;
    object(py, "Latencies", &fields)
}

/// Bytes that differ from their neighbours, so that a shifted answer is a wrong one.
fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

fn rate(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    if !value.is_instance_of::<PyFloat>() && !value.is_instance_of::<PyInt>() {
        return Err(wrong_type("rate", "a number of messages per second, or None", value));
    }
    let rate: f64 = value.extract()?;
    if rate.is_finite() && rate > 0.0 {
        return Ok(rate);
    }
    Err(PyValueError::new_err(format!("rate {}: must be a number above 0", shown(value))))
}
