//! How a service answers datagrams, or passes them on. Must never name a socket.

use std::sync::Arc;

use super::forwarder_id::ForwarderId;
use super::session::{Peer, SessionResult};
use super::site::Site;
use crate::net::address::Endpoint;
use crate::net::base::Waiter;
use crate::net::error::Result;

/// What a server does with each datagram. All of a server's workers share it; nothing in here may
/// block.
pub trait Datagrams: Send + Sync {
    /// A datagram of a peer's, which may be empty. It is answered, if at all, through `reply`. An error
    /// or a panic closes the account of this peer and of no other.
    fn on_datagram(&self, data: &[u8], from: &Peer, reply: &mut dyn Reply) -> SessionResult;

    /// As `Service::prepare`.
    fn prepare(
        &self,
        _site: &Site,
        _waiter: &mut dyn Waiter,
    ) -> Result<Option<Arc<dyn Datagrams>>> {
        Ok(None)
    }

    /// Where datagrams are passed on to in place of `on_datagram`; None where they are answered.
    fn onward(&self) -> Option<Arc<dyn Onward>> {
        None
    }
}

/// The way of datagrams that are passed on. Nothing in here may block.
pub trait Onward: Send + Sync {
    /// Whom the next peer's datagrams go to.
    fn target(&self) -> Endpoint;

    /// Every address that `target` may say.
    fn leads_to(&self) -> Vec<Endpoint>;

    /// The forwarder that this is, so that it is known where its datagrams come back.
    fn hop(&self) -> ForwarderId;

    /// Nobody is there. Another target may be better.
    fn refused(self: Arc<Self>, target: Endpoint);
}

/// What a datagram is answered through. Nothing here blocks, and nothing calls back into the service.
pub trait Reply {
    /// Sends a datagram to whom the present one came from, once it and a few others are dealt with. Part of
    /// the datagram itself is not copied.
    ///
    /// It may come to nothing, and is then counted: where the system has no room for it, and where
    /// the peer, not being on this machine, would get more than it has sent or than its share.
    fn send(&mut self, data: &[u8]);

    /// Whether the datagram was longer than `Limits.datagram`, and its end is lost.
    fn is_cut(&self) -> bool;
}
