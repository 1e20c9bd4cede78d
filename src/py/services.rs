//! The Python classes of the services in Rust: one entry each in a list. Owns their arguments; must
//! never serve a connection.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pyo3::Borrowed;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::args::{self, whole};
use super::error::exception;
use super::keywords::no_more;
use super::service::Service;
use crate::net::service::Shape;
use crate::net::{self, services};

/// Makes the Python class of each service from its docstring, its signature as Python shows it, its
/// arguments, and the expression that makes the engine's service from them. One entry here
/// registers a service. Two objects are equal if their engine services are.
macro_rules! services {
    ($(
        $(#[$doc:meta])*
        $name:ident $text:tt ($py:ident $(, $argument:ident)*) => $make:expr;
    )*) => {$(
        $(#[$doc])*
        #[pyclass(frozen, extends = Service, module = "rsock")]
        pub(super) struct $name {
            service: Arc<services::$name>,
        }

        #[pymethods]
        impl $name {
            #[new]
            #[pyo3(signature = ($($argument = Argument::Default,)* **unknown), text_signature = $text)]
            #[allow(unused_variables, reason = "not every entry needs the interpreter")]
            pub(super) fn make(
                $py: Python<'_>,
                $($argument: Argument<'_>,)*
                unknown: Option<Bound<'_, PyDict>>,
            ) -> PyResult<PyClassInitializer<Self>> {
                no_more(&$py.get_type::<Self>(), unknown.as_ref())?;
                let service = Arc::new($make);
                let shape = Shape::Stream(Arc::clone(&service) as Arc<dyn net::service::Service>);
                Ok(PyClassInitializer::from(Service { shape }).add_subclass(Self { service }))
            }

            fn __eq__(&self, other: &Self) -> bool {
                self.service == other.service
            }

            fn __hash__(&self) -> u64 {
                let mut hasher = DefaultHasher::new();
                (stringify!($name), &self.service).hash(&mut hasher);
                hasher.finish()
            }
        }
    )*};
}

services! {
    /// A service that sends back all it receives, until the peer has finished (RFC 862).
    ///
    /// Rust threads serve it; it never needs the interpreter.
    Echo "()" (py) => services::Echo;

    /// A service that sends back whole lines.
    ///
    /// The line `quit` (bytes, or a str, which is encoded as UTF-8) closes the connection and is
    /// not echoed; if `quit` is None, no line does. A line ends with LF or CR LF, which is sent
    /// back unless `newline` is False. Bytes without a line ending count as a line once the peer
    /// has finished.
    ///
    /// `limit` is the maximum length of a line in bytes, its ending included. The smaller of
    /// `limit` and `Limits.line` applies; a longer line ends the connection (`closed_by` is
    /// "limit").
    ///
    /// Raises TypeError or ValueError, naming the argument, for a value that is not allowed, such
    /// as a `quit` that contains a line ending.
    LineEcho "(quit=b'exit', newline=True, limit=65_536)" (py, quit, newline, limit) => {
        let quit = quit.or(|| Ok(Some(b"exit".to_vec())), |quit| {
            if quit.is_none() { Ok(None) } else { args::octets("quit", &quit).map(Some) }
        })?;
        let newline = newline.or(|| Ok(true), |newline| args::boolean("newline", &newline))?;
        let limit = limit.or(|| Ok(65_536), |limit| whole("limit", &limit, 1, MOST_LINE))?;
        raised(py, services::LineEcho::new(quit.as_deref(), newline, limit as usize))?
    };

    /// A service that reads and discards, until the peer has finished (RFC 863).
    ///
    /// It never answers.
    Discard "()" (py) => services::Discard;

    /// A service that sends characters without end, as fast as the peer reads (RFC 864).
    ///
    /// It sends the 95 printing characters of ASCII in lines of 72; each line starts one character
    /// further on. It discards what it receives, and ends when the peer does.
    Chargen "()" (py) => services::Chargen;

    /// A service that sends the date and time as a line of text, and closes (RFC 867).
    ///
    /// The time is UTC: `Monday, February 22, 1982 17:37:43-UTC`.
    Daytime "()" (py) => services::Daytime;

    /// A service that sends the number of seconds since 1900, and closes (RFC 868).
    ///
    /// The number has 32 bits, the most significant byte first. It wraps around to 0 in 2036.
    Time "()" (py) => services::Time;

    /// A service that sends `text` unchanged, and closes: the quote of the day (RFC 865).
    ///
    /// `text` is bytes, or a str, which is encoded as UTF-8. Raises ValueError unless it is shorter
    /// than 512 bytes.
    Quote "(text)" (py, text) => {
        let text = text.needed("Quote", "text")?;
        raised(py, services::Quote::new(&args::octets("text", &text)?))?
    };

    /// A service that sends `message` unchanged, and closes.
    ///
    /// `message` is bytes, or a str, which is encoded as UTF-8; its length is not limited. The peer
    /// receives all of it, even if it sends data meanwhile.
    Greeting "(message)" (py, message) => {
        let message = message.needed("Greeting", "message")?;
        services::Greeting::new(&args::octets("message", &message)?)
    };
}

/// The maximum of LineEcho(limit=…), the same as that of Limits.line.
const MOST_LINE: i64 = 1 << 30;

/// An argument of a service. None counts as given.
pub(super) enum Argument<'py> {
    Default,
    Given(Bound<'py, PyAny>),
}

impl<'py> FromPyObject<'_, 'py> for Argument<'py> {
    type Error = std::convert::Infallible;

    fn extract(value: Borrowed<'_, 'py, PyAny>) -> Result<Self, Self::Error> {
        Ok(Self::Given(value.to_owned()))
    }
}

impl<'py> Argument<'py> {
    fn or<T>(
        self,
        default: impl FnOnce() -> PyResult<T>,
        given: impl FnOnce(Bound<'py, PyAny>) -> PyResult<T>,
    ) -> PyResult<T> {
        match self {
            Self::Default => default(),
            Self::Given(value) => given(value),
        }
    }

    fn needed(self, service: &str, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.or(|| Err(PyTypeError::new_err(format!("{service}() needs an argument: {name}"))), Ok)
    }
}

fn raised<T>(py: Python<'_>, result: net::error::Result<T>) -> PyResult<T> {
    result.map_err(|error| exception(py, error))
}
