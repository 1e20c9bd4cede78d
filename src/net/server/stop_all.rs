//! Stops all servers of this process at once. Must never stop those of another process.

use std::time::{Duration, Instant};

use crate::net::base::Waiter;
use crate::net::control::{Cause, StopReport, registry};
use crate::net::error::Result;

/// Stops all servers of this process at once, each with its own drain time or the one given, none
/// longer than `most`, and returns their reports.
pub fn stop_all(
    drain: Option<Duration>,
    most: Option<Duration>,
    cause: Cause,
    waiter: &mut dyn Waiter,
) -> Result<Vec<StopReport>> {
    // A server that was dropped ends by itself, and its report is not asked for.
    let mut servers = registry::all();
    servers.retain(|server| !server.context().shutdown.was_dropped() || cause == Cause::Exit);
    for server in &servers {
        server.exempt_caller();
        let drain = drain.unwrap_or(server.context().drain);
        server.signal_stop(cause, most.map_or(drain, |most| drain.min(most)));
    }
    let deadline = most.map(|most| Instant::now() + most + Duration::from_millis(50));
    let mut reports = Vec::with_capacity(servers.len());
    for server in &servers {
        reports.extend(server.wait(deadline, waiter)?);
    }
    Ok(reports)
}
