//! The services in Rust for Python: one entry each in a list. Must never do what a service does.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use pyo3::Borrowed;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use super::args::{self, whole};
use super::error::exception;
use super::service::Service;
use crate::net::service::Shape;
use crate::net::{self, services};

/// Makes the Python class of each service: its doc, its signature as Python shows it, its arguments, and
/// how the engine's own is made of them. One entry here registers a service. Two are equal when the
/// engine's are.
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
            #[pyo3(signature = ($($argument = Argument::Default),*), text_signature = $text)]
            #[allow(unused_variables, reason = "some need no interpreter")]
            pub(super) fn make(
                $py: Python<'_>,
                $($argument: Argument<'_>),*
            ) -> PyResult<PyClassInitializer<Self>> {
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
    /// Sends back whatever it receives, until the peer has finished (RFC 862). Served by Rust threads
    /// alone: it never needs the interpreter.
    Echo "()" (py) => services::Echo;

    /// Sends whole lines back. The line `quit` (bytes, or a str for its UTF-8) is not echoed and closes the
    /// connection; None is no such line. A line ends with LF or CR LF, which is sent back unless
    /// `newline` is False; what has no ending when the peer has finished is a line as well.
    ///
    /// `limit` is for a whole line in bytes, its ending included; the smaller of it and `Limits.line`
    /// holds, and a longer line ends the connection (`closed_by` "limit"). Raises TypeError and
    /// ValueError for what cannot be, naming it: a `quit` with an end of a line in it, for example.
    LineEcho "(quit=b'exit', newline=True, limit=65_536)" (py, quit, newline, limit) => {
        let quit = quit.or(|| Ok(Some(b"exit".to_vec())), |quit| {
            if quit.is_none() { Ok(None) } else { args::octets("quit", &quit).map(Some) }
        })?;
        let newline = newline.or(|| Ok(true), |newline| args::boolean("newline", &newline))?;
        let limit = limit.or(|| Ok(65_536), |limit| whole("limit", &limit, 1, MOST_LINE))?;
        raised(py, services::LineEcho::new(quit.as_deref(), newline, limit as usize))?
    };

    /// Reads and throws away, until the peer has finished (RFC 863). It never answers.
    Discard "()" (py) => services::Discard;

    /// Sends the 95 printing characters of ASCII in lines of 72, each line beginning one further, without
    /// end (RFC 864), as fast as the peer reads. Throws away what it receives; ends when the
    /// peer does.
    Chargen "()" (py) => services::Chargen;

    /// Sends date and time in UTC as a line for people, and closes (RFC 867):
    /// `Monday, February 22, 1982 17:37:43-UTC`.
    Daytime "()" (py) => services::Daytime;

    /// Sends the seconds since 1900 as 32 bits, most significant byte first, and closes (RFC 868). In
    /// 2036 they begin at 0 again.
    Time "()" (py) => services::Time;

    /// Sends `text` (bytes, or a str for its UTF-8) as it is, and closes: the quote of the day (RFC 865).
    /// ValueError where it is not shorter than 512 bytes.
    Quote "(text)" (py, text) => {
        let text = text.needed("Quote", "text")?;
        raised(py, services::Quote::new(&args::octets("text", &text)?))?
    };

    /// Sends `message` (bytes, or a str for its UTF-8) as it is, of any length, and closes. The peer gets
    /// all of it, whatever it sends meanwhile.
    Greeting "(message)" (py, message) => {
        let message = message.needed("Greeting", "message")?;
        services::Greeting::new(&args::octets("message", &message)?)
    };
}

/// The most that LineEcho(limit=…) may be, as Limits.line.
const MOST_LINE: i64 = 1 << 30;

/// An argument of a service: given, or not, which None is not.
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
