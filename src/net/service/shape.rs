//! The shapes of a service: what handles the connections or datagrams of a server. Must never
//! handle them itself.

use std::sync::Arc;

use super::datagrams::Datagrams;
use super::service::Service;

/// Whether the connection with a number is handed out to a thread of the caller.
pub type HandedOutBy = Arc<dyn Fn(u64) -> bool + Send + Sync>;

/// The ways in which a server handles its connections.
#[derive(Clone)]
pub enum Shape {
    /// Workers run a service.
    Stream(Arc<dyn Service>),
    /// Workers call a service that answers datagrams.
    Datagram(Arc<dyn Datagrams>),
    /// Threads of the caller get one connection after the other, as they become free.
    Handler,
    /// Workers run a service for some connections; threads of the caller get the others, as with
    /// `Handler`.
    Mixed(Arc<dyn Service>, HandedOutBy),
    /// Each call of `accept` gets the next connection; none is accepted without a call.
    Accept,
}
