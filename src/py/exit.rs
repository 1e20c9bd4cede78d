//! The end of the interpreter: servers are stopped before it, in bounded time. Must never keep the
//! process alive, nor print.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::wait::Attached;
use crate::net::control::Cause;
use crate::net::server::stop_all;

/// However long a server would drain, the end of the program waits no longer for it.
const LONGEST: Duration = Duration::from_millis(1500);

static REGISTERED: AtomicBool = AtomicBool::new(false);

/// Has all servers stopped when the interpreter ends. Called by the first start.
pub(super) fn stop_at_exit(py: Python<'_>) -> PyResult<()> {
    if REGISTERED.swap(true, SeqCst) {
        return Ok(());
    }
    let hook = |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| -> PyResult<()> {
        Attached::run(args.py(), |waiter| stop_all(None, Some(LONGEST), Cause::Exit, waiter))
            .map(|_| ())?;
        // What is still at a handler has had its time.
        args.py().import("rsock._server")?.call_method0("_end_handlers").map(|_| ())
    };
    let hook = PyCFunction::new_closure(py, Some(c"stop_all_at_exit"), None, hook)?;
    py.import("atexit")?.call_method1("register", (hook,))?;
    Ok(())
}
