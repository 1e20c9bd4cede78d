//! The configuration of a server. Must never open anything.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::access::Access;
use super::limits::Limits;
use crate::net::address::{Network, Target, Transport};
use crate::net::ledger::TraceLimits;
use crate::net::service::Shape;
use crate::net::socket::SocketOptions;
use crate::net::stage::StageFactory;
use crate::net::stage::faults::Fault;
use crate::net::stage::tls::TlsServer;

/// The configuration of a server.
pub struct Config {
    /// The protocol that carries the bytes. The shape must support it.
    pub transport: Transport,
    /// Whether a UDP server may use an address that other machines can reach.
    pub allow_external: bool,
    /// The address to listen on; with `fd`, only for display.
    pub target: Target,
    /// A listening or unbound socket of the caller, used instead of a new one.
    pub fd: Option<RawFd>,
    /// Whether the bind stops a server of this process that holds the address.
    pub replace: bool,
    /// Whose connections, or datagrams, it serves.
    pub access: Access,
    /// The networks of proxies, whose connections begin with a header of the PROXY protocol. No
    /// other peer is believed.
    pub proxies: Vec<Network>,
    /// What handles the connections.
    pub shape: Shape,
    /// Whether a handler gets the datagrams of a peer one after the other, in their order.
    pub ordered: bool,
    /// Creates the stages between each connection and its session; None for no stages. Used by
    /// workers only.
    pub stages: Option<Arc<dyn StageFactory>>,
    /// TLS of each connection; None for clear text.
    pub tls: Option<Arc<TlsServer>>,
    /// The faults from the first connection on. Given, even if empty, they have the connections of
    /// handlers stay with workers, so that faults can be added at any time.
    pub faults: Option<Vec<Fault>>,
    /// The seed of the faults' random numbers; None for one by chance.
    pub seed: Option<u64>,
    /// Number of worker threads, all started at once; None starts more under load, as far as the
    /// CPUs allow.
    pub workers: Option<usize>,
    /// Socket options.
    pub options: SocketOptions,
    /// Limits.
    pub limits: Limits,
    /// Number of closed connections that the ledger keeps.
    pub history: usize,
    /// Limits of each connection's trace; None for no trace.
    pub trace: Option<TraceLimits>,
    /// How long `stop` drains by default.
    pub drain: Duration,
    /// The server's name in messages.
    pub name: String,
}
