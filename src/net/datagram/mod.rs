//! The datagram side of a server. Owns its sockets, the threads that serve them, and the records of
//! peers; must never block on a send, nor send a peer outside the loopback more than the limits of
//! `amplification` allow.
//!
//! `start` starts the threads. `socket` is one UDP socket; `worker` serves it with a service in
//! Rust, `relay` forwards its datagrams, `handoff` serves it with the caller's threads: `filler`
//! gives the datagrams to the pool of handlers, `on_demand` to calls of `accept`.
//! `peer_table` holds the records of peers, `admission` opens and closes them, `amplification`
//! decides which senders get an answer. `send` sends batches, `send_one` a single datagram;
//! `errors` classifies errno values.
//! `peer_stages` are the stages of one peer, `staged` moves its datagrams through them, and
//! `fault_changes` tells a thread of a change of the faults.

mod admission;
pub(crate) mod amplification;
mod fault_changes;
mod filler;
mod handoff;
mod on_demand;
mod peer_stages;
mod peer_table;
mod relay;
mod socket;
mod start;

mod errors;
mod send;
mod send_one;
mod staged;
mod worker;

pub(crate) use self::handoff::Handoff;
pub(crate) use self::socket::DatagramSockets;
pub(crate) use self::start::start;
