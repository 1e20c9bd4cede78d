//! The reset of a server: it ends its connections and begins again, without a stop. Owns the order
//! of its steps; must never touch the listener.

use std::time::{Duration, Instant};

use super::lifecycle::State;
use super::server::Server;
use crate::net::address::Transport;
use crate::net::base::{Waiter, pause};
use crate::net::error::{Error, Result};
use crate::net::stage::faults::Accepting;

/// How long the first of the looks for connections that are left takes; each takes twice as long
/// as the one before it...
const FIRST_LOOK: Duration = Duration::from_micros(100);
/// ...up to this.
const LONGEST_LOOK: Duration = Duration::from_millis(10);

impl Server {
    /// Ends all connections, then forgets their records, the counts and the errors: the next
    /// connection is number 1, and draws what the first one drew. Connections that are open are
    /// reset; so are those that wait in the queue, unless a fault keeps them there.
    ///
    /// Blocks until all have ended: `TimedOut` after the deadline, such as of a handler that does
    /// not return. Connections that others make meanwhile are ended too. `Error::State` unless the
    /// server serves.
    pub fn reset(&self, deadline: Option<Instant>, waiter: &mut dyn Waiter) -> Result<()> {
        self.check_origin()?;
        let mut look = FIRST_LOOK;
        loop {
            let state = self.state();
            if state != State::Serving {
                return Err(self.wrong("reset", state.hint()));
            }
            if self.has_no_connection() && self.inner.context.forget() {
                return Ok(());
            }
            self.end_connections(waiter)?;
            if self.has_no_connection() && self.inner.context.forget() {
                return Ok(());
            }
            if !pause(waiter, look, deadline)? {
                return Err(Error::TimedOut { step: "reset", target: self.left() });
            }
            self.check_origin()?;
            look = (look * 2).min(LONGEST_LOOK);
        }
    }

    /// What a reset waits for.
    fn left(&self) -> String {
        let handlers = self.inner.pool.handed_out.len();
        let open = self.inner.context.ledger.totals().open;
        match (handlers, open) {
            (1, _) => "until 1 handler has returned".to_owned(),
            (2.., _) => format!("until {handlers} handlers have returned"),
            (0, 1) => "until 1 connection has ended".to_owned(),
            (0, _) => format!("until {open} connections have ended"),
        }
    }

    fn has_no_connection(&self) -> bool {
        let context = &self.inner.context;
        if self.config.transport == Transport::Udp {
            return context.ledger.totals().open == 0;
        }
        // Looked at first: what leaves the queue has a slot by then.
        let kept = [Accepting::Refuse, Accepting::Full, Accepting::Never];
        let mode = context.faults.accepting().map(|(_, mode)| mode);
        let is_queue_empty = mode.is_some_and(|mode| kept.contains(&mode))
            || context.listening.waiting().unwrap_or(0) == 0;
        is_queue_empty && context.admission.is_empty()
    }

    fn end_connections(&self, waiter: &mut dyn Waiter) -> Result<()> {
        let context = &self.inner.context;
        context.resets.begin();
        context.faults.announce_and_wait(&*self.inner, waiter)?;
        self.inner.pool.handed_out.all_streams().iter().for_each(|stream| stream.force());
        self.inner.on_demand.reset();
        Ok(())
    }
}
