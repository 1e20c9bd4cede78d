//! The datagram side of a server: its sockets, the threads that serve them, the records of peers. Must never
//! block on a send, nor send a peer off the loopback more than it may have.

mod admission;
pub(crate) mod amplification;
mod handoff;
mod peer_table;
mod relay;
mod socket;
mod start;

mod errors;
mod send;
mod worker;

pub(crate) use self::handoff::Handoff;
pub(crate) use self::socket::DatagramSockets;
pub use self::socket::MOST_DATAGRAM;
pub(crate) use self::start::start;
