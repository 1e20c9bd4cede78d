//! The stop of all servers at the end of the interpreter, in bounded time. Owns the atexit hook;
//! must never keep the process alive, nor print.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::wait::Attached;
use crate::net::control::Cause;
use crate::net::server::stop_all;

/// The longest that the end of the program waits for a server, whatever its drain time.
const LONGEST: Duration = Duration::from_millis(1500);

static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Registers the hook that stops all servers when the interpreter ends. Only the first call has an
/// effect.
pub(super) fn stop_at_exit(py: Python<'_>) -> PyResult<()> {
    if REGISTERED.swap(true, SeqCst) {
        return Ok(());
    }
    let hook = |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
        Attached::run(args.py(), |waiter| stop_all(None, Some(LONGEST), Cause::Exit, waiter))
            .map(|_| ())?;
        // Handlers that are still running have exceeded their time.
        args.py().import("rsock._server")?.call_method0("_end_handlers").map(|_| ())
    };
    let hook = PyCFunction::new_closure(py, Some(c"stop_all_at_exit"), None, hook)?;
    py.import("atexit")?.call_method1("register", (hook,))?;
    Ok(())
}
