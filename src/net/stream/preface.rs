//! The header of the PROXY protocol that a client is to send first. Owns which one it is; must never
//! send it.

use crate::net::ledger::ProxyHeader;
use crate::net::stage::proxy_codec;

/// The header that a client sends first.
#[derive(Clone, Debug)]
pub enum Preface {
    /// One of this version, with the addresses of the connection itself.
    Own(u8),
    /// These bytes.
    Given(Vec<u8>),
}

impl Preface {
    /// A header of the caller's. The error says what does not fit into one.
    pub fn given(header: &ProxyHeader) -> std::result::Result<Self, String> {
        proxy_codec::encode(header).map(Self::Given)
    }
}
