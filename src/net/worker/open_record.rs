//! The record of a connection that was just accepted. Owns which addresses it contains; must never
//! fail because the peer has left.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::net::address::{Address, Endpoint, Transport};
use crate::net::control::ServerContext;
use crate::net::ledger::{Record, Role};
use crate::net::socket::{Socket, peer_credentials};

/// Makes the record of a connection that was accepted at `local`. Also sets the options that a Unix
/// socket does not inherit.
pub(crate) fn open_record(
    socket: &Socket,
    id: u64,
    peer: Option<Address>,
    local: &Address,
    context: &ServerContext,
) -> Arc<Record> {
    let all = |address: SocketAddr| address.ip().is_unspecified();
    let own = if local.as_ip().is_some_and(all) {
        // The listener is bound to all addresses, so the connection's own must be queried. The
        // query fails if the peer has already reset; the listener's address then has to do.
        let own = socket.options().local_addr().ok();
        own.as_ref().and_then(Address::from_raw)
    } else {
        None
    };
    let local = Endpoint::stream(own.unwrap_or_else(|| local.clone()));
    // Always Some for the families in use. An unspecified peer is better than a lost connection.
    let unspecified = || SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, 0)).into();
    let peer = Endpoint::stream(peer.unwrap_or_else(unspecified));
    let unix = local.transport == Transport::Unix;
    let record = Record::new(id, Role::Server, local, peer).with_trace(context.trace);
    Arc::new(if unix {
        // A Unix socket inherits no options from its listener. A failure is no reason to lose a
        // connection.
        let _ = context.options.apply(socket, Transport::Unix);
        record.with_credentials(peer_credentials(socket))
    } else {
        record.with_socket(socket.as_fd())
    })
}
