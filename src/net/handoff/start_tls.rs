//! STARTTLS: TLS on a connection that is in use. Owns the choice of the worker that has the
//! connection from then on; must never begin a handshake by itself.

use rustls_pki_types::ServerName;

use super::client_faults::reserve_for_tls;
use crate::net::base::Waiter;
use crate::net::error::Result;
use crate::net::stage::tls::{TlsClient, TlsServer};
use crate::net::stream::Stream;

/// Begins TLS on an accepted connection, and waits for the end of the handshake.
pub fn start_tls_as_server(
    stream: &Stream,
    tls: &TlsServer,
    waiter: &mut dyn Waiter,
) -> Result<()> {
    stream.start_tls(|| Ok(tls.stage()), &mut reserve_for_tls, waiter)
}

/// The same on the connection of a client. The certificate of the server must be valid for `name`;
/// None for the host that the client has connected to.
pub fn start_tls_as_client(
    stream: &Stream,
    tls: &TlsClient,
    name: Option<ServerName<'static>>,
    waiter: &mut dyn Waiter,
) -> Result<()> {
    let stage = || {
        let name = name.map_or_else(|| tls.verified_name(stream.host().as_deref()), Ok)?;
        Ok(tls.stage(name))
    };
    stream.start_tls(stage, &mut reserve_for_tls, waiter)
}
