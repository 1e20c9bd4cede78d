//! Limits: how much load a server accepts. Must never enforce a limit itself.

use std::time::Duration;

use crate::net::address::Transport;
use crate::net::base::process;

/// Without a limit of connections, one in this many free descriptors is for pipes...
const PIPES_SHARE: usize = 8;
/// ...up to this number, because a pipe holds bytes only for a short time.
const MOST_FOR_PIPES: usize = 512;

/// The handling of a connection over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// It waits in the kernel's queue until another connection ends.
    Wait,
    /// It is accepted and reset at once.
    Refuse,
}

/// The longest datagram of UDP: its length field has 16 bits (RFC 768).
const UDP_DATAGRAM: usize = 65_535;
/// The longest datagram that a Unix socket sends unless it has set its send buffer: Linux's default
/// for net.core.wmem_default, less what the kernel keeps of it.
const UNIX_DATAGRAM: usize = 212_992 - 32;

/// Default maximum number of open peer records of a UDP server.
const UDP_PEERS: usize = 4096;

/// The limits of one server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Maximum number of connections; None is the number that the free descriptors allow at the
    /// start.
    pub connections: Option<usize>,
    /// Maximum number of connections from one address; more are always refused.
    pub per_host: Option<usize>,
    /// The handling of connections above `connections`.
    pub overflow: Overflow,
    /// Maximum number of connections accepted each second, as many at once after a pause; more are
    /// handled as `overflow` says.
    pub accept_rate: Option<f64>,
    /// How many handshakes of TLS are made at once with clients; further ones wait.
    pub handshakes: Option<usize>,
    /// Maximum time without a byte in either direction.
    pub idle: Option<Duration>,
    /// Maximum time from the accept to the peer's first byte.
    pub first_byte: Option<Duration>,
    /// Maximum time without progress while data is unsent.
    pub write: Option<Duration>,
    /// Maximum time from our FIN to the peer's, and for sending the rest after the peer's. None is
    /// no limit. The answer of a forwarder's target is not bounded by it, but by `idle`.
    pub half_close: Option<Duration>,
    /// Maximum time from the accept to the end of the connection.
    pub lifetime: Option<Duration>,
    /// Maximum length of a line in bytes, including its ending, for services that read lines.
    pub line: usize,
    /// High water of the unsent bytes on one leg; low water is a quarter.
    pub write_buffer: usize,
    /// Maximum bytes of one datagram; a longer one is cut.
    pub datagram: usize,
    /// Maximum number of handlers at a time; further connections wait for one to return.
    pub handler_threads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: None,
            per_host: None,
            overflow: Overflow::Wait,
            accept_rate: None,
            handshakes: None,
            idle: None,
            first_byte: None,
            write: Some(Duration::from_secs(60)),
            half_close: Some(Duration::from_secs(30)),
            lifetime: None,
            line: 65_536,
            write_buffer: 64 * 1024,
            datagram: UDP_DATAGRAM,
            handler_threads: 256,
        }
    }
}

/// Numbers that fit into the process's free descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) connections: usize,
    /// Pipes for splicing, of two descriptors each.
    pub(crate) pipes: usize,
}

impl Limits {
    /// The default of `datagram`: what a sender can send.
    #[must_use]
    pub fn usual_datagram(transport: Transport) -> usize {
        if transport.is_unix() { UNIX_DATAGRAM } else { UDP_DATAGRAM }
    }

    /// The number of connections to admit: as configured, or what the free descriptors allow. Also
    /// the number of pipes, if the service uses any.
    ///
    /// The reserve (64, or a quarter of a small limit) is for the rest of the process: a server
    /// that took the last descriptor would make the next `open()` of its host program fail.
    pub(crate) fn room(&self, transport: Transport, legs: usize, pipes: bool) -> Room {
        if transport.is_datagram() {
            // Peers may share a descriptor: this bounds the memory that any senders can use.
            let room = if legs == 0 { UDP_PEERS } else { self.room_of(legs, false, 0).connections };
            let connections = self.connections.unwrap_or(room.min(UDP_PEERS));
            return Room { connections, pipes: 0 };
        }
        self.room_of(legs, pipes, 0)
    }

    /// The number of connections of `legs` descriptors to admit, where the server has `held`
    /// already, which will be free again.
    pub(crate) fn connections_again(&self, legs: usize, pipes: bool, held: usize) -> usize {
        self.room_of(legs, pipes, held).connections
    }

    fn room_of(&self, legs: usize, pipes: bool, held: usize) -> Room {
        let (soft, _) = crate::net::sys::fd_limits().unwrap_or((1024, 1024));
        let reserve = 64.min(soft / 4);
        let free = soft.saturating_add(held as u64).saturating_sub(process::fds_in_use());
        let free = free.saturating_sub(reserve);
        self.split(usize::try_from(free).unwrap_or(usize::MAX), legs, pipes)
    }

    fn split(&self, free: usize, legs: usize, pipes: bool) -> Room {
        let of_pipes = match self.connections {
            Some(connections) => free.saturating_sub(connections.saturating_mul(legs)),
            None => free / PIPES_SHARE,
        };
        let of_pipes = if pipes { of_pipes.min(MOST_FOR_PIPES) } else { 0 };
        let connections = self.connections.unwrap_or(((free - of_pipes) / legs).max(8));
        Room { connections, pipes: of_pipes / 2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_split_between_legs_and_pipes() {
        let room = |connections, free, legs, pipes| {
            let room = Limits { connections, ..Limits::default() }.split(free, legs, pipes);
            (room.connections, room.pipes)
        };
        assert_eq!(room(None, 800, 1, false), (800, 0));
        assert_eq!(room(None, 800, 1, true), (700, 50));
        assert_eq!(room(None, 800, 2, true), (350, 50));
        assert_eq!(
            room(None, 1_000_000, 2, true),
            (499_744, 256),
            "the number of pipes is bounded"
        );
        assert_eq!(room(None, 0, 2, true), (8, 0));
        // With a configured limit, connections have priority.
        assert_eq!(room(Some(100), 250, 2, true), (100, 25));
        assert_eq!(room(Some(1000), 250, 2, true), (1000, 0));
    }
}
