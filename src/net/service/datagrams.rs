//! The contract of a service that answers or forwards datagrams. Must never name a socket.

use std::sync::Arc;

use super::forwarder_id::ForwarderId;
use super::session::{Peer, SessionResult};
use super::site::Site;
use crate::net::address::Endpoint;
use crate::net::base::Waiter;
use crate::net::error::Result;
use crate::net::recording::Recorder;

/// The handling of datagrams by a service. All workers of a server share it; its methods must not
/// block.
pub trait Datagrams: Send + Sync {
    /// Handles one datagram of a peer, which may be empty, and may answer through `reply`. An error
    /// or a panic closes the record of this peer only.
    fn on_datagram(&self, data: &[u8], from: &Peer, reply: &mut dyn Reply) -> SessionResult;

    /// As `Service::prepare`.
    fn prepare(
        &self,
        _site: &Site,
        _waiter: &mut dyn Waiter,
    ) -> Result<Option<Arc<dyn Datagrams>>> {
        Ok(None)
    }

    /// The forwarding of datagrams, which replaces `on_datagram`; None if the service answers them.
    fn onward(&self) -> Option<Arc<dyn Onward>> {
        None
    }
}

/// Forwards datagrams. Its methods must not block.
pub trait Onward: Send + Sync {
    /// The address for the next peer's datagrams.
    fn target(&self) -> Endpoint;

    /// Every address that `target` may return.
    fn leads_to(&self) -> Vec<Endpoint>;

    /// What records all peers; None for none.
    fn recorder(&self) -> Option<Arc<Recorder>> {
        None
    }

    /// The forwarder's number, by which its own datagrams are recognised when they come back.
    fn forwarder(&self) -> ForwarderId;

    /// Reports that `target` refused a datagram, so that the next call of `target` may select
    /// another.
    fn refused(self: Arc<Self>, target: Endpoint);
}

/// Sends the answers to one datagram. Never blocks, and never calls the service.
pub trait Reply {
    /// Sends a datagram to the sender of the current one, after the current batch of a few
    /// datagrams is processed. A part of the received datagram is not copied.
    ///
    /// The answer may be dropped and counted: if the system has no buffer space, or if the peer is
    /// on another machine and would get more bytes than it has sent or than its share.
    fn send(&mut self, data: &[u8]);

    /// Whether the datagram was longer than `Limits.datagram` and its end was discarded.
    fn is_cut(&self) -> bool;
}
