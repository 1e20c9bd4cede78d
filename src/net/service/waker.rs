//! Wakes a session from another thread. Must never block.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::AcqRel;

/// Wakes a session from any thread. The message itself lies wherever the service keeps it.
#[derive(Clone)]
pub struct Waker {
    notifier: Arc<dyn Notifier>,
    token: u64,
    /// Set from a `wake` until it is heard, so that a thousand of them are one message.
    pending: Arc<AtomicBool>,
}

impl Waker {
    /// A waker that notifies `notifier` with `token`.
    #[must_use]
    pub fn new(notifier: Arc<dyn Notifier>, token: u64) -> Self {
        Self { notifier, token, pending: Arc::new(AtomicBool::new(false)) }
    }

    /// Makes the session hear `wake` soon. Nothing happens where it has ended. Never blocks.
    pub fn wake(&self) {
        if !self.pending.swap(true, AcqRel) {
            self.notifier.notify(self.token);
        }
    }

    /// Called by the engine just before the session hears `wake`: from here on a new one notifies. Returns
    /// whether `wake` was called since the last time.
    pub fn heard(&self) -> bool {
        self.pending.swap(false, AcqRel)
    }
}

/// The other end of a waker.
pub trait Notifier: Send + Sync {
    /// Never blocks.
    fn notify(&self, token: u64);
}
