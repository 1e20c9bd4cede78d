//! Limits: how much a server takes on before it says no. Must never enforce anything itself.

use std::time::Duration;

use super::endpoint::Transport;
use super::process;

/// What happens to a connection over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It waits in the kernel's queue until another one leaves.
    Wait,
    /// It is accepted and reset at once.
    Refuse,
}

/// Peers of a UDP server that are remembered as open at a time.
const UDP_PEERS: usize = 4096;

/// The limits of one server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time; None is what the process's descriptors allow when it starts.
    pub connections: Option<usize>,
    /// Connections at a time from one address; more are always refused.
    pub per_host: Option<usize>,
    /// What happens above `connections`.
    pub overflow: Overflow,
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
    /// From the accept to the peer's first byte.
    pub first_byte: Option<Duration>,
    /// Without progress though something is to be sent.
    pub write: Option<Duration>,
    /// Our FIN to theirs, and what is owed after theirs; None waits for ever.
    pub half_close: Option<Duration>,
    /// How long a line may be, its ending included, for services that read lines.
    pub line: usize,
    /// High water of the bytes waiting to be sent on one leg; low water is a quarter.
    pub write_buffer: usize,
    /// Bytes of one datagram; what is longer is cut.
    pub datagram: usize,
    /// Handlers at a time; connections beyond that wait for one to return.
    pub handler_threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            per_host: None,
            overflow: Overflow::Wait,
            idle: None,
            first_byte: None,
            write: Some(Duration::from_secs(60)),
            half_close: Some(Duration::from_secs(30)),
            line: 65_536,
            write_buffer: 64 * 1024,
            datagram: 65_535,
            handler_threads: 256,
        }
    }
}

impl Limits {
    /// The number of connections to admit: as asked, or what is left of the descriptors.
    ///
    /// The reserve (64, or a quarter where there are few) is for the rest of the process: a server
    /// that took the last descriptor would break its host's next `open()`.
    pub(crate) fn admitted(&self, transport: Transport, legs: u64) -> usize {
        if let Some(connections) = self.connections {
            return connections;
        }
        if transport == Transport::Udp {
            // They share a descriptor: this bounds the memory that strangers can take.
            return UDP_PEERS;
        }
        let (soft, _) = super::sys::fd_limits().unwrap_or((1024, 1024));
        let reserve = 64.min(soft / 4);
        let free = soft.saturating_sub(process::fds_in_use()).saturating_sub(reserve);
        usize::try_from(free / legs).unwrap_or(usize::MAX).max(8)
    }
}
