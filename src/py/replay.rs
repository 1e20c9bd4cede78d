//! The sides of a recording, played, for Python. Owns the checks of their arguments; must never play
//! an event itself.

use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use regex::bytes::{Regex, RegexBuilder};

use super::args::{self, shown, whole, wrong_type};
use super::error::exception;
use super::keywords::no_more;
use super::recording;
use super::script::{listed, result_object};
use super::service::Service;
use super::wait::Attached;
use crate::net::address::Transport;
use crate::net::load::replay;
use crate::net::recording::Recording;
use crate::net::service::Shape;
use crate::net::services::replay::{Choice, Chunks, Plan, Playing};
use crate::net::{self, services};

/// The longest time-out: longer than any test.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// The most memory of a compiled pattern, in bytes.
const MOST_PATTERN: usize = 1 << 20;
/// No datagram is longer.
const MOST_DATAGRAM: i64 = 65_535;

/// The compiled half of rsock.Replay.
#[pyclass(frozen, subclass, extends = Service, module = "rsock._rsock")]
pub(super) struct Replay {
    service: Arc<services::Replay>,
    path: PathBuf,
    transport: Transport,
    /// What was given besides the path, for equality.
    given: (Choice, Arc<Playing>, Vec<String>),
}

#[pymethods]
impl Replay {
    #[new]
    #[pyo3(signature = (path, *, connections=None, chunks=None, speed=None, timeout=None,
        carry=None, ignore=None, **unknown),
        text_signature = "(path, *, connections='in order', chunks='lenient', speed=None, \
        timeout=10.0, carry=(), ignore=())")]
    #[allow(clippy::too_many_arguments, reason = "the signature that users see")]
    fn make(
        py: Python<'_>,
        path: Bound<'_, PyAny>,
        connections: Option<Bound<'_, PyAny>>,
        chunks: Option<Bound<'_, PyAny>>,
        speed: Option<Bound<'_, PyAny>>,
        timeout: Option<Bound<'_, PyAny>>,
        carry: Option<Bound<'_, PyAny>>,
        ignore: Option<Bound<'_, PyAny>>,
        unknown: Option<Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        no_more(&py.get_type::<Self>(), unknown.as_ref())?;
        let choice = connections.as_ref().map_or(Ok(Choice::InOrder), choice)?;
        let carry = carry.as_ref().map_or(Ok(Vec::new()), ranges)?;
        let playing = playing(py, chunks, speed, timeout, carry)?;
        let ignored = ignore.as_ref().map_or(Ok(Vec::new()), patterns)?;
        let (path, recording) = read(&path)?;
        let service = services::Replay::new(&path, &recording, choice, &ignored, &playing)
            .map_err(|error| exception(py, error))?;
        let service = Arc::new(service);
        let shape = Shape::Stream(Arc::clone(&service) as Arc<dyn net::service::Service>);
        let ignored = ignored.iter().map(|pattern| pattern.as_str().to_owned()).collect();
        Ok(PyClassInitializer::from(Service { shape }).add_subclass(Self {
            service,
            path,
            transport: recording.transport,
            given: (choice, playing, ignored),
        }))
    }

    /// The path of the recording.
    #[getter]
    fn path(&self) -> OsString {
        self.path.clone().into_os_string()
    }

    /// "tcp", "unix" or "udp": what was recorded.
    #[getter]
    fn transport(&self) -> &'static str {
        self.transport.name()
    }

    /// The number of connections in the recording.
    fn __len__(&self) -> usize {
        self.service.connections()
    }

    fn __eq__(&self, other: &Self) -> bool {
        (&self.path, &self.given) == (&other.path, &other.given)
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        ("Replay", &self.path).hash(&mut hasher);
        hasher.finish()
    }

    // An empty recording is a service like any other.
    fn __bool__(&self) -> bool {
        true
    }

    /// How the dialogues with the clients went that have ended, a list of ScriptResult.
    ///
    /// A result is there before the client receives the last recorded bytes, and before the ledger
    /// shows the end of the connection; it changes if the client diverges after that. They are of
    /// all servers that were started with this object, one server after the other, and in each the
    /// oldest first; `Server.script_results` has those of one server. The last 10 000 of each of
    /// the last 1 000 servers are kept.
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

    /// End the dialogues of a server that has ended. For the Python half.
    fn _end(&self, server: u64) {
        self.service.end(server);
    }

    /// Forget the results so far.
    fn clear(&self) {
        self.service.clear();
    }
}

/// The client's side of a recording, to be played to a server.
///
/// It sends what the client sent, each piece when the server has answered what precedes it in the
/// recording, and compares the answers. `connection` is the number of the connection in the
/// recording. With `chunks` "lenient" the answers are one stream; with "exact" they must arrive in
/// the pieces of the recording, as far as TCP can show. `speed` 1.0 sends as fast as in the
/// recording, 2.0 twice as fast, and None at once. The server may take `timeout` seconds longer
/// than in the recording for each answer. `ignore` is a regular expression of bytes, or a list of
/// them: what they match in the recorded answers may be anything.
///
/// Reads the file. Raises OSError if it cannot be read; ValueError for a file that is no
/// recording, naming the line, for a connection that begins TLS, and for an argument that does not
/// fit it; TypeError for an argument of the wrong type.
#[pyclass(frozen, module = "rsock")]
pub(super) struct ReplayClient {
    plan: Arc<Plan>,
    playing: Arc<Playing>,
    path: PathBuf,
    transport: Transport,
    connection: u64,
}

#[pymethods]
impl ReplayClient {
    #[new]
    #[pyo3(signature = (path, connection=None, *, chunks=None, speed=None, timeout=None,
        ignore=None, **unknown),
        text_signature = "(path, connection=1, *, chunks='lenient', speed=None, timeout=10.0, \
        ignore=())")]
    #[allow(clippy::too_many_arguments, reason = "the signature that users see")]
    fn make(
        py: Python<'_>,
        path: Bound<'_, PyAny>,
        connection: Option<Bound<'_, PyAny>>,
        chunks: Option<Bound<'_, PyAny>>,
        speed: Option<Bound<'_, PyAny>>,
        timeout: Option<Bound<'_, PyAny>>,
        ignore: Option<Bound<'_, PyAny>>,
        unknown: Option<Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        no_more(&py.get_type::<Self>(), unknown.as_ref())?;
        let connection = connection
            .map_or(Ok(1), |connection| whole("connection", &connection, 1, i64::MAX))?
            as u64;
        let playing = playing(py, chunks, speed, timeout, Vec::new())?;
        let ignored = ignore.as_ref().map_or(Ok(Vec::new()), patterns)?;
        let (path, recording) = read(&path)?;
        let plan = Plan::of_client(&path, &recording, connection, &ignored, &playing)
            .map_err(|error| exception(py, error))?;
        Ok(Self { plan, playing, path, transport: recording.transport, connection })
    }

    /// The path of the recording.
    #[getter]
    fn path(&self) -> OsString {
        self.path.clone().into_os_string()
    }

    /// "tcp", "unix" or "udp": what was recorded.
    #[getter]
    fn transport(&self) -> &'static str {
        self.transport.name()
    }

    /// The number of the connection in the recording.
    #[getter]
    fn connection(&self) -> u64 {
        self.connection
    }

    /// Play the client's side to the server at `address`; return a ScriptResult.
    ///
    /// `address` is a (host, port) pair, or the path of a Unix socket. `timeout` is how long the
    /// connect may take, in seconds. Where the server diverges, `error` of the result is the
    /// report, and the connection is reset.
    ///
    /// Blocks, with the interpreter released, until everything was played or the server has
    /// diverged; Ctrl-C ends it. Raises OSError if the connect fails, TimeoutError after `timeout`
    /// seconds, socket.gaierror for an unknown host, and TypeError or ValueError for a wrong
    /// argument.
    #[pyo3(signature = (address, *, timeout=None), text_signature = "($self, address, *, timeout=10.0)")]
    fn run<'py>(
        &self,
        py: Python<'py>,
        address: Bound<'py, PyAny>,
        timeout: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let target = args::destination(&address)?;
        let timeout = time(timeout.as_ref())?;
        let result = Attached::run(py, |waiter| {
            replay(&self.plan, &self.playing, &target, timeout, waiter)
        })?;
        result_object(py, result)
    }

    fn __repr__(&self) -> String {
        format!("ReplayClient('{}', {})", self.path.display(), self.connection)
    }
}

fn time(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Duration> {
    let time =
        timeout.map_or(Ok(Duration::from_secs(10)), |timeout| args::seconds("timeout", timeout))?;
    Ok(time.min(LONGEST))
}

fn playing(
    py: Python<'_>,
    chunks: Option<Bound<'_, PyAny>>,
    speed: Option<Bound<'_, PyAny>>,
    timeout: Option<Bound<'_, PyAny>>,
    carry: Vec<Range<usize>>,
) -> PyResult<Arc<Playing>> {
    let chunks = match chunks {
        None => Chunks::Lenient,
        Some(chunks) => match args::text("chunks", &chunks)?.as_str() {
            "lenient" => Chunks::Lenient,
            "exact" => Chunks::Exact,
            _ => {
                return Err(PyValueError::new_err(format!(
                    "chunks {}: must be 'lenient' or 'exact'",
                    shown(&chunks)
                )));
            }
        },
    };
    let speed = speed.map(|speed| {
        let is_number = speed.is_instance_of::<PyFloat>() || speed.is_instance_of::<PyInt>();
        if !is_number || speed.is_instance_of::<PyBool>() {
            return Err(wrong_type("speed", "a number, or None", &speed));
        }
        speed.extract::<f64>()
    });
    let playing =
        Playing { chunks, speed: speed.transpose()?, timeout: time(timeout.as_ref())?, carry };
    playing.check().map_err(|error| exception(py, error))?;
    Ok(Arc::new(playing))
}

fn choice(value: &Bound<'_, PyAny>) -> PyResult<Choice> {
    if value.is_instance_of::<PyInt>() {
        return whole("connections", value, 1, i64::MAX).map(|number| Choice::Only(number as u64));
    }
    if !value.is_instance_of::<PyString>() {
        let wanted = "'in order', 'repeat', or the number of a connection";
        return Err(wrong_type("connections", wanted, value));
    }
    match args::text("connections", value)?.as_str() {
        "in order" => Ok(Choice::InOrder),
        "repeat" => Ok(Choice::Repeat),
        _ => Err(PyValueError::new_err(format!(
            "connections {}: must be 'in order', 'repeat', or the number of a connection",
            shown(value)
        ))),
    }
}

/// A sequence of (start, stop) pairs.
fn ranges(value: &Bound<'_, PyAny>) -> PyResult<Vec<Range<usize>>> {
    let wanted = "a list of (start, stop) pairs";
    let wrong = |_| wrong_type("carry", wanted, value);
    let pairs: Vec<Bound<'_, PyAny>> =
        value.try_iter().map_err(wrong)?.collect::<PyResult<_>>().map_err(wrong)?;
    let range = |pair: &Bound<'_, PyAny>| {
        let both = pair.cast::<PyTuple>().ok().filter(|pair| pair.len() == 2);
        let pair = both.ok_or_else(|| wrong_type("carry", wanted, value))?;
        let start = whole("carry", &pair.get_item(0)?, 0, MOST_DATAGRAM)?;
        let stop = whole("carry", &pair.get_item(1)?, start + 1, MOST_DATAGRAM + 1)?;
        Ok(start as usize..stop as usize)
    };
    pairs.iter().map(range).collect()
}

/// Regular expressions of bytes: one, or an iterable of them.
fn patterns(value: &Bound<'_, PyAny>) -> PyResult<Vec<Regex>> {
    let wanted = "a regular expression of bytes, or a list of them";
    let wrong = |_| wrong_type("ignore", wanted, value);
    let is_one = value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyString>();
    let all: Vec<Bound<'_, PyAny>> = if is_one {
        vec![value.clone()]
    } else {
        value.try_iter().map_err(wrong)?.collect::<PyResult<_>>().map_err(wrong)?
    };
    let pattern =
        |pattern: &Bound<'_, PyAny>| {
            let bytes = args::octets("ignore", pattern)?;
            let text = String::from_utf8(bytes).map_err(|_| {
                PyValueError::new_err(format!("ignore {}: a pattern is ASCII", shown(pattern)))
            })?;
            RegexBuilder::new(&text).unicode(false).size_limit(MOST_PATTERN).build().map_err(
                |error| PyValueError::new_err(format!("ignore {}: {error}", shown(pattern))),
            )
        };
    all.iter().map(pattern).collect()
}

/// Reads a recording, with the interpreter released.
fn read(path: &Bound<'_, PyAny>) -> PyResult<(PathBuf, Recording)> {
    let py = path.py();
    let path = recording::file("path", path)?;
    let recording = py.detach(|| Recording::read(&path)).map_err(|error| exception(py, error))?;
    Ok((path, recording))
}
