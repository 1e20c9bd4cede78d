//! The calls of an inner stream that wait now. Owns what the worker of the outer connection reads of
//! them for its limits; must never block, nor take a lock.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst,
};
use std::time::Duration;

use crate::net::control::Limits;
use crate::net::service::WaitingCalls;

/// The calls of one inner stream.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    reading: AtomicU32,
    writing: AtomicU32,
    /// When a call last moved a byte, in nanoseconds since the connection was accepted.
    last_traffic: AtomicU64,
    /// The worker has found that no call waits, and wants to hear of the next one.
    wanted: AtomicBool,
}

/// One call that waits. Dropped, it waits no more.
pub(super) struct WaitingCall<'a>(&'a AtomicU32);

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Release);
    }
}

impl Calls {
    /// None where no limit asks whether a call waits.
    pub(crate) fn for_limits(limits: &Limits) -> Option<Box<Self>> {
        (limits.idle.is_some() || limits.first_byte.is_some()).then(Box::default)
    }

    /// A call begins to wait. Returns also whether the worker wants to hear of it.
    pub(super) fn begin(&self, reads: bool) -> (WaitingCall<'_>, bool) {
        let count = if reads { &self.reading } else { &self.writing };
        // Before the look at the flag: `waiting` sets it before it looks at the counts.
        count.fetch_add(1, SeqCst);
        (WaitingCall(count), self.wanted.swap(false, SeqCst))
    }

    /// A call has moved bytes, so long after the connection was accepted.
    pub(super) fn note_traffic(&self, nanos: u64) {
        self.last_traffic.store(nanos, Relaxed);
    }

    /// The calls that wait now. The next one that begins to wait is told to the worker.
    pub(crate) fn waiting(&self) -> WaitingCalls {
        self.wanted.store(true, SeqCst);
        let reading = self.reading.load(SeqCst) > 0;
        let any = reading || self.writing.load(SeqCst) > 0;
        WaitingCalls {
            any,
            reading,
            last_traffic: Duration::from_nanos(self.last_traffic.load(Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_once_and_counted_while_it_waits() {
        let calls = Calls::default();
        assert!(!calls.begin(true).1, "the worker has not asked");
        assert!(!calls.waiting().any);
        let (reads, wanted) = calls.begin(true);
        assert!(wanted);
        let (writes, wanted) = calls.begin(false);
        assert!(!wanted, "the worker looks again before it wants another");
        assert!(calls.waiting().reading);
        drop(reads);
        assert!(calls.waiting().any && !calls.waiting().reading);
        drop(writes);
        assert!(!calls.waiting().any);
    }

    #[test]
    fn only_limits_that_ask_for_them_have_them() {
        let second = Some(Duration::from_secs(1));
        let limits = |idle, first_byte, write| {
            Calls::for_limits(&Limits { idle, first_byte, write, ..Limits::default() }).is_some()
        };
        assert!(limits(second, None, None) && limits(None, second, None));
        assert!(!limits(None, None, second));
    }
}
