//! The pace of a line: when a number of bytes has gone through it. Must never let more bytes
//! through than its rate allows since it was last unused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::later;
use crate::net::base::Mutex;

/// How much lost time is made up for, where a thread comes late to a line that is in use. More than
/// a busy machine keeps a thread waiting.
const MOST_LATE: Duration = Duration::from_millis(250);

/// The time that one piece takes, at most: short enough that a line which several connections share
/// goes around quickly.
const PIECE_SECONDS: f64 = 0.01;

/// A line with a rate, which one connection has for itself or several share.
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    bytes_per_second: f64,
    /// When everything that was reserved has gone through.
    free: Arc<Mutex<Option<Instant>>>,
}

impl Pacer {
    pub(super) fn new(bytes_per_second: f64) -> Self {
        Self { bytes_per_second, free: Arc::default() }
    }

    /// Reserves the line for `bytes`. Returns when the last of them has gone through. `is_busy`
    /// says that the caller has kept the line in use until now: no time is lost if it comes late.
    pub(super) fn reserve(&self, now: Instant, bytes: usize, is_busy: bool) -> Instant {
        let seconds = bytes as f64 / self.bytes_per_second;
        let time = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let mut free = self.free.lock();
        let late = if is_busy { MOST_LATE } else { Duration::ZERO };
        let from = now.checked_sub(late).unwrap_or(now);
        let due = later(free.map_or(now, |free| free.max(from)), time);
        *free = Some(due);
        due
    }

    /// The bytes that go through at once: at least one, at most `most`.
    pub(super) fn piece(&self, most: usize) -> usize {
        ((self.bytes_per_second * PIECE_SECONDS) as usize).min(most).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_line_in_use_makes_up_for_a_late_thread_and_an_unused_one_does_not() {
        let start = Instant::now();
        let pacer = Pacer::new(1000.0);
        assert_eq!(pacer.reserve(start, 10, false), start + 10 * MS);
        assert_eq!(pacer.reserve(start + 15 * MS, 10, true), start + 20 * MS);
        assert_eq!(pacer.reserve(start + 50 * MS, 10, false), start + 60 * MS);
        let late = start + 10_000 * MS;
        assert_eq!(pacer.reserve(late, 10, true), late - MOST_LATE + 10 * MS);
    }

    #[test]
    fn those_who_share_a_line_wait_for_each_other() {
        let start = Instant::now();
        let (one, other) = (Pacer::new(1000.0), Pacer::new(1000.0));
        let same = one.clone();
        assert_eq!(one.reserve(start, 10, false), start + 10 * MS);
        assert_eq!(same.reserve(start, 10, false), start + 20 * MS);
        assert_eq!(other.reserve(start, 10, false), start + 10 * MS);
    }

    #[test]
    fn a_rate_without_end_and_one_of_almost_nothing_are_no_special_cases() {
        let start = Instant::now();
        assert_eq!(Pacer::new(f64::MAX).reserve(start, 1 << 30, false), start);
        assert_eq!(Pacer::new(f64::MAX).piece(4096), 4096);
        assert!(Pacer::new(f64::MIN_POSITIVE).reserve(start, 1, false) > start + 1000 * MS);
        assert_eq!(Pacer::new(0.5).piece(4096), 1);
    }
}
