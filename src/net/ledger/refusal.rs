//! The reasons for which a connection, or a datagram, is refused. Must never decide which one
//! applies.

/// Why a connection was refused, or a datagram dropped, before it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The peer's address is in none of the allowed networks.
    Allow,
    /// The peer's address is in a network that is denied.
    Deny,
    /// `Limits.connections` was reached, or the process was out of descriptors.
    Connections,
    /// `Limits.per_host` was reached.
    PerHost,
    /// `Limits.accept_rate` was reached.
    AcceptRate,
}

impl Refusal {
    /// The names of all reasons, in their order: those of the arguments that give them.
    pub const NAMES: [&'static str; 5] =
        ["allow", "deny", "connections", "per_host", "accept_rate"];
}
