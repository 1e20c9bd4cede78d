//! The state of a server apart from its configuration. Owns what its steps have opened and what
//! serves its connections. The registry shares it; must never be shared with a thread of the
//! server, or a dropped server would not end.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::lifecycle::State;
use crate::net::address::{Address, Endpoint};
use crate::net::base::{EventFd, Mutex, Waiter};
use crate::net::control::{Begun, Cause, Registered, ServerContext, StopReport};
use crate::net::datagram::{DatagramSockets, Handoff};
use crate::net::error::Result;
use crate::net::handoff::{OnDemand, OuterHost, ThreadPool};
use crate::net::service::Shape;
use crate::net::socket::{FileId, Listener, Probe, Sharing};

/// The state of the listening socket before a thread owns it.
pub(super) struct Steps {
    pub(super) state: State,
    pub(super) listener: Option<Listener>,
    /// The resolved addresses that have not been tried yet. The last one is tried first.
    pub(super) candidates: Vec<Address>,
    /// The thread that runs a step, without the lock, because a step may block.
    pub(super) busy: Option<ThreadId>,
    /// Set when the running step ends. Made by the first thread that waits for that.
    pub(super) step_ended: Option<Arc<EventFd>>,
    /// The number of the descriptor for `fileno`, kept while a thread owns the listener.
    pub(super) number: RawFd,
    /// The probe for `waiting`, kept likewise.
    pub(super) probe: Option<Arc<Probe>>,
    /// The users of the socket, kept likewise.
    pub(super) sharing: Option<Arc<Sharing>>,
    pub(super) bound: Option<Address>,
}

impl Steps {
    pub(super) fn new() -> Self {
        Self {
            state: State::New,
            listener: None,
            candidates: Vec::new(),
            busy: None,
            step_ended: None,
            number: -1,
            probe: None,
            sharing: None,
            bound: None,
        }
    }

    /// Keeps what callers ask of the socket while a thread owns it.
    pub(super) fn note_socket(&mut self, listener: &Listener) {
        self.number = listener.as_fd().as_raw_fd();
        self.probe = Some(listener.probe());
        self.sharing = Some(Arc::clone(listener.sharing()));
    }
}

/// The parts of a server.
pub(super) struct Inner {
    pub(super) context: Arc<ServerContext>,
    /// Used with `Shape::Handler`.
    pub(super) pool: Arc<ThreadPool>,
    /// Used with `Shape::Accept`.
    pub(super) on_demand: Arc<OnDemand>,
    /// Used with either, where connections have stages.
    pub(super) outer: Arc<OuterHost>,
    /// The open sockets of a UDP server.
    pub(super) sockets: Arc<DatagramSockets>,
    /// For a UDP server that the caller's threads serve, from its start on.
    pub(super) datagrams: Mutex<Option<Arc<Handoff>>>,
    pub(super) most_workers: usize,
    /// The address while the server is bound, with the identity of a Unix socket's file.
    pub(super) address: Mutex<Option<Address>>,
    pub(super) file: Mutex<Option<FileId>>,
    /// What serves the connections, after `prepare`. None unless the server serves.
    pub(super) shape: Mutex<Option<Shape>>,
    pub(super) steps: Mutex<Steps>,
}

impl Inner {
    pub(super) fn new(context: Arc<ServerContext>, most_workers: usize) -> Self {
        Self {
            pool: Arc::new(ThreadPool::new(&context)),
            on_demand: Arc::new(OnDemand::new(&context)),
            outer: Arc::new(OuterHost::new(&context, most_workers)),
            context,
            sockets: Arc::default(),
            datagrams: Mutex::new(None),
            most_workers,
            address: Mutex::new(None),
            file: Mutex::new(None),
            shape: Mutex::new(None),
            steps: Mutex::new(Steps::new()),
        }
    }

    pub(super) fn state(&self) -> State {
        let state = self.steps.lock().state;
        if !self.context.shutdown.has_begun() {
            state
        } else if self.context.shutdown.is_done() {
            State::Stopped
        } else {
            State::Draining
        }
    }

    /// Closes the listener of a server that does not serve yet, and so has no thread to close it.
    fn close_unserved(&self) {
        let mut steps = self.steps.lock();
        let listener = if steps.busy.is_some() { None } else { steps.listener.take() };
        drop(steps);
        if let Some(listener) = listener {
            listener.close();
        }
    }

    /// Forgets the address, which the server no longer holds.
    pub(super) fn forget_address(&self) {
        *self.address.lock() = None;
        *self.file.lock() = None;
    }
}

impl Registered for Inner {
    fn context(&self) -> &Arc<ServerContext> {
        &self.context
    }

    fn address(&self) -> Option<Address> {
        self.address.lock().clone()
    }

    fn file(&self) -> Option<FileId> {
        *self.file.lock()
    }

    fn leads_to(&self) -> Vec<Endpoint> {
        let shape = self.shape.lock().clone();
        match shape {
            Some(Shape::Stream(service) | Shape::Mixed(service, _)) => service.leads_to(),
            Some(Shape::Datagram(service)) => {
                service.onward().map_or_else(Vec::new, |onward| onward.leads_to())
            }
            _ => Vec::new(),
        }
    }

    fn exempt_caller(&self) {
        self.pool.exempt_caller();
        self.on_demand.handed_out.exempt_caller(&self.context);
    }

    fn signal_stop(&self, cause: Cause, drain: Duration) {
        if self.context.shutdown.begin(cause, drain) == Begun::First {
            self.close_unserved();
            self.context.finish_ledger();
        }
    }

    fn wait(
        &self,
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Option<StopReport>> {
        let report = self.context.wait(deadline, waiter)?;
        if report.is_some() {
            *self.address.lock() = None;
            *self.shape.lock() = None;
        }
        Ok(report)
    }
}
