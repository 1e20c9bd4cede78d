//! Networks: ranges of addresses, and Unix sockets as a whole. Owns how they are written; must never
//! use a resolver.

use std::fmt;
use std::net::IpAddr;

use super::endpoint::{Address, canonical};
use crate::net::error::{Error, Result};

/// A network: the addresses that begin with the same bits, or all Unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The addresses of `base` with other bits behind the first `prefix`.
    Ip {
        /// The first address.
        base: IpAddr,
        /// How many bits are the network's.
        prefix: u8,
    },
    /// Every Unix socket.
    Unix,
}

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32`, a single address, or the word `unix`. `Error::Value`
    /// for anything else, which begins with `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::Value(format!("{name} {text:?}: {why}"));
        if text == "unix" {
            return Ok(Self::Unix);
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let no_network =
            || wrong("no network; write 10.0.0.0/8, 2001:db8::/32, an address, or 'unix'");
        let base: IpAddr = address.parse().map_err(|_| no_network())?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let number = digits.parse().ok().filter(|number| *number <= bits);
                number.ok_or_else(|| wrong(&format!("the prefix must be from 0 to {bits}")))?
            }
            Some(_) => return Err(no_network()),
        };
        let first = masked(base, prefix);
        if first != base {
            return Err(wrong(&format!(
                "the address has bits behind the prefix; did you mean {first}/{prefix}?"
            )));
        }
        // What an IPv4 peer of a dual-stack port has: the same network of IPv4.
        match base {
            IpAddr::V6(v6) if prefix >= 96 => match v6.to_ipv4_mapped() {
                Some(v4) => Ok(Self::Ip { base: v4.into(), prefix: prefix - 96 }),
                None => Ok(Self::Ip { base, prefix }),
            },
            _ => Ok(Self::Ip { base, prefix }),
        }
    }

    /// Whether an address is in it. An IPv4-mapped one counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        match (self, address) {
            (Self::Unix, Address::Unix(_)) => true,
            (Self::Ip { base, prefix }, Address::Ip(address)) => {
                let ip = canonical(*address).ip();
                ip.is_ipv4() == base.is_ipv4() && masked(ip, *prefix) == *base
            }
            _ => false,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip { base, prefix } => write!(f, "{base}/{prefix}"),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// The first address of the network of an address.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            std::net::Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            std::net::Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        Network::parse("allow", text).map_or_else(|error| error.to_string(), |it| it.to_string())
    }

    #[test]
    fn networks_are_read_as_they_are_written() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "::/0", "2001:db8::/32", "unix"] {
            assert_eq!(parsed(text), text);
        }
        assert_eq!(parsed("192.0.2.1"), "192.0.2.1/32");
        assert_eq!(parsed("::1"), "::1/128");
        assert_eq!(parsed("::ffff:10.0.0.0/104"), "10.0.0.0/8");
    }

    #[test]
    fn what_is_no_network_is_named() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10/8", "::/129", "x", "/8"] {
            assert!(parsed(text).contains(&format!("allow {text:?}: ")), "{}", parsed(text));
        }
        assert!(parsed("10.1.0.0/8").ends_with("did you mean 10.0.0.0/8?"));
    }

    #[test]
    fn an_ipv4_mapped_address_counts_as_ipv4() {
        let network = Network::parse("allow", "10.0.0.0/8").unwrap();
        let within = |text: &str| network.contains(&Address::Ip(text.parse().unwrap()));
        assert!(within("10.255.0.1:1") && within("[::ffff:10.1.2.3]:1"));
        assert!(!within("11.0.0.0:1") && !within("[::10.0.0.1]:1"));
        let all = Network::parse("allow", "::/0").unwrap();
        assert!(!all.contains(&Address::Ip("10.0.0.1:1".parse().unwrap())));
    }
}
