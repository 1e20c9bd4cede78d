//! The shapes of a service: what takes the connections or datagrams of a server. Must never do it.

use std::sync::Arc;

use super::datagrams::Datagrams;
use super::service::Service;

/// What becomes of the connections of a server: the shapes that there are.
#[derive(Clone)]
pub enum Shape {
    /// Workers run a service.
    Stream(Arc<dyn Service>),
    /// Workers have a service answer datagrams.
    Datagram(Arc<dyn Datagrams>),
    /// Threads of the caller's are handed one after the other, as they come free.
    Handler,
    /// Whoever asks is handed the next one; nothing is accepted before.
    Accept,
}
