//! The conversion of `rsock.SocketOptions`. Owns how a multicast group and its interface are
//! written; must never set an option.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::args::{shown, text, whole};
use super::error::exception;
use crate::net::socket::{Interface, Keepalive, Membership, SocketOptions};

/// The fields of `rsock.SocketOptions`. The class has checked them.
#[derive(FromPyObject)]
struct OptionsFields {
    reuse_address: bool,
    reuse_port: bool,
    backlog: Option<u32>,
    nodelay: bool,
    keepalive: Option<KeepaliveField>,
    user_timeout: Option<f64>,
    linger: Option<f64>,
    send_buffer: Option<usize>,
    receive_buffer: Option<usize>,
    max_segment: Option<u32>,
    dual_stack: bool,
    mode: Option<u32>,
    /// Checked here, because the engine knows the families of addresses.
    multicast: Py<PyAny>,
}

/// The field `keepalive`: a bool, or (idle, interval, count).
#[derive(FromPyObject)]
enum KeepaliveField {
    Probes((u64, u64, u32)),
    On(bool),
}

impl From<KeepaliveField> for Keepalive {
    fn from(field: KeepaliveField) -> Self {
        match field {
            KeepaliveField::On(false) => Self::Off,
            KeepaliveField::On(true) => Self::System,
            KeepaliveField::Probes((idle, interval, count)) => {
                let [idle, interval] = [idle, interval].map(Duration::from_secs);
                Self::Probes { idle, interval, count }
            }
        }
    }
}

/// The engine's options from `rsock.SocketOptions`.
pub(super) fn socket_options(value: &Bound<'_, PyAny>) -> PyResult<SocketOptions> {
    let fields: OptionsFields = value.extract()?;
    Ok(SocketOptions {
        reuse_address: fields.reuse_address,
        reuse_port: fields.reuse_port,
        backlog: fields.backlog,
        nodelay: fields.nodelay,
        keepalive: fields.keepalive.map(Keepalive::from),
        user_timeout: fields.user_timeout.map(Duration::from_secs_f64),
        linger: fields.linger.map(Duration::from_secs_f64),
        send_buffer: fields.send_buffer,
        receive_buffer: fields.receive_buffer,
        max_segment: fields.max_segment,
        dual_stack: fields.dual_stack,
        mode: fields.mode,
        multicast: memberships(fields.multicast.bind(value.py()))?,
    })
}

/// The multicast groups of `SocketOptions(multicast=…)`, which Python reads as pairs of a group and
/// an interface. A group is a str, "224.0.0.251" or "224.0.0.251%eth0".
fn memberships(value: &Bound<'_, PyAny>) -> PyResult<Vec<Membership>> {
    if value.is_none() {
        return Ok(Vec::new());
    }
    let pairs = value.py().import("rsock._checks")?.call_method1("groups", (value,))?;
    pairs.try_iter()?.map(|pair| membership(&pair?)).collect()
}

fn membership(pair: &Bound<'_, PyAny>) -> PyResult<Membership> {
    let (group, interface) = pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
    let written = text("multicast", &group)?;
    let (address, scope) = match written.split_once('%') {
        Some((address, scope)) => (address, Some(scope.to_owned())),
        None => (written.as_str(), None),
    };
    let parsed = address.parse().map_err(|_| {
        PyValueError::new_err(format!("multicast group {}: not an IP address", shown(&group)))
    })?;
    let interface = match (scope, interface.is_none()) {
        (None, true) => Interface::Any,
        (Some(scope), true) => interface_named(scope),
        (_, false) if interface.is_instance_of::<PyString>() => {
            interface_named(text("multicast", &interface)?)
        }
        (_, false) => {
            Interface::Index(
                whole("multicast interface", &interface, 1, i64::from(i32::MAX))? as u32
            )
        }
    };
    Membership::new(parsed, interface).map_err(|error| exception(pair.py(), error))
}

fn interface_named(name: String) -> Interface {
    match (name.parse(), name.parse()) {
        (Ok(address), _) => Interface::Address(address),
        (_, Ok(index)) => Interface::Index(index),
        _ => Interface::Name(name),
    }
}
