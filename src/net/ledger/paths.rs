//! Distributions of what the kernel measured on the paths of closed connections. Owns the bounds of
//! the buckets; must never be updated without the ledger's lock.

use crate::net::socket::TcpInfo;

/// Upper bounds of the round-trip times, in microseconds.
pub const RTT_BOUNDS: [u32; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000,
];
/// Upper bounds of the numbers of segments that were sent again.
pub const RETRANSMIT_BOUNDS: [u32; 8] = [0, 1, 2, 5, 10, 25, 100, 1_000];

/// How many values were at most each bound; the last count is of those above all bounds.
#[derive(Clone, Debug)]
pub struct Histogram<const N: usize> {
    /// For each bound, the values that are at most this bound and above the one before it.
    pub counts: [u64; N],
    /// The values above all bounds.
    pub above: u64,
    /// The sum of all values.
    pub sum: u64,
}

impl<const N: usize> Histogram<N> {
    fn add(&mut self, bounds: &[u32; N], value: u32) {
        match bounds.iter().position(|bound| value <= *bound) {
            Some(index) => self.counts[index] += 1,
            None => self.above += 1,
        }
        self.sum += u64::from(value);
    }
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { counts: [0; N], above: 0, sum: 0 }
    }
}

/// The last TCP_INFO of each closed connection, in two histograms.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// The smoothed round-trip times, in microseconds.
    pub rtt: Histogram<{ RTT_BOUNDS.len() }>,
    /// The segments that were sent again.
    pub retransmits: Histogram<{ RETRANSMIT_BOUNDS.len() }>,
}

impl Paths {
    /// Adds a closed connection; None, which has no TCP, adds nothing.
    pub(super) fn add(&mut self, info: Option<&TcpInfo>) {
        if let Some(info) = info {
            self.rtt.add(&RTT_BOUNDS, info.raw.rtt);
            self.retransmits.add(&RETRANSMIT_BOUNDS, info.raw.total_retrans);
        }
    }
}
