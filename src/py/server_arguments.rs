//! The arguments of Server. Owns their check, from which the engine's configuration follows; must
//! never open anything, nor know the server that they are for.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::args::{self, Argument, optional_text, settings, whole};
use super::error::exception;
use super::service::{Handler, Service};
use super::services::Echo;
use super::socket_options::socket_options;
use super::tls::Tls;
use crate::net::address::{Address, Network, Target, Transport, UnixName};
use crate::net::control::{Access, Config, Limits};
use crate::net::error::Error;
use crate::net::socket::{SocketOptions, bound_address};
use crate::net::stage::{Bytewise, Delayed, StageFactory, each};

/// No machine has CPUs for more workers: a larger number is taken for a typing error.
const MOST_WORKERS: i64 = 1024;
/// More records do not fit into memory: a larger number is taken for a typing error.
const MOST_HISTORY: i64 = 100_000_000;

/// The arguments as they were passed.
pub(super) struct ServerArguments<'py> {
    pub(super) host: Argument<'py>,
    pub(super) port: Argument<'py>,
    pub(super) service: Argument<'py>,
    pub(super) transport: Argument<'py>,
    pub(super) path: Argument<'py>,
    pub(super) fd: Argument<'py>,
    pub(super) workers: Argument<'py>,
    pub(super) options: Argument<'py>,
    pub(super) limits: Argument<'py>,
    pub(super) faults: Argument<'py>,
    pub(super) seed: Argument<'py>,
    pub(super) trace: Argument<'py>,
    pub(super) history: Argument<'py>,
    pub(super) drain: Argument<'py>,
    pub(super) on_error: Argument<'py>,
    pub(super) allow_external: Argument<'py>,
    pub(super) name: Argument<'py>,
    pub(super) allow: Argument<'py>,
    pub(super) deny: Argument<'py>,
    pub(super) replace: Argument<'py>,
    pub(super) tls: Argument<'py>,
    pub(super) proxy_protocol: Argument<'py>,
    pub(super) test_stages: Argument<'py>,
}

/// What a server is made of.
pub(super) struct CheckedServer<'py> {
    pub(super) config: Config,
    pub(super) service: Bound<'py, Service>,
    pub(super) options: Bound<'py, PyAny>,
    pub(super) limits: Bound<'py, PyAny>,
    pub(super) on_error: Bound<'py, PyAny>,
    /// The objects of the configuration's faults, in the same order.
    pub(super) faults: Vec<Bound<'py, PyAny>>,
    pub(super) tls: Option<Py<Tls>>,
    /// The descriptor, if it was looked up among those that the service manager has passed.
    pub(super) passed: Option<RawFd>,
}

impl<'py> ServerArguments<'py> {
    /// Checks all arguments. The first error names one of them, or two that contradict each other.
    pub(super) fn check(self, py: Python<'py>) -> PyResult<CheckedServer<'py>> {
        let place = self.place(py)?;
        let (faults, objects) = match super::faults::faults(self.faults.as_ref())? {
            None => (None, Vec::new()),
            Some(given) => {
                let (faults, objects): (Vec<_>, Vec<_>) = given.into_iter().unzip();
                (Some(faults), objects)
            }
        };
        let options =
            settings(py, "options", "SocketOptions", &args::DEFAULT_OPTIONS, self.options)?;
        let limits = settings(py, "limits", "Limits", &args::DEFAULT_LIMITS, self.limits)?;
        let proxies = args::networks("proxy_protocol", self.proxy_protocol.as_ref())?;
        let engine_options = socket_options(&options)?;
        let engine_limits = args::limits(&limits, place.transport)?;
        check_options(&engine_options, place.transport)?;
        place
            .check(&engine_options, &engine_limits, &proxies)
            .map_err(|error| exception(py, error))?;
        if self.tls.is_some() && place.transport.is_datagram() {
            return Err(PyValueError::new_err(format!(
                "tls=… and transport='{}': TLS needs a stream, and datagrams are none",
                place.transport.name()
            )));
        }
        let (tls, tls_object) = super::tls::of_server(self.tls.as_ref())?.unzip();
        let service = service(py, self.service)?;
        let shape = service.get().shape_for(place.transport)?;
        let ordered = check_handler(&service, place.transport)?;
        let config = Config {
            transport: place.transport,
            allow_external: args::flag("allow_external", self.allow_external.as_ref())?,
            target: place.target,
            fd: place.fd,
            replace: place.replace,
            access: Access {
                allow: args::networks("allow", self.allow.as_ref())?,
                deny: args::networks("deny", self.deny.as_ref())?,
            },
            proxies,
            shape,
            ordered,
            stages: self.test_stages.as_ref().map(test_stages).transpose()?,
            tls,
            faults,
            seed: super::faults::seed(self.seed.as_ref())?,
            workers: workers(self.workers.as_ref())?,
            options: engine_options,
            limits: engine_limits,
            history: history(self.history.as_ref())?,
            trace: args::trace(self.trace.as_ref())?,
            drain: match &self.drain {
                Some(drain) => args::seconds("drain", drain)?,
                None => Duration::from_secs(1),
            },
            name: name(self.name.as_ref())?,
        };
        config.check_faults().map_err(|error| exception(py, error))?;
        Ok(CheckedServer {
            on_error: on_error(py, self.on_error)?,
            passed: config.fd.filter(|_| place.is_passed),
            config,
            service,
            options,
            limits,
            faults: objects,
            tls: tls_object,
        })
    }

    /// Where the server will listen.
    fn place(&self, py: Python<'py>) -> PyResult<Place> {
        let (host, port, fd) = (self.host.as_ref(), self.port.as_ref(), self.fd.as_ref());
        let transport = args::transport(self.transport.as_ref())?;
        let others = [("host", host), ("port", port), ("fd", fd)];
        let unix = args::unix(self.path.as_ref(), transport, &others)?;
        let replace = args::flag("replace", self.replace.as_ref())?;
        if fd.is_some() && (host.is_some() || port.is_some()) {
            return Err(PyTypeError::new_err(
                "fd= is a listener with an address of its own; give no host and port with it",
            ));
        }
        if fd.is_some() && replace {
            return Err(PyTypeError::new_err(
                "fd= is a socket with an address of its own; replace=True stops a server that holds \
                 the address of a bind",
            ));
        }
        let is_passed = fd.is_some_and(|fd| fd.is_instance_of::<PyString>());
        let fd = fd.map(descriptor).transpose()?;
        let target = match host {
            _ if unix.is_some() || fd.is_some() => {
                listen_target(py, unix.flatten(), fd, transport)?
            }
            Some(host) => args::target(host, port)?,
            None => {
                let port = port.map_or(Ok(0), args::port)?;
                Target::new("127.0.0.1", port).map_err(|error| exception(py, error))?
            }
        };
        let is_unix = target.as_unix().is_some();
        let usual = if is_unix { Transport::Unix } else { Transport::Tcp };
        let transport = transport.unwrap_or(usual);
        Ok(Place { target, transport, fd, is_passed, replace })
    }
}

/// Where a server listens.
struct Place {
    target: Target,
    transport: Transport,
    fd: Option<RawFd>,
    /// Whether the service manager has passed the descriptor.
    is_passed: bool,
    replace: bool,
}

impl Place {
    /// Refuses options and limits that have no meaning there.
    fn check(
        &self,
        options: &SocketOptions,
        limits: &Limits,
        proxies: &[Network],
    ) -> Result<(), Error> {
        let refuse = |text| Err(Error::Value(text));
        if self.target.as_unix().is_some() {
            options.check_unix()?;
            // A proxy names hosts.
            if let Some(most) = limits.per_host.filter(|_| proxies.is_empty()) {
                return refuse(format!(
                    "Limits(per_host={most}): the peers of a Unix socket have no hosts"
                ));
            }
        }
        let is_datagram = self.transport.is_datagram();
        if let Some(network) = proxies.first().filter(|_| is_datagram) {
            return refuse(format!(
                "proxy_protocol={network}: a header comes before the bytes of a stream, and \
                 datagrams are none"
            ));
        }
        if let Some(rate) = limits.accept_rate.filter(|_| is_datagram) {
            return refuse(format!("Limits(accept_rate={rate}): datagrams are not accepted"));
        }
        options.check_multicast(self.transport)?;
        let Some(mode) = options.mode else { return Ok(()) };
        let why = match self.target.as_unix() {
            Some(name) if name.is_abstract() => "an abstract name has no file",
            None => "the permissions of a Unix socket's file; TCP has none",
            Some(_) if self.fd.is_some() => {
                "the file of a socket given by fd= is not ours to change"
            }
            Some(_) => return Ok(()),
        };
        refuse(format!("SocketOptions(mode=0o{mode:o}): {why}"))
    }
}

/// The argument `fd`: a descriptor, or "systemd" with a name, which is looked up.
fn descriptor(value: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let Ok(text) = value.cast::<PyString>() else {
        return Ok(whole("fd", value, 0, i64::from(RawFd::MAX))? as RawFd);
    };
    if !text.to_str().is_ok_and(|text| text.starts_with("systemd")) {
        return Err(args::wrong_type("fd", "an int, 'systemd' or 'systemd:NAME'", value));
    }
    value.py().import("rsock._systemd")?.call_method1("find", (value,))?.extract()
}

/// The address to listen at if it is not a host and port: a path, or that of the descriptor `fd`.
fn listen_target(
    py: Python<'_>,
    path: Option<UnixName>,
    fd: Option<RawFd>,
    transport: Option<Transport>,
) -> PyResult<Target> {
    let found = fd.and_then(bound_address);
    match (path, found) {
        (Some(name), _) => Ok(Target::unix(name)),
        (None, Some(Address::Unix(name))) if transport.is_none_or(Transport::is_unix) => {
            Ok(Target::unix(name))
        }
        (None, _) if transport.is_some_and(Transport::is_unix) => {
            Err(PyValueError::new_err(match fd {
                Some(fd) => format!("fd={fd} and transport='unix': it is no Unix socket"),
                None => "transport='unix' needs a path: path='/tmp/x.sock'".to_owned(),
            }))
        }
        (None, Some(Address::Unix(_))) => Err(PyValueError::new_err(format!(
            "fd={} and transport='{}': it is a Unix socket",
            fd.unwrap_or(-1),
            transport.map_or("tcp", Transport::name)
        ))),
        // `create` checks what other kind of descriptor it is.
        (None, _) => Target::new("127.0.0.1", 0).map_err(|error| exception(py, error)),
    }
}

/// Refuses options that no server can have, or none of the transport.
fn check_options(options: &SocketOptions, transport: Transport) -> PyResult<()> {
    if let Some(linger) = options.linger.filter(|linger| !linger.is_zero()) {
        return Err(PyValueError::new_err(format!(
            "SocketOptions(linger={}): above 0 it makes close() wait, which a server's threads never do; \
             leave it at None, or give 0 to reset connections at their end",
            linger.as_secs()
        )));
    }
    if transport == Transport::Udp && options.reuse_port {
        return Err(PyValueError::new_err(
            "SocketOptions(reuse_port=True) would let others take datagrams of a UDP server; workers=… \
             opens a socket on the port for each thread",
        ));
    }
    Ok(())
}

/// The service of an argument; a TypeError names what is accepted.
fn service<'py>(
    py: Python<'py>,
    value: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, Service>> {
    let Some(value) = value else {
        return Ok(Bound::new(py, Echo::make(py, None)?)?.into_super());
    };
    match value.cast_into::<Service>() {
        Ok(service) => Ok(service),
        // A function is wrapped in a Handler, whose constructor refuses other objects.
        Err(error) => {
            Ok(Bound::new(py, Handler::make(error.into_inner(), None, None)?)?.into_super())
        }
    }
}

/// The argument `on_error`, checked.
fn on_error<'py>(py: Python<'py>, value: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
    let Some(value) = value else { return Ok("log".into_pyobject(py)?.into_any()) };
    if value.is_callable() || value.eq("log")? || value.eq("raise")? {
        return Ok(value);
    }
    let wanted = "'log', 'raise' or a function of one argument";
    if value.is_instance_of::<PyString>() {
        return Err(PyValueError::new_err(format!("on_error {}: must be {wanted}", value.repr()?)));
    }
    Err(args::wrong_type("on_error", wanted, &value))
}

/// Checks how many arguments a handler takes. Whether it gets the datagrams of a peer in order.
fn check_handler(service: &Bound<'_, Service>, transport: Transport) -> PyResult<bool> {
    let Ok(handler) = service.cast::<Handler>() else { return Ok(true) };
    let py = service.py();
    let check = py.import("rsock._handlers")?.getattr("check_arity")?;
    check.call1((handler.get().function(py), transport.name()))?;
    Ok(handler.get().ordered)
}

/// The argument `workers`.
fn workers(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<usize>> {
    let number = value.map(|value| whole("workers", value, 1, MOST_WORKERS)).transpose()?;
    Ok(number.map(|number| number as usize))
}

/// The argument `history`.
fn history(value: Option<&Bound<'_, PyAny>>) -> PyResult<usize> {
    let number = value.map_or(Ok(10_000), |value| whole("history", value, 0, MOST_HISTORY))?;
    Ok(number as usize)
}

/// The argument `name`; without it, a number of its own.
fn name(value: Option<&Bound<'_, PyAny>>) -> PyResult<String> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let given = optional_text("name", value)?;
    Ok(given.unwrap_or_else(|| format!("server-{}", NUMBER.fetch_add(1, Relaxed))))
}

/// The stages that only tests have, by their names: "bytewise" passes on byte by byte, "delayed"
/// delays everything by 3 ms.
fn test_stages(name: &Bound<'_, PyAny>) -> PyResult<Arc<dyn StageFactory>> {
    match name.extract::<String>()?.as_str() {
        "bytewise" => Ok(each(|| Bytewise)),
        "delayed" => Ok(each(|| Delayed::new(Duration::from_millis(3)))),
        other => Err(PyValueError::new_err(format!("_stages={other:?}: no such stage"))),
    }
}
