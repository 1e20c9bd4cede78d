//! The datagram side of a server: its sockets, the threads that serve them, the records of peers. Must never
//! block on a send, nor send a peer off the loopback more than it may have.

pub mod admission;
pub mod amplification;
pub mod handoff;
pub mod peer_table;
pub mod relay;
pub mod socket;
pub mod start;

pub mod errors;
pub mod send;
pub mod worker;

pub(crate) use self::handoff::Handoff;
pub(crate) use self::socket::DatagramSockets;
pub use self::socket::MOST_DATAGRAM;
