//! Where a server listens, as its service sees it. Must never hold a socket.

use crate::net::address::Endpoint;

/// Where a server listens.
#[derive(Clone, Debug)]
pub struct Site {
    /// Its own address, an unspecified one where it takes connections to all of the machine's.
    pub local: Endpoint,
    /// Whether "::" is for IPv4 too.
    pub dual_stack: bool,
}
