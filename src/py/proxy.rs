//! The form of a PROXY protocol header in Python. Owns its conversion; must never
//! read or write a header's bytes.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

use super::args::{self, user_address, wrong_type};
use super::imports;
use super::process::object;
use crate::net::address::{Address, Endpoint};
use crate::net::ledger::ProxyHeader;
use crate::net::stream::Preface;

/// An `rsock.Endpoint`.
pub(super) fn endpoint<'py>(py: Python<'py>, endpoint: &Endpoint) -> PyResult<Bound<'py, PyAny>> {
    let fields = PyDict::new(py);
    fields.set_item("transport", endpoint.transport.name())?;
    fields.set_item("address", user_address(py, &endpoint.address)?)?;
    object(py, "Endpoint", &fields)
}

/// An `rsock.ProxyHeader`.
pub(super) fn proxy_header<'py>(
    py: Python<'py>,
    header: &ProxyHeader,
) -> PyResult<Bound<'py, PyAny>> {
    let end = |address: &Option<Address>| {
        let address = address.clone().map(Endpoint::stream);
        address.map(|address| endpoint(py, &address)).transpose()
    };
    let fields = PyDict::new(py);
    fields.set_item("source", end(&header.source)?)?;
    fields.set_item("destination", end(&header.destination)?)?;
    let tlvs: Vec<_> =
        header.tlvs.iter().map(|(kind, value)| (*kind, PyBytes::new(py, value))).collect();
    fields.set_item("tlvs", PyTuple::new(py, tlvs)?)?;
    fields.set_item("version", header.version)?;
    object(py, "ProxyHeader", &fields)
}

/// The version of a header to send: "v1" or "v2".
pub(super) fn version(value: &Bound<'_, PyAny>) -> PyResult<u8> {
    let wanted = "'v1' or 'v2'";
    let text = value.cast::<PyString>().map_err(|_| wrong_type("proxy_protocol", wanted, value))?;
    match &*text.to_string_lossy() {
        "v1" => Ok(1),
        "v2" => Ok(2),
        _ => Err(PyValueError::new_err(format!(
            "proxy_protocol {}: must be {wanted}",
            value.repr()?
        ))),
    }
}

/// What a client sends first: "v1", "v2", or a `rsock.ProxyHeader`.
pub(super) fn preface(value: &Bound<'_, PyAny>) -> PyResult<Preface> {
    let class = imports::class(value.py(), "ProxyHeader")?;
    if value.is_instance_of::<PyString>() {
        return version(value).map(Preface::Own);
    }
    if !value.is_instance(&class)? {
        return Err(wrong_type("proxy_protocol", "'v1', 'v2' or a ProxyHeader", value));
    }
    let end = |name: &str| -> PyResult<Option<Address>> {
        let Some(end) = value.getattr(name)?.extract::<Option<Bound<'_, PyAny>>>()? else {
            return Ok(None);
        };
        let target = args::destination(&end.getattr("address")?)?;
        let known = target.known();
        known.map(Some).ok_or_else(|| {
            PyValueError::new_err(format!("ProxyHeader({name}={target}): must be an address"))
        })
    };
    let header = ProxyHeader {
        version: value.getattr("version")?.extract()?,
        source: end("source")?,
        destination: end("destination")?,
        tlvs: value.getattr("tlvs")?.extract()?,
        length: 0,
    };
    Preface::given(&header).map_err(|why| PyValueError::new_err(format!("ProxyHeader(…): {why}")))
}
