//! The datagram side of a server: its sockets, the workers that serve them, and who is answered at all.
//! Owns what UDP servers do not share with others; must never block on a send, nor let one stranger have more
//! of it than his share.
//!
//! `port` is a socket and its end; `worker` the loop; `peers` the accounts of those heard from;
//! `strangers` says who gets no answer.

mod peers;
mod port;
pub(super) mod strangers;
mod worker;

pub(crate) use port::{Port, Ports};
pub(crate) use worker::start_worker;

/// The largest UDP payload there can be, over IPv6 (RFC 768: the length has 16 bits, 8 bytes are the header's).
/// Over IPv4 the system takes 20 bytes less, and says so.
pub const MOST_DATAGRAM: usize = 65_527;
