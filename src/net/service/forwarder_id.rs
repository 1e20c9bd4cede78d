//! The number that identifies a forwarder of this process. Must never be reused.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Identifies one forwarder of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwarderId(u64);

impl ForwarderId {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        Self(NUMBER.fetch_add(1, Relaxed))
    }
}
