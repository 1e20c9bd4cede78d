//! Who may connect: networks that are allowed, and networks that are denied. Owns the order in which
//! they are asked; must never close a connection.

use crate::net::address::{Address, Network};
use crate::net::ledger::Refusal;

/// The peers that a server serves.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Empty for every network.
    pub allow: Vec<Network>,
    /// Networks whose peers are refused, also where `allow` has them.
    pub deny: Vec<Network>,
}

impl Access {
    /// Why a peer is refused; None for one that is served. None for `peer` is one whose address is
    /// not known, which only a server without lists serves.
    #[must_use]
    pub fn refusal(&self, peer: Option<&Address>) -> Option<Refusal> {
        if self.allow.is_empty() && self.deny.is_empty() {
            return None;
        }
        let is_in =
            |networks: &[Network]| networks.iter().any(|it| peer.is_some_and(|at| it.contains(at)));
        if peer.is_none() || is_in(&self.deny) {
            return Some(Refusal::Deny);
        }
        let is_allowed = self.allow.is_empty() || is_in(&self.allow);
        (!is_allowed).then_some(Refusal::Allow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denied_network_within_an_allowed_one_is_refused() {
        let networks = |texts: &[&str]| {
            texts.iter().map(|text| Network::parse("allow", text).unwrap()).collect()
        };
        let access = Access { allow: networks(&["10.0.0.0/8"]), deny: networks(&["10.1.0.0/16"]) };
        let refusal = |text: &str| access.refusal(Some(&Address::Ip(text.parse().unwrap())));
        assert_eq!(refusal("10.0.0.1:1"), None);
        assert_eq!(refusal("10.1.0.1:1"), Some(Refusal::Deny));
        assert_eq!(refusal("[::ffff:10.1.0.1]:1"), Some(Refusal::Deny));
        assert_eq!(refusal("11.0.0.1:1"), Some(Refusal::Allow));
        assert_eq!(access.refusal(None), Some(Refusal::Deny));
        assert_eq!(Access::default().refusal(None), None);
    }
}
