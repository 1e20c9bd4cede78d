//! Limits: how much a server takes on before it says no. Must never enforce anything itself.

use std::time::Duration;

use crate::net::address::Transport;
use crate::net::base::process;

/// One in so many of the free descriptors is for pipes, where nobody has said how many connections...
const PIPES_SHARE: usize = 8;
/// ...but no more than this: each holds a connection's bytes for moments only.
const MOST_FOR_PIPES: usize = 512;

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

/// What there is room for in the descriptors of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) connections: usize,
    /// Of two descriptors each, for bulk.
    pub(crate) pipes: usize,
}

impl Limits {
    /// The number of connections to admit, as asked or what is left of the descriptors, and of the pipes
    /// beside them where the service has a use for any.
    ///
    /// The reserve (64, or a quarter where there are few) is for the rest of the process: a server
    /// that took the last descriptor would break its host's next `open()`.
    pub(crate) fn room(&self, transport: Transport, legs: usize, pipes: bool) -> Room {
        if transport == Transport::Udp {
            // They may share a descriptor: this bounds the memory that strangers can take.
            let room = if legs == 0 { UDP_PEERS } else { self.room_of(legs, false).connections };
            let connections = self.connections.unwrap_or(room.min(UDP_PEERS));
            return Room { connections, pipes: 0 };
        }
        self.room_of(legs, pipes)
    }

    fn room_of(&self, legs: usize, pipes: bool) -> Room {
        let (soft, _) = crate::net::sys::fd_limits().unwrap_or((1024, 1024));
        let reserve = 64.min(soft / 4);
        let free = soft.saturating_sub(process::fds_in_use()).saturating_sub(reserve);
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
    fn descriptors_are_shared_out_between_legs_and_pipes() {
        let room = |connections, free, legs, pipes| {
            let room = Limits { connections, ..Limits::default() }.split(free, legs, pipes);
            (room.connections, room.pipes)
        };
        assert_eq!(room(None, 800, 1, false), (800, 0));
        assert_eq!(room(None, 800, 1, true), (700, 50));
        assert_eq!(room(None, 800, 2, true), (350, 50));
        assert_eq!(room(None, 1_000_000, 2, true), (499_744, 256), "no number of pipes is endless");
        assert_eq!(room(None, 0, 2, true), (8, 0));
        // Asked for, connections come first.
        assert_eq!(room(Some(100), 250, 2, true), (100, 25));
        assert_eq!(room(Some(1000), 250, 2, true), (1000, 0));
    }
}
