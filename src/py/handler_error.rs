//! The attribution of a handler's exception to the peer, a stop or the handler. Owns its text in
//! the record; must never raise it.

use pyo3::exceptions::{
    PyBrokenPipeError, PyConnectionResetError, PyOSError, PyTimeoutError, PyValueError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::imports;
use super::stream::Stream;
use crate::net::ledger::ClosedBy;

/// The most characters of an exception's text that a record keeps.
pub(super) const MOST_TEXT: usize = 500;

/// The cause of a handler's exception.
pub(super) enum Fault {
    Peer(ClosedBy),
    /// A stop of the server ended the connection while the handler used it.
    Stop,
    Handler,
}

/// The cause of an exception that the handler of the connection `base` raised. An exception that
/// cannot be examined, because one of its attributes raises, is the handler's.
pub(super) fn attribute_error(base: &Stream, error: &Bound<'_, PyAny>) -> Fault {
    examine(base, error).unwrap_or(Fault::Handler)
}

fn examine(base: &Stream, error: &Bound<'_, PyAny>) -> PyResult<Fault> {
    let py = error.py();
    let stream = base.inner();
    let mark = error.getattr(intern!(py, "_stream")).and_then(|mark| mark.extract::<usize>());
    let own = mark.is_ok_and(|mark| Some(mark) == base.mark());
    // Any object may be there: OSError("text", object). That is no error of the system.
    let errno = || match error.is_instance_of::<PyOSError>() {
        true => PyResult::Ok(error.getattr("errno")?.extract::<i32>().unwrap_or(0)),
        false => Ok(0),
    };
    // ENOTCONN of an accepted connection: a reset has arrived that no read has returned yet.
    let is_over = || stream.peer_address().is_err_and(|error| error.raw() == Some(libc::ENOTCONN));
    // An error of a TLS socket that was created from this connection.
    let of_duplicate = || -> PyResult<bool> {
        Ok(stream.is_duplicated()
            && (error.is_instance_of::<PyConnectionResetError>()
                || error.is_instance_of::<PyBrokenPipeError>()
                || error.is_instance_of::<PyTimeoutError>()
                || errno()? == libc::ENOTCONN && is_over()
                || error.is_instance_of::<PyOSError>()
                    && error.get_type().getattr("__module__")?.eq("ssl")?
                    && !is_fault_of_context(error)?))
    };
    if !own && !of_duplicate()? {
        return Ok(Fault::Handler);
    }
    // The error of a refused certificate is both a ValueError and an OSError.
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
    // A wrong call is an error of the handler: use after close, an unknown option, a call that
    // would wait with a time-out of 0.
    Ok(match errno {
        libc::EBADF | libc::EINVAL | libc::ENOPROTOOPT | libc::EAGAIN | libc::EBUSY => {
            Fault::Handler
        }
        _ => Fault::Peer(ClosedBy::Error),
    })
}

/// Reasons of OpenSSL that a server causes by its own SSLContext: it lacks a certificate or a key
/// that fits, or allows no protocol or cipher. A peer that offers nothing usable causes the first
/// one as well.
const OF_CONTEXT: &[&str] = &[
    "NO_SHARED_CIPHER",
    "NO_CERTIFICATE_ASSIGNED",
    "NO_CERTIFICATE_SET",
    "NO_PRIVATE_KEY_ASSIGNED",
    "NO_CIPHERS_AVAILABLE",
    "NO_CIPHERS_SPECIFIED",
    "NO_PROTOCOLS_AVAILABLE",
    "NO_SUITABLE_SIGNATURE_ALGORITHM",
    "NO_SUITABLE_KEY_SHARE",
    "LIBRARY_HAS_NO_CIPHERS",
    "MISSING_RSA_CERTIFICATE",
    "MISSING_SIGNING_CERT",
    "EE_KEY_TOO_SMALL",
    "CA_KEY_TOO_SMALL",
    "CA_MD_TOO_WEAK",
    "DH_KEY_TOO_SMALL",
    "SESSION_ID_CONTEXT_UNINITIALIZED",
    "UNINITIALIZED",
    "INTERNAL_ERROR",
];

/// Whether an error of the module `ssl` is the server's own fault: that of its context, or of a
/// wrong call.
fn is_fault_of_context(error: &Bound<'_, PyAny>) -> PyResult<bool> {
    let kind = error.get_type().name()?.to_string();
    match kind.as_str() {
        // A call that would wait, on a socket with a time-out of 0.
        "SSLWantReadError" | "SSLWantWriteError" => return Ok(true),
        "SSLError" => {}
        _ => return Ok(false),
    }
    let reason = error.getattr("reason")?.extract::<Option<String>>().unwrap_or(None);
    // Python's own errors, such as that of a client's context used for a server, have no reason.
    Ok(reason.is_none_or(|reason| OF_CONTEXT.contains(&reason.as_str())))
}

/// Whether an exception has bytes that its read had taken: it ended in the middle of a message.
pub(super) fn has_partial(error: &Bound<'_, PyAny>) -> bool {
    let partial = error.getattr(intern!(error.py(), "partial"));
    partial.is_ok_and(|partial| partial.cast::<PyBytes>().is_ok_and(|it| !it.as_bytes().is_empty()))
}

/// The class and the text of an exception: "ValueError: what was wrong".
pub(super) fn error_text(error: &Bound<'_, PyAny>) -> String {
    let kind = error.get_type().name().map_or_else(|_| String::new(), |name| name.to_string());
    let text =
        error.str().map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned());
    let text = if text.is_empty() { kind } else { format!("{kind}: {text}") };
    text.chars().take(MOST_TEXT).collect()
}
