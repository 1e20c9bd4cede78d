//! The steps of a server's socket before its threads have it, and the states they lead to. Must never
//! take a step itself: `server` does.

use std::os::fd::RawFd;
use std::sync::Arc;

use crate::net::address::endpoint::Address;
use crate::net::socket::listener::Listener;
use crate::net::socket::probe::Gauge;

/// The state of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing is open yet.
    New,
    /// Its socket is open.
    Created,
    /// The socket has an address.
    Bound,
    /// The kernel takes connections into the queue.
    Listening,
    /// Connections are accepted and served.
    Serving,
    /// No more are accepted; those there are get what they are owed.
    Draining,
    /// All threads and descriptors are gone. Final.
    Stopped,
}

impl State {
    /// The name users see.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Created => "created",
            Self::Bound => "bound",
            Self::Listening => "listening",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

/// The socket's steps before the threads have it.
pub(crate) struct Steps {
    pub(crate) state: State,
    pub(crate) listener: Option<Listener>,
    /// Addresses of the name that were not tried yet.
    pub(crate) candidates: Vec<Address>,
    /// A step is under way, without the lock: it may have to wait.
    pub(crate) busy: bool,
    /// The number, for `fileno`, while the accept thread owns the listener.
    pub(crate) number: RawFd,
    /// The same for `waiting`.
    pub(crate) gauge: Option<Arc<Gauge>>,
    pub(crate) bound: Option<Address>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self {
            state: State::New,
            listener: None,
            candidates: Vec::new(),
            busy: false,
            number: -1,
            gauge: None,
            bound: None,
        }
    }
}
