//! Control messages of `sendmsg`, `recvmsg` in the form of Python: (level, type, data), cmsg(3).
//! Owns their conversion; must never look into their data.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PySequence};

use super::args::length;
use super::buffer::Source;
use super::error::os_error;
use crate::net::sys::{control_message, control_messages};

/// The most bytes of control messages for one call. The kernel's own limit is near this.
const MOST_RECEIVED: usize = 64 * 1024;
/// The most bytes of control messages of a send, without their headers. The kernel takes less: it
/// copies them into one allocation, of 4 MiB at the most.
const MOST_SENT: usize = 8 * 1024 * 1024;

/// A buffer for `ancbufsize` bytes of control messages, at most `MOST_RECEIVED`.
pub(super) fn room(ancbufsize: isize) -> PyResult<Vec<u8>> {
    let size = length("ancbufsize", ancbufsize)?;
    if size > i32::MAX as usize {
        return Err(PyValueError::new_err(format!(
            "ancbufsize {size}: must be from 0 to {}",
            i32::MAX
        )));
    }
    Ok(vec![0; size.min(MOST_RECEIVED)])
}

/// The messages of a buffer that was received.
pub(super) fn received<'py>(py: Python<'py>, control: &[u8]) -> PyResult<Bound<'py, PyList>> {
    let messages = control_messages(control);
    let items = messages.map(|(level, kind, data)| (level, kind, PyBytes::new(py, data)));
    PyList::new(py, items.collect::<Vec<_>>())
}

/// The buffer to send, from an iterable of control messages.
pub(super) fn to_send(ancdata: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut control = Vec::new();
    for item in ancdata.try_iter()? {
        add(&mut control, &item?)?;
    }
    Ok(control)
}

/// Adds a control message from its three parts: level, type, data.
fn add(control: &mut Vec<u8>, item: &Bound<'_, PyAny>) -> PyResult<()> {
    let parts = item.cast::<PySequence>().map_err(PyErr::from)?;
    if parts.len()? != 3 {
        return Err(PyTypeError::new_err(format!(
            "a control message has three parts (level, type, data), not {}",
            parts.len()?
        )));
    }
    let data = Source::new(parts.get_item(2)?)?;
    let (level, kind) = (parts.get_item(0)?.extract()?, parts.get_item(1)?.extract()?);
    let data = data.as_slice();
    if data.len() > MOST_SENT.saturating_sub(control.len()) {
        // Not copied only to be refused: it may have gigabytes.
        let text = format!("sendmsg: more than {MOST_SENT} bytes of control messages");
        return Err(os_error(item.py(), libc::ENOBUFS, text));
    }
    control.extend(control_message(level, kind, data));
    Ok(())
}
