//! Opens the record of a connection that was just accepted. Must never fail because the peer has left.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::net::address::{Address, Endpoint, Transport};
use crate::net::control::ServerContext;
use crate::net::ledger::{Record, Role};
use crate::net::socket::{Socket, peer_credentials};

/// The record of a connection that was just accepted at `local`. Sets the options that a Unix socket does not
/// inherit.
pub(crate) fn open_record(
    socket: &Socket,
    id: u64,
    peer: Option<Address>,
    local: &Address,
    context: &ServerContext,
) -> Arc<Record> {
    let all = |address: SocketAddr| address.ip().is_unspecified();
    let own = if local.as_ip().is_some_and(all) {
        // The listener has all addresses: which one it is has to be asked for. Fails where the peer
        // has reset already; the listener's own is right then too.
        let own = socket.options().local_addr().ok();
        own.as_ref().and_then(Address::from_raw)
    } else {
        None
    };
    let local = Endpoint::stream(own.unwrap_or_else(|| local.clone()));
    // Never None for the families there are; an unspecified peer is better than a lost connection.
    let nobody = || SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, 0)).into();
    let peer = Endpoint::stream(peer.unwrap_or_else(nobody));
    let unix = local.transport == Transport::Unix;
    let record = Record::new(id, Role::Server, local, peer).with_trace(context.trace);
    Arc::new(if unix {
        // It inherits nothing of its listener's. Fails for no reason worth a connection.
        let _ = context.options.apply(socket, Transport::Unix);
        record.with_credentials(peer_credentials(socket))
    } else {
        record.with_socket(socket.as_fd())
    })
}
