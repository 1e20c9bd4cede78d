//! A stop of all servers of this process at once, with the clients whose connections workers serve.
//! Owns the order of signals and waits; must never
//! stop those of another process.

use std::time::{Duration, Instant};

use crate::net::base::Waiter;
use crate::net::control::{Cause, StopReport, registry};
use crate::net::error::Result;
use crate::net::handoff::client_worker;

/// Stops all servers of this process at once, and returns their reports. Each drains for `drain`,
/// or for its own drain time if that is None, but no longer than `most`. Ends the connections of
/// clients with stages in the same way. Blocks until they have ended.
pub fn stop_all(
    drain: Option<Duration>,
    most: Option<Duration>,
    cause: Cause,
    waiter: &mut dyn Waiter,
) -> Result<Vec<StopReport>> {
    // A server that was dropped ends by itself. Its report is not wanted.
    let mut servers = registry::all();
    servers.retain(|server| !server.context().shutdown.was_dropped() || cause == Cause::Exit);
    for server in &servers {
        server.exempt_caller();
        let drain = drain.unwrap_or(server.context().drain);
        server.signal_stop(cause, most.map_or(drain, |most| drain.min(most)));
    }
    let clients = client_worker::begin_stop(cause, drain, most);
    let deadline = most.map(|most| Instant::now() + most + Duration::from_millis(50));
    let mut reports = Vec::with_capacity(servers.len());
    for server in &servers {
        reports.extend(server.wait(deadline, waiter)?);
    }
    if let Some(clients) = clients {
        clients.wait(deadline, waiter)?;
    }
    Ok(reports)
}
