//! The wake-up of a session from another thread. Must never block.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::AcqRel;

/// Wakes a session from any thread. Carries no message: the service stores it elsewhere.
#[derive(Clone)]
pub struct Waker {
    notifier: Arc<dyn Notifier>,
    token: u64,
    /// Set from `wake` until the session receives the event, so that a thousand calls send one
    /// notification.
    pending: Arc<AtomicBool>,
}

impl Waker {
    /// A waker that notifies `notifier` with `token`.
    #[must_use]
    pub fn new(notifier: Arc<dyn Notifier>, token: u64) -> Self {
        Self { notifier, token, pending: Arc::new(AtomicBool::new(false)) }
    }

    /// Makes the engine call `Session::wake` soon. Does nothing if the session has ended. Never
    /// blocks.
    pub fn wake(&self) {
        if !self.pending.swap(true, AcqRel) {
            self.notifier.notify(self.token);
        }
    }

    /// Called by the engine just before `Session::wake`: a later call of `wake` notifies again.
    /// Returns whether `wake` was called since the previous call.
    pub fn heard(&self) -> bool {
        self.pending.swap(false, AcqRel)
    }
}

/// The receiver of a waker's notifications.
pub trait Notifier: Send + Sync {
    /// Schedules the session of `token`. Never blocks.
    fn notify(&self, token: u64);
}
