//! The limit on the lifetime of connections that are handed out. Owns when their age is checked
//! next; must never end one that is younger.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::base::Mutex;
use crate::net::stream::Stream;

/// The shortest time between two checks, each of which looks at all connections.
const INTERVAL: Duration = Duration::from_millis(20);

/// When the age of a server's connections is checked next. None without connections, or without the
/// limit.
#[derive(Default)]
pub(super) struct LifetimeCheck(Mutex<Option<Instant>>);

impl LifetimeCheck {
    /// A connection has begun. True if the check was not planned, so that the thread that makes it
    /// must be woken.
    pub(super) fn plan(&self, limit: Option<Duration>, opened: Instant) -> bool {
        let Some(at) = limit.and_then(|limit| opened.checked_add(limit)) else { return false };
        let mut due = self.0.lock();
        let is_new = due.is_none();
        // Those that began earlier are due earlier.
        due.get_or_insert(at);
        is_new
    }

    /// When the next check is due.
    pub(super) fn due(&self) -> Option<Instant> {
        *self.0.lock()
    }

    /// Ends the connections that have reached the limit, if the check is due, and plans the next
    /// one.
    pub(super) fn run(&self, limit: Option<Duration>, streams: impl FnOnce() -> Vec<Arc<Stream>>) {
        let now = Instant::now();
        let Some(limit) = limit.filter(|_| self.due().is_some_and(|due| due <= now)) else {
            return;
        };
        // Before the list is read: a connection that begins meanwhile plans anew.
        *self.0.lock() = None;
        let mut next: Option<Instant> = None;
        for stream in streams() {
            match stream.record().and_then(|record| record.opened().checked_add(limit)) {
                Some(at) if at <= now => stream.expire("lifetime"),
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        if let Some(next) = next {
            let next = next.max(now + INTERVAL);
            let mut due = self.0.lock();
            *due = Some(due.map_or(next, |due| due.min(next)));
        }
    }
}
