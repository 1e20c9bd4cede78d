//! What a load has measured. Must never hold more than its histogram needs, however long it runs.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Times of answers, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// The shortest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// 90 % are not longer.
    pub p90: f64,
    /// 99 % are not longer.
    pub p99: f64,
    /// 99.9 % are not longer.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

/// What a load has measured.
#[derive(Debug)]
pub struct Driven {
    /// Messages that were answered.
    pub messages: u64,
    /// Messages that were not.
    pub missing: u64,
    /// Bytes of the answers.
    pub bytes: u64,
    /// From the first connect to the last answer.
    pub elapsed: Duration,
    /// How many connections ended early, by the cause.
    pub errors: BTreeMap<&'static str, u64>,
    times: Histogram<u64>,
}

impl Driven {
    pub(super) fn new() -> Self {
        // From 1 ns to an hour, to three digits.
        let times = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("valid bounds");
        let (messages, missing, bytes) = (0, 0, 0);
        Self { messages, missing, bytes, elapsed: Duration::ZERO, errors: BTreeMap::new(), times }
    }

    pub(super) fn answered(&mut self, bytes: usize, after: Duration) {
        self.messages += 1;
        self.bytes += bytes as u64;
        self.times.saturating_record(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX).max(1));
    }

    pub(super) fn failed(&mut self, cause: &'static str) {
        *self.errors.entry(cause).or_default() += 1;
    }

    /// The times of the answers; None if there was none.
    #[must_use]
    pub fn latency(&self) -> Option<Latency> {
        let times = &self.times;
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        let at = |share: f64| seconds(times.value_at_quantile(share));
        (!times.is_empty()).then(|| Latency {
            min: seconds(times.min()),
            mean: times.mean() / 1e9,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: seconds(times.max()),
        })
    }
}
