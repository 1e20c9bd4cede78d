//! What an exception of a handler says about its connection. Must never raise it.

use pyo3::exceptions::{
    PyBrokenPipeError, PyConnectionResetError, PyOSError, PyTimeoutError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;

use super::imports;
use super::stream::Stream;
use crate::net::ledger::ClosedBy;

/// The longest words of an exception that a record keeps.
pub(super) const MOST_TEXT: usize = 500;

/// Whose doing it is that a handler raised.
pub(super) enum Fault {
    Peer(ClosedBy),
    /// The server ended the connection under it.
    Stop,
    Handler,
}

pub(super) fn attribute_error(base: &Stream, error: &Bound<'_, PyAny>) -> PyResult<Fault> {
    let py = error.py();
    let stream = base.inner();
    let mark = error.getattr(intern!(py, "_stream")).and_then(|mark| mark.extract::<usize>());
    let own = mark.is_ok_and(|mark| Some(mark) == base.mark());
    let errno = || match error.is_instance_of::<PyOSError>() {
        true => PyResult::Ok(error.getattr("errno")?.extract::<Option<i32>>()?.unwrap_or(0)),
        false => Ok(0),
    };
    // ENOTCONN of a connection that was one: a reset has come that no read has met.
    let is_over = || stream.peer_address().is_err_and(|error| error.raw() == Some(libc::ENOTCONN));
    // What a TLS socket says that was made of this connection.
    let of_duplicate = || -> PyResult<bool> {
        Ok(stream.is_duplicated()
            && (error.is_instance_of::<PyConnectionResetError>()
                || error.is_instance_of::<PyBrokenPipeError>()
                || error.is_instance_of::<PyTimeoutError>()
                || errno()? == libc::ENOTCONN && is_over()
                || error.is_instance_of::<PyOSError>()
                    && error.get_type().getattr("__module__")?.eq("ssl")?))
    };
    if !own && !of_duplicate()? {
        return Ok(Fault::Handler);
    }
    // A certificate that is refused is both.
    if error.is_instance_of::<PyValueError>() && !error.is_instance_of::<PyOSError>() {
        return Ok(Fault::Peer(ClosedBy::Limit("line")));
    }
    if !error.is_instance_of::<PyOSError>() {
        let incomplete = imports::class(py, "IncompleteRead")?;
        return Ok(match error.is_instance(&incomplete)? {
            false => Fault::Handler,
            true if stream.draining() && !stream.was_ended() => Fault::Stop,
            true => Fault::Peer(ClosedBy::Peer),
        });
    }
    if stream.was_reset() {
        return Ok(Fault::Peer(ClosedBy::Reset));
    }
    if stream.draining() {
        return Ok(Fault::Stop);
    }
    let errno = errno()?;
    if !own && matches!(errno, libc::ECONNRESET | libc::EPIPE | libc::ENOTCONN) {
        return Ok(Fault::Peer(ClosedBy::Reset));
    }
    // A bad call is the handler's own: use after close, an option that is none, waiting forbidden.
    Ok(match errno {
        libc::EBADF | libc::EINVAL | libc::ENOPROTOOPT | libc::EAGAIN | libc::EBUSY => {
            Fault::Handler
        }
        _ => Fault::Peer(ClosedBy::Error),
    })
}

/// An exception in one line: "ValueError: what was wrong".
pub(super) fn error_text(error: &Bound<'_, PyAny>) -> String {
    let kind = error.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
    let text =
        error.str().map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned());
    let text = if text.is_empty() { kind } else { format!("{kind}: {text}") };
    text.chars().take(MOST_TEXT).collect()
}
