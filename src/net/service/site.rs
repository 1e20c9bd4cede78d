//! The address of a server's listener, as its service sees it. Must never hold a socket.

use crate::net::address::Endpoint;

/// The address of a server's listener.
#[derive(Clone, Debug)]
pub struct Site {
    /// The server's number in this process, which no other server has.
    pub server: u64,
    /// Its address; unspecified if it accepts connections to all addresses of the machine.
    pub local: Endpoint,
    /// Whether "::" includes IPv4.
    pub dual_stack: bool,
}
