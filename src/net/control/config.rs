//! All that a server is made of. Must never open anything.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::limits::Limits;
use crate::net::address::{Target, Transport};
use crate::net::ledger::TraceLimits;
use crate::net::service::Shape;
use crate::net::socket::SocketOptions;
use crate::net::stage::StageFactory;

/// All that a server is made of.
pub struct Config {
    /// How bytes travel. The shape must be one for it.
    pub transport: Transport,
    /// Whether a UDP server may have an address that strangers can reach.
    pub allow_external: bool,
    /// Where to listen; with `fd`, only for display.
    pub target: Target,
    /// A listening or unbound socket of the caller's, in place of an own one.
    pub fd: Option<RawFd>,
    /// What is done with each connection.
    pub shape: Shape,
    /// Makes the stages between each connection and its session; None for none. Only of workers.
    pub stages: Option<Arc<dyn StageFactory>>,
    /// Worker threads: so many from the start, or None for as many as load asks and the CPUs allow.
    pub workers: Option<usize>,
    /// Socket options.
    pub options: SocketOptions,
    /// Limits.
    pub limits: Limits,
    /// Closed connections that the ledger remembers.
    pub history: usize,
    /// What is remembered of the bytes of each; None for nothing.
    pub trace: Option<TraceLimits>,
    /// How long `stop` drains when it is not told otherwise.
    pub drain: Duration,
    /// The server's name in messages.
    pub name: String,
}
