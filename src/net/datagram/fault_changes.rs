//! How a thread that serves datagrams learns of changed faults. Owns the confirmations that the
//! thread owes; must never block.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::net::base::{EventFd, Mutex};
use crate::net::control::{SeenResets, ServerContext};
use crate::net::stage::faults::{Ack, FaultListener};

/// The changes of the faults that one thread has not seen yet.
pub(super) struct FaultChanges {
    /// None once the thread has ended: it has no peers any more. No descriptor is kept then.
    state: Mutex<Option<State>>,
    pending: AtomicBool,
    /// The resets that have ended its peers.
    resets: SeenResets,
}

struct State {
    acks: Vec<Ack>,
    /// Wakes the thread.
    flag: Arc<EventFd>,
}

impl FaultChanges {
    /// Registers a thread that `flag` wakes.
    pub(super) fn listen(context: &ServerContext, flag: Arc<EventFd>) -> Arc<Self> {
        let state = Mutex::new(Some(State { acks: Vec::new(), flag }));
        let resets = SeenResets::new(&context.resets);
        let changes = Arc::new(Self { state, pending: AtomicBool::new(false), resets });
        let listener: Arc<dyn FaultListener> = Arc::clone(&changes) as Arc<dyn FaultListener>;
        context.faults.listen(Arc::downgrade(&listener));
        changes
    }

    /// Whether there are some.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(SeqCst)
    }

    /// Whether the server was reset since the last call: the thread closes its peers.
    pub(super) fn is_reset(&self, context: &ServerContext) -> bool {
        self.resets.sees_another(&context.resets)
    }

    /// Takes the confirmations. The thread drops them when its peers have the faults of now.
    pub(super) fn take(&self) -> Vec<Ack> {
        self.pending.store(false, SeqCst);
        let mut state = self.state.lock();
        state.as_mut().map(|state| std::mem::take(&mut state.acks)).unwrap_or_default()
    }

    /// Confirms all, also those that come later: the thread has ended.
    pub(super) fn end(&self) {
        drop(self.state.lock().take());
    }

    /// Wakes the thread for another reason: stages are due earlier than they were.
    pub(super) fn wake(&self) {
        if let Some(state) = &*self.state.lock() {
            state.flag.set();
        }
    }
}

impl FaultListener for FaultChanges {
    fn faults_changed(&self, ack: Ack) {
        if let Some(state) = &mut *self.state.lock() {
            state.acks.push(ack);
            self.pending.store(true, SeqCst);
            state.flag.set();
        }
    }

    fn is_lost(&self) -> bool {
        self.state.lock().as_ref().is_some_and(|state| state.flag.is_lost())
    }
}
