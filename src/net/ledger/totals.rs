//! Sums over all connections of a server. Must never be updated without the ledger's lock.

use super::closed_by::ClosedBy;
use super::counters::Flow;
use super::refusal::Refusal;
use super::tls_info::TlsInfo;

/// Sums over TLS handshakes with one kind of peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handshakes {
    /// Those that were completed, in the order of `TlsInfo::VERSIONS`.
    pub completed: [u64; TlsInfo::VERSIONS.len()],
    /// Those of them that continued an earlier session.
    pub resumed: u64,
    /// Connections that ended during their handshake.
    pub failed: u64,
}

impl Handshakes {
    /// Counts one that was completed.
    pub(super) fn count(&mut self, info: &TlsInfo) {
        for (version, count) in TlsInfo::VERSIONS.iter().zip(&mut self.completed) {
            *count += u64::from(*version == info.version);
        }
        self.resumed += u64::from(info.resumed);
    }
}

/// Sums over all connections of a server since its start. `accepted` always equals `open` +
/// `closed`.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Connections taken from the queue and served.
    pub accepted: u64,
    /// Accepted connections that are open now.
    pub open: u64,
    /// Accepted connections that are closed.
    pub closed: u64,
    /// Connections reset at once, and datagrams dropped, because of a limit or of their addresses;
    /// not in `accepted`.
    pub refused: u64,
    /// The same by reason, in the order of `Refusal::NAMES`.
    pub refused_by: [u64; Refusal::NAMES.len()],
    /// Connections of proxies that began with no valid header of the PROXY protocol.
    pub proxy_errors: u64,
    /// TLS handshakes with clients.
    pub tls: Handshakes,
    /// Those of forwarders with their targets.
    pub target_tls: Handshakes,
    /// Failed accepts, for any reason.
    pub accept_errors: u64,
    /// Connections that waited for a handler because all threads were busy.
    pub waited: u64,
    /// Data received from peers.
    pub received: Flow,
    /// Data sent to peers.
    pub sent: Flow,
    /// Datagrams that were not answered because of their source or destination address.
    pub suspects: u64,
    /// Datagrams that were not sent: no buffer space, or over the limit for unverified senders.
    pub dropped: u64,
    /// Received datagrams that were longer than `Limits.datagram`.
    pub truncated: u64,
    /// Closed connections by cause, in the order of `ClosedBy::NAMES`.
    pub closed_by: [u64; ClosedBy::NAMES.len()],
}
