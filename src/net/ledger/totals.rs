//! Sums over all connections of a server. Must never be updated but under the ledger's lock.

use super::closed_by::ClosedBy;
use super::counters::Flow;

/// Sums over all connections of a server since its start. accepted = open + closed, always.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Connections taken from the queue and served.
    pub accepted: u64,
    /// Of these, open now.
    pub open: u64,
    /// Of these, closed.
    pub closed: u64,
    /// Connections over a limit, reset at once; not in `accepted`.
    pub refused: u64,
    /// Failed accepts, whatever the reason.
    pub accept_errors: u64,
    /// Connections that had to wait for a handler, all threads being busy.
    pub waited: u64,
    /// What peers sent.
    pub received: Flow,
    /// What was sent to them.
    pub sent: Flow,
    /// Datagrams that got no answer because of whom they came from, or were sent to.
    pub suspects: u64,
    /// Datagrams that were not sent: no room, or more than a stranger may get.
    pub dropped: u64,
    /// Datagrams received that were longer than `Limits.datagram`.
    pub truncated: u64,
    /// Closed connections by what ended them, in the order of `ClosedBy::NAMES`.
    pub closed_by: [u64; ClosedBy::NAMES.len()],
}
