//! The conversion of Python arguments to types of the engine. Owns their checks, which name the
//! value in every error; must never open anything, nor call a resolver.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PyString, PyTuple};

use super::buffer::Source;
use super::error::exception;
use super::imports;
use super::service::Service;
use crate::net::address::{
    Address, ConnectSource, Network, Target, Transport, UnixName, host_text, port_named,
};
use crate::net::control::{Limits, Overflow};
use crate::net::ledger::TraceLimits;
use crate::net::stream::FrameHeader;

/// An argument of a constructor; None if it was not passed.
pub(super) type Argument<'py> = Option<Bound<'py, PyAny>>;

/// The repr of a value for a message, cut to 80 characters.
pub(super) fn shown(value: &Bound<'_, PyAny>) -> String {
    let text = value
        .repr()
        .map_or_else(|_| "<unprintable>".to_owned(), |text| text.to_string_lossy().into_owned());
    if text.chars().count() > 80 { text.chars().take(79).chain(['…']).collect() } else { text }
}

/// A TypeError such as "port must be …, not float: 1.5".
pub(super) fn wrong_type(name: &str, wanted: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let kind = value.get_type().name().map_or_else(|_| "?".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("{name} must be {wanted}, not {kind}: {}", shown(value)))
}

/// A str without surrogates.
pub(super) fn text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = value.cast::<PyString>().map_err(|_| wrong_type(name, "a str", value))?;
    text.to_str()
        .map(str::to_owned)
        .map_err(|_| PyValueError::new_err(format!("{name} {}: not valid text", shown(value))))
}

/// Whether a value is a service, or a function that could be a handler.
fn serves(value: &Bound<'_, PyAny>) -> bool {
    value.is_instance_of::<Service>() || value.is_callable()
}

/// The error for a service where a port is expected.
fn wrong_port(value: &Bound<'_, PyAny>) -> PyErr {
    wrong_type("port", "an int or a name such as 'http' (what serves is service=…)", value)
}

/// The error for a host that is no str, with the argument that was meant.
fn no_host(value: &Bound<'_, PyAny>) -> PyErr {
    let wanted = match value {
        _ if value.is_instance_of::<PyInt>() && !value.is_instance_of::<PyBool>() => {
            format!("a str (a port without a host is port={})", shown(value))
        }
        _ if serves(value) => "a str (what serves is service=…)".to_owned(),
        _ if value.hasattr("__fspath__").unwrap_or(false) => {
            "a str (a Unix socket is path=…)".to_owned()
        }
        _ if value.is_instance_of::<PyList>() => "a str, or a (host, port) tuple".to_owned(),
        _ if value.get_type().hasattr("address").unwrap_or(false) => {
            "a str (a server's is *server.address, and server.client() connects to it)".to_owned()
        }
        _ => "a str".to_owned(),
    };
    wrong_type("host", &wanted, value)
}

/// The error for a host without a port whose text has one, or is one; None for any other.
pub(super) fn port_in_host(host: &Bound<'_, PyAny>) -> Option<PyErr> {
    let host = host.cast::<PyString>().ok()?.to_str().ok()?;
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    // "0" is an address, which inet_aton(3) reads as 0.0.0.0.
    if is_port(host) && host != "0" {
        return Some(PyValueError::new_err(format!(
            "host {host:?}: a number; a port without a host is port={host}"
        )));
    }
    let (name, port) = host.rsplit_once(':')?;
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let plain = host.starts_with('[') || !name.contains(':');
    (plain && is_port(port) && !name.is_empty()).then(|| {
        PyValueError::new_err(format!(
            "host {host:?}: has a port in it; did you mean ({name:?}, {port})?"
        ))
    })
}

/// A host as text. A name that is not ASCII is encoded with IDNA, as `socket` does.
fn host_name(value: &Bound<'_, PyAny>) -> PyResult<String> {
    if !value.is_instance_of::<PyString>() {
        return Err(no_host(value));
    }
    let host = text("host", value)?;
    if host.is_ascii() || host.len() > 1000 {
        return Ok(host);
    }
    let encoded = value
        .call_method1("encode", ("idna",))
        .and_then(|bytes| bytes.call_method1("decode", ("ascii",)));
    match encoded {
        Ok(name) => text("host", &name),
        Err(_) => Err(PyValueError::new_err(format!(
            "host {}: not a name that IDNA can encode",
            shown(value)
        ))),
    }
}

/// The path of a Unix socket as `socket` takes it: str, bytes or os.PathLike. A NUL at its start
/// makes it an abstract name.
pub(super) fn path(value: &Bound<'_, PyAny>) -> PyResult<UnixName> {
    let py = value.py();
    let wanted = "a path: str, bytes or os.PathLike";
    let plain = py.import("os")?.call_method1("fspath", (value,));
    let plain = plain.map_err(|_| wrong_type("path", wanted, value))?;
    let name = if let Ok(bytes) = plain.cast::<PyBytes>() {
        UnixName::new(bytes.as_bytes())
    } else {
        // As os.fsencode, which fails only for lone surrogates.
        let text: OsString = plain
            .extract()
            .map_err(|_| PyValueError::new_err(format!("path {}: not valid text", shown(value))))?;
        UnixName::new(text.as_bytes())
    };
    name.map_err(|error| exception(py, error))
}

/// The argument `transport`; None if it was not passed.
pub(super) fn transport(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Transport>> {
    let Some(value) = value else { return Ok(None) };
    match text("transport", value)?.as_str() {
        "tcp" => Ok(Some(Transport::Tcp)),
        "udp" => Ok(Some(Transport::Udp)),
        "unix" => Ok(Some(Transport::Unix)),
        "unix-datagram" => Ok(Some(Transport::UnixDatagram)),
        _ => Err(PyValueError::new_err(format!(
            "transport {}: must be 'tcp', 'udp', 'unix' or 'unix-datagram'",
            shown(value)
        ))),
    }
}

/// The Unix socket that `path=` or the transport names: Some(None) is one without a path, None
/// means another transport. `others` are the arguments that contradict a path.
pub(super) fn unix(
    path_: Option<&Bound<'_, PyAny>>,
    transport_: Option<Transport>,
    others: &[(&str, Option<&Bound<'_, PyAny>>)],
) -> PyResult<Option<Option<UnixName>>> {
    let Some(value) = path_ else {
        return Ok(transport_.is_some_and(Transport::is_unix).then_some(None));
    };
    let name = path(value)?;
    let other = others.iter().find_map(|(name, other)| Some((name, other.as_ref()?)));
    if let Some((other, given)) = other {
        return Err(PyValueError::new_err(format!(
            "path={} and {other}={} are two transports; give path= alone for a Unix socket, or a host and a \
             port for TCP",
            shown(value),
            shown(given)
        )));
    }
    match transport_ {
        None | Some(Transport::Unix | Transport::UnixDatagram) => Ok(Some(Some(name))),
        Some(transport_) => Err(PyValueError::new_err(format!(
            "path={} and transport='{}' are two transports; give path= alone for a Unix socket, or a host \
             and a port",
            shown(value),
            transport_.name()
        ))),
    }
}

/// A port: an int from 0 to 65535, or the name of a service.
pub(super) fn port(value: &Bound<'_, PyAny>) -> PyResult<u16> {
    if value.is_instance_of::<PyString>() {
        return port_named(&text("port", value)?).map_err(|error| exception(value.py(), error));
    }
    if serves(value) {
        return Err(wrong_port(value));
    }
    if value.is_instance_of::<PyBool>() || value.is_instance_of::<PyFloat>() {
        return Err(wrong_type("port", "an int or the name of a service", value));
    }
    // By __index__, as `socket` does.
    let number: Bound<'_, PyAny> =
        value
            .py()
            .import("operator")?
            .call_method1("index", (value,))
            .map_err(|_| wrong_type("port", "an int or the name of a service", value))?;
    number.extract().map_err(|_| {
        PyOverflowError::new_err(format!("port {}: must be from 0 to 65535", shown(value)))
    })
}

/// A host and port: two arguments, or a pair (for IPv6 also a 4-tuple) as the first.
pub(super) fn target(
    host: &Bound<'_, PyAny>,
    port_: Option<&Bound<'_, PyAny>>,
) -> PyResult<Target> {
    let py = host.py();
    let Ok(pair) = host.cast::<PyTuple>() else {
        if let Some(error) = port_in_host(host).filter(|_| port_.is_none()) {
            return Err(error);
        }
        let number = port_.map_or(Ok(0), port)?;
        let host = host_name(host)?;
        return Target::new(&host, number).map_err(|error| exception(py, error));
    };
    if let Some(port_) = port_ {
        if serves(port_) {
            return Err(wrong_port(port_));
        }
        return Err(PyTypeError::new_err(format!(
            "address {} has a port already; port={} is one too many",
            shown(host),
            shown(port_)
        )));
    }
    address(pair)
}

/// An address as `socket` takes it: (host, port), or for IPv6 also (host, port, flowinfo, scope).
pub(super) fn address(value: &Bound<'_, PyAny>) -> PyResult<Target> {
    let wanted = "a (host, port) pair";
    let pair = value.cast::<PyTuple>().map_err(|_| wrong_type("address", wanted, value))?;
    if pair.len() != 2 && pair.len() != 4 {
        return Err(wrong_type("address", wanted, value));
    }
    let number = port(&pair.get_item(1)?)?;
    let mut host = host_name(&pair.get_item(0)?)?;
    if pair.len() == 4 {
        let scope: u32 = pair.get_item(3)?.extract()?;
        if scope != 0 && !host.contains('%') {
            host = format!("{host}%{scope}");
        }
    }
    Target::new(&host, number).map_err(|error| exception(value.py(), error))
}

/// An address to connect or bind to, as `socket` takes it: a pair, or the path of a Unix socket.
pub(super) fn destination(value: &Bound<'_, PyAny>) -> PyResult<Target> {
    if value.is_instance_of::<PyTuple>() {
        return address(value);
    }
    let is_path = value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyBytes>()
        || value.hasattr("__fspath__")?;
    if is_path {
        return path(value).map(Target::unix);
    }
    Err(wrong_type("address", "a (host, port) pair, or the path of a Unix socket", value))
}

/// The argument `source_address`: a pair, whose host may be empty for any address.
pub(super) fn source(value: &Bound<'_, PyAny>) -> PyResult<ConnectSource> {
    if let Ok((host, number)) = value.extract::<(String, Bound<'_, PyAny>)>() {
        if host.is_empty() {
            return port(&number).map(ConnectSource::any);
        }
    }
    if !value.is_instance_of::<PyTuple>() {
        return Err(wrong_type("source_address", "a (host, port) pair", value));
    }
    address(value).map(ConnectSource::of)
}

/// The header of a frame: a format of the struct module with one integer; None is ">I".
pub(super) fn frame_header(value: Option<&Bound<'_, PyAny>>) -> PyResult<FrameHeader> {
    let Some(value) = value else {
        return Ok(FrameHeader { size: 4, little: false, signed: false });
    };
    let wanted = "a format of the struct module, such as '>I'";
    let text = value.cast::<PyString>().map_err(|_| wrong_type("header", wanted, value))?;
    let text = text.to_string_lossy();
    let (order, code) = match text.chars().next() {
        Some(order @ ('@' | '=' | '<' | '>' | '!')) => (order, &text[1..]),
        _ => ('@', &*text),
    };
    let native = order == '@';
    // The sizes of the C types on the systems that Linux has ('@'), and those of the module.
    let size = match code {
        "b" | "B" => 1,
        "h" | "H" => 2,
        "i" | "I" => 4,
        "l" | "L" if native => size_of::<std::ffi::c_long>(),
        "l" | "L" => 4,
        "q" | "Q" => 8,
        "n" | "N" if native => size_of::<usize>(),
        _ => {
            return Err(PyValueError::new_err(format!(
                "header {}: must be a format of the struct module with one integer, such as '>I'",
                shown(value)
            )));
        }
    };
    let little = match order {
        '<' => true,
        '>' | '!' => false,
        _ => cfg!(target_endian = "little"),
    };
    Ok(FrameHeader { size, little, signed: code.chars().all(|code| code.is_ascii_lowercase()) })
}

/// An address as `socket` returns it: a pair, or a 4-tuple for IPv6; a path as str, an abstract
/// name as bytes.
pub(super) fn socket_address<'py>(
    py: Python<'py>,
    address: &Address,
) -> PyResult<Bound<'py, PyAny>> {
    let tuple = match address {
        Address::Ip(address @ SocketAddr::V4(_)) => {
            (host_text(address), address.port()).into_pyobject(py)
        }
        Address::Ip(address @ SocketAddr::V6(v6)) => {
            (host_text(address), v6.port(), v6.flowinfo(), v6.scope_id()).into_pyobject(py)
        }
        Address::Unix(name) if name.is_abstract() => {
            return Ok(PyBytes::new(py, name.bytes()).into_any());
        }
        Address::Unix(_) => return user_address(py, address),
    };
    tuple.map(Bound::into_any)
}

/// An address as rsock's own properties show it: always a pair, or the name of a Unix socket as
/// str.
pub(super) fn user_address<'py>(py: Python<'py>, address: &Address) -> PyResult<Bound<'py, PyAny>> {
    match address {
        Address::Ip(address) => {
            (host_text(address), address.port()).into_pyobject(py).map(Bound::into_any)
        }
        Address::Unix(name) => name_text(py, name).map(Bound::into_any),
    }
}

/// The sender of a datagram: an `rsock.Sender`, with the address that the datagram was sent to; the
/// name of a Unix socket, which has one address only.
pub(super) fn sender<'py>(
    py: Python<'py>,
    from: &Address,
    to: &Address,
) -> PyResult<Bound<'py, PyAny>> {
    if from.as_unix().is_some() {
        return user_address(py, from);
    }
    imports::class(py, "Sender")?.call1((user_address(py, from)?, user_address(py, to)?))
}

/// The name of a Unix socket as str, as os.fsdecode returns it: empty if it has none.
pub(super) fn name_text<'py>(py: Python<'py>, name: &UnixName) -> PyResult<Bound<'py, PyString>> {
    OsStr::from_bytes(name.bytes()).into_pyobject(py).map_err(Into::into)
}

/// A time-out in seconds; None means no time-out. More than the kernel's clocks hold (292 years in
/// nanoseconds), infinity included, is an OverflowError, as in socket.settimeout.
pub(super) fn timeout(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    let Some(value) = value else { return Ok(None) };
    let duration = seconds(name, value)?;
    if i64::try_from(duration.as_nanos()).is_err() {
        return Err(PyOverflowError::new_err(format!(
            "{name} {}: too many seconds; None means no time-out",
            shown(value)
        )));
    }
    Ok(Some(duration))
}

/// A number of seconds, not negative. Infinity, or an int above the range of float, is
/// `Duration::MAX`.
pub(super) fn seconds(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Duration> {
    let number: f64 = match value.extract() {
        Ok(number) if !value.is_instance_of::<PyBool>() => number,
        Err(_) if value.is_instance_of::<PyInt>() => {
            if value.gt(0)? {
                f64::INFINITY
            } else {
                f64::NEG_INFINITY
            }
        }
        _ => return Err(wrong_type(name, "a number of seconds", value)),
    };
    if number.is_nan() || number < 0.0 {
        return Err(PyValueError::new_err(format!(
            "{name} {}: must be a number of seconds from 0",
            shown(value)
        )));
    }
    let duration = Duration::try_from_secs_f64(number).unwrap_or(Duration::MAX);
    // Rounded up to 1 ns, because a time-out of 0 has another meaning.
    Ok(if number > 0.0 { duration.max(Duration::from_nanos(1)) } else { duration })
}

/// A whole number within a range.
pub(super) fn whole(name: &str, value: &Bound<'_, PyAny>, least: i64, most: i64) -> PyResult<i64> {
    if !value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>() {
        return Err(wrong_type(name, "an int", value));
    }
    value.extract::<i64>().ok().filter(|number| (least..=most).contains(number)).ok_or_else(|| {
        PyValueError::new_err(format!("{name} {}: must be from {least} to {most}", shown(value)))
    })
}

/// A bool; other objects are refused, whatever their truth value.
pub(super) fn boolean(name: &str, value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.extract().map_err(|_| wrong_type(name, "True or False", value))
}

/// Bytes that a service sends or compares: a bytes-like object, or a str, encoded as UTF-8.
pub(super) fn octets(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if value.is_instance_of::<PyString>() {
        return Ok(text(name, value)?.into_bytes());
    }
    let source =
        Source::new(value.clone()).map_err(|_| wrong_type(name, "bytes or a str", value))?;
    Ok(source.as_slice().to_vec())
}

/// The length argument of a read, not negative.
pub(super) fn length(name: &str, value: isize) -> PyResult<usize> {
    usize::try_from(value)
        .map_err(|_| PyValueError::new_err(format!("{name} {value}: must not be negative")))
}

/// An optional str.
pub(super) fn optional_text(
    name: &str,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<String>> {
    value.map(|value| text(name, value)).transpose()
}

/// The end of a time-out that starts now.
pub(super) fn deadline(timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| Instant::now().checked_add(timeout))
}

/// A bool, as `boolean`; False if it was not passed.
pub(super) fn flag(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
    value.map_or(Ok(false), |value| boolean(name, value))
}

/// The bounds of a trace: False for no trace, True for the default bounds, or a `rsock.Trace`,
/// which has checked them.
pub(super) fn trace(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<TraceLimits>> {
    let Some(value) = value else { return Ok(None) };
    let class = imports::class(value.py(), "Trace")?;
    let given = match value.cast::<PyBool>() {
        Ok(wanted) if !wanted.is_true() => return Ok(None),
        Ok(_) => class.call0()?,
        Err(_) if value.is_instance(&class)? => value.clone(),
        Err(_) => return Err(wrong_type("trace", "True, False or a Trace", value)),
    };
    let bytes = given.getattr("bytes")?.extract()?;
    Ok(Some(TraceLimits { bytes, events: given.getattr("events")?.extract()? }))
}

/// Networks: an iterable of str; a single one will do.
pub(super) fn networks(name: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Network>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let one = |value: &Bound<'_, PyAny>| {
        let text = value
            .cast::<PyString>()
            .map_err(|_| wrong_type(name, "networks such as '10.0.0.0/8', or 'unix'", value))?;
        let text = text.to_string_lossy();
        Network::parse(name, &text).map_err(|error| exception(value.py(), error))
    };
    if value.is_instance_of::<PyString>() {
        return Ok(vec![one(value)?]);
    }
    let each =
        value.try_iter().map_err(|_| wrong_type(name, "networks such as ['10.0.0.0/8']", value))?;
    each.map(|each| one(&each?)).collect()
}

/// `SocketOptions()` and `Limits()`, created at their first use.
pub(super) static DEFAULT_OPTIONS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
pub(super) static DEFAULT_LIMITS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// An object of a frozen dataclass of `rsock._types`: the one that was passed, or all defaults.
pub(super) fn settings<'py>(
    py: Python<'py>,
    name: &str,
    class: &str,
    defaults: &'static PyOnceLock<Py<PyAny>>,
    value: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(value) = value else {
        // The dataclass is frozen: all calls without the argument can share one object.
        let default = defaults
            .get_or_try_init(py, || imports::class(py, class)?.call0().map(Bound::unbind))?;
        return Ok(default.bind(py).clone());
    };
    let class = imports::class(py, class)?;
    if value.is_instance(&class)? {
        return Ok(value);
    }
    Err(wrong_type(name, &format!("a {}", class.getattr("__name__")?), &value))
}

/// The fields of `rsock.Limits` that are implemented. The class has checked them.
#[derive(FromPyObject)]
struct LimitsFields {
    connections: Option<usize>,
    per_host: Option<usize>,
    overflow: String,
    accept_rate: Option<f64>,
    handshakes: Option<usize>,
    idle: Option<f64>,
    first_byte: Option<f64>,
    write: Option<f64>,
    half_close: Option<f64>,
    lifetime: Option<f64>,
    line: usize,
    write_buffer: usize,
    datagram: Option<usize>,
    handler_threads: usize,
}

/// The engine's limits from `rsock.Limits`.
pub(super) fn limits(value: &Bound<'_, PyAny>, transport: Transport) -> PyResult<Limits> {
    let fields: LimitsFields = value.extract()?;
    let time = |seconds: Option<f64>| {
        seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    };
    Ok(Limits {
        connections: fields.connections,
        per_host: fields.per_host,
        overflow: if fields.overflow == "refuse" { Overflow::Refuse } else { Overflow::Wait },
        accept_rate: fields.accept_rate,
        handshakes: fields.handshakes,
        idle: time(fields.idle),
        first_byte: time(fields.first_byte),
        write: time(fields.write),
        half_close: time(fields.half_close),
        lifetime: time(fields.lifetime),
        line: fields.line,
        write_buffer: fields.write_buffer,
        datagram: fields.datagram.unwrap_or_else(|| Limits::usual_datagram(transport)),
        handler_threads: fields.handler_threads,
    })
}
