//! The arguments of Client. Owns their check; must never open anything, nor connect.

use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyTuple};

use super::args::{self, Argument, settings};
use super::error::exception;
use super::fault_objects::FaultObjects;
use super::faults;
use super::proxy;
use super::socket_options::socket_options;
use crate::net::address::{ConnectSource, Target, Transport};
use crate::net::handoff::ClientFaults;
use crate::net::socket::SocketOptions;
use crate::net::stage::tls::TlsClient;
use crate::net::stream::Preface;

/// The longest that a wait may spin, in seconds. A longer spin only uses CPU time.
const MOST_SPIN: f64 = 0.01;

/// The arguments as they were passed.
pub(super) struct ClientArguments<'py> {
    pub(super) host: Argument<'py>,
    pub(super) port: Argument<'py>,
    pub(super) timeout: Argument<'py>,
    pub(super) transport: Argument<'py>,
    pub(super) path: Argument<'py>,
    pub(super) options: Argument<'py>,
    pub(super) source_address: Argument<'py>,
    pub(super) spin: f64,
    pub(super) retry: Argument<'py>,
    pub(super) faults: Argument<'py>,
    pub(super) seed: Argument<'py>,
    pub(super) tls: Argument<'py>,
    pub(super) proxy_protocol: Argument<'py>,
}

/// What a client is made of.
pub(super) struct CheckedClient {
    /// None for a client that is connected later.
    pub(super) target: Option<Target>,
    pub(super) transport: Transport,
    pub(super) timeout: Option<Duration>,
    pub(super) options: SocketOptions,
    pub(super) source: Option<ConnectSource>,
    pub(super) spin: Duration,
    pub(super) retry: Option<Duration>,
    pub(super) own: Option<OwnFaults>,
    /// The header of the PROXY protocol that it sends first.
    pub(super) preface: Option<Preface>,
}

/// The faults of a client, with the objects that were passed.
pub(super) struct OwnFaults {
    pub(super) inner: Arc<ClientFaults>,
    pub(super) objects: FaultObjects,
}

impl<'py> ClientArguments<'py> {
    /// Checks all arguments. The first error names one of them, or two that contradict each other.
    pub(super) fn check(self, py: Python<'py>) -> PyResult<CheckedClient> {
        let (target, transport) = self.place()?;
        let timeout = args::timeout("timeout", self.timeout.as_ref())?;
        let options =
            settings(py, "options", "SocketOptions", &args::DEFAULT_OPTIONS, self.options)?;
        let options = socket_options(&options)?;
        let source = self.source_address.map(|source| args::source(&source)).transpose()?;
        let spin = spin(self.spin)?;
        let retry = self.retry.map(|retry| args::seconds("retry", &retry)).transpose()?;
        if let (Some(retry), Some(Duration::ZERO)) = (retry, timeout) {
            return Err(PyValueError::new_err(format!(
                "retry={} and timeout=0: a call that never waits cannot try again",
                retry.as_secs_f64()
            )));
        }
        let tls = super::tls::of_client(self.tls.as_ref())?;
        let own = own_faults(py, transport, self.faults.as_ref(), self.seed.as_ref(), tls)?;
        // It connects within the constructor, and must not wait there.
        let is_hasty = target.is_some() && timeout == Some(Duration::ZERO);
        if own.is_some() && is_hasty {
            return Err(PyValueError::new_err(
                "faults=… and timeout=0, or tls=…: a client with stages has to wait for its \
                 connection; call settimeout(0) after it",
            ));
        }
        let preface = self.proxy_protocol.map(|value| proxy::preface(&value)).transpose()?;
        if preface.is_some() && transport.is_datagram() {
            return Err(PyValueError::new_err(
                "proxy_protocol: a header comes before the bytes of a stream, and datagrams are none",
            ));
        }
        if preface.is_some() && is_hasty {
            return Err(PyValueError::new_err(
                "proxy_protocol=… and timeout=0: a client that sends a header has to wait for its \
                 connection; call settimeout(0) after it",
            ));
        }
        Ok(CheckedClient { target, transport, timeout, options, source, spin, retry, own, preface })
    }

    /// Where the client will connect, and by which transport.
    fn place(&self) -> PyResult<(Option<Target>, Transport)> {
        let transport = args::transport(self.transport.as_ref())?;
        let others = [
            ("host", self.host.as_ref()),
            ("port", self.port.as_ref()),
            ("source_address", self.source_address.as_ref()),
        ];
        let Some(name) = args::unix(self.path.as_ref(), transport, &others)? else {
            return Ok((self.target()?, transport.unwrap_or(Transport::Tcp)));
        };
        if let Some((other, _)) = others.iter().find(|(_, other)| other.is_some()) {
            return Err(PyValueError::new_err(format!(
                "{other}= is for TCP and UDP, and transport='unix' is neither; give path= instead"
            )));
        }
        Ok((name.map(Target::unix), transport.unwrap_or(Transport::Unix)))
    }

    /// The host and port to connect to; None without both.
    fn target(&self) -> PyResult<Option<Target>> {
        let missing = |text: String| Err(PyTypeError::new_err(text));
        match (&self.host, &self.port) {
            (None, None) => Ok(None),
            (None, Some(_)) => {
                missing("Client(port=…) needs a host too: Client(host, port)".to_owned())
            }
            (Some(host), Some(port)) => args::target(host, Some(port)).map(Some),
            (Some(pair), None) if pair.is_instance_of::<PyTuple>() => {
                args::target(pair, None).map(Some)
            }
            (Some(host), None) if host.is_instance_of::<PyInt>() => {
                missing(format!("Client({host}) needs a host too: Client(\"127.0.0.1\", {host})"))
            }
            (Some(host), None) => {
                // What is wrong with the host comes first.
                args::target(host, None)?;
                missing("Client(host) needs a port too: Client(host, port)".to_owned())
            }
        }
    }
}

/// The argument `spin`.
fn spin(seconds: f64) -> PyResult<Duration> {
    if !(0.0..=MOST_SPIN).contains(&seconds) {
        return Err(PyValueError::new_err(format!(
            "spin {seconds}: must be a number of seconds from 0 to {MOST_SPIN}"
        )));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// The faults of the arguments; None if none were given.
fn own_faults(
    py: Python<'_>,
    transport: Transport,
    given: Option<&Bound<'_, PyAny>>,
    seed: Option<&Bound<'_, PyAny>>,
    tls: Option<TlsClient>,
) -> PyResult<Option<OwnFaults>> {
    let given = faults::faults(given)?;
    let seed = faults::seed(seed)?;
    if given.is_none() && seed.is_some() {
        return Err(PyValueError::new_err("seed=… is that of faults: give faults=[…] too"));
    }
    if given.is_none() && tls.is_none() {
        return Ok(None);
    }
    let given = given.unwrap_or_default();
    let (made, objects): (Vec<_>, Vec<_>) = given.into_iter().unzip();
    let inner =
        ClientFaults::new(transport, made, seed, tls).map_err(|error| exception(py, error))?;
    let objects = FaultObjects::new(inner.set().list(), objects);
    Ok(Some(OwnFaults { inner, objects }))
}
