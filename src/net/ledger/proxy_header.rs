//! What a header of the PROXY protocol says. Must never decide whether it is believed.

use crate::net::address::Address;

/// What a header of the PROXY protocol says about the connection that a proxy has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Version of the protocol, 1 or 2.
    pub version: u8,
    /// Who connected to the proxy; None where the header does not tell (LOCAL, UNKNOWN): the
    /// connection is the proxy's own.
    pub source: Option<Address>,
    /// The address at which the proxy accepted that connection.
    pub destination: Option<Address>,
    /// What else it says, by type.
    pub tlvs: Vec<(u8, Vec<u8>)>,
    /// Its length in bytes.
    pub length: usize,
}
