//! Targets: a host with a port, or the name of a Unix socket, checked for form. Must never use a
//! resolver; that is `resolve`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::endpoint::{Address, canonical, host_port};
use super::unix_name::UnixName;
use crate::net::error::{Error, Result};
use crate::net::sys;

/// The longest domain name in text form (RFC 1035, 2.3.4, without the root label).
pub(crate) const MAX_HOST: usize = 253;

/// A well-formed destination: a host with a port, not yet resolved, or a Unix socket's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    /// Replaces the two fields above, which are then empty.
    unix: Option<UnixName>,
}

impl Target {
    /// Checks the form of a host. Raises `Error::Value`, which says what is wrong with it.
    pub fn new(host: &str, port: u16) -> Result<Self> {
        let bad = |why: &str| {
            let shown: String = host.chars().take(60).collect();
            let dots = if shown.len() < host.len() { "…" } else { "" };
            Err(Error::Value(format!("host {shown:?}{dots}: {why}")))
        };
        if host.is_empty() {
            return bad(
                "use \"0.0.0.0\" or \"::\" for every interface, \"127.0.0.1\" for this machine",
            );
        }
        if host.len() > MAX_HOST {
            return bad(&format!("{} bytes, where a name has at most {MAX_HOST}", host.len()));
        }
        if host.contains(char::is_whitespace) || host.contains(char::is_control) {
            return bad("a host has no spaces and no control characters");
        }
        if host.contains('/') {
            return bad("a host alone, not a URL or a path (a Unix socket is path=…)");
        }
        let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let bare = inner.unwrap_or(host);
        if bare.contains(['[', ']']) || inner.is_some_and(|inner| !inner.contains(':')) {
            return bad("brackets are for an IPv6 address, around all of it");
        }
        // Only IPv6 addresses contain colons, perhaps followed by a scope.
        if bare.contains(':')
            && bare.split('%').next().is_none_or(|ip| ip.parse::<Ipv6Addr>().is_err())
        {
            return bad(
                "no IPv6 address; if that is a port at its end, give it apart: (host, port)",
            );
        }
        Ok(Self { host: bare.to_owned(), port, unix: None })
    }

    /// The target of a Unix socket's name.
    #[must_use]
    pub fn unix(name: UnixName) -> Self {
        Self { host: String::new(), port: 0, unix: Some(name) }
    }

    /// The name of a Unix socket; None for a host.
    #[must_use]
    pub fn as_unix(&self) -> Option<&UnixName> {
        self.unix.as_ref()
    }

    /// The host as given; empty for a Unix socket.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 for a Unix socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, if no resolver is needed: for an IP address or a Unix socket. None for a host
    /// name.
    #[must_use]
    pub fn known(&self) -> Option<Address> {
        let unix = self.unix.clone().map(Address::Unix);
        unix.or_else(|| self.numeric().map(Address::Ip))
    }

    /// The address of a host that is an IP address; None for a host name.
    #[must_use]
    pub fn numeric(&self) -> Option<SocketAddr> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Some(canonical(SocketAddr::new(ip, self.port)));
        }
        let (ip, scope) = self.host.split_once('%')?;
        let ip = ip.parse().ok()?;
        let scope = scope.parse().ok().or_else(|| sys::interface_index(scope))?;
        Some(SocketAddrV6::new(ip, self.port, 0, scope).into())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unix {
            Some(name) => name.fmt(f),
            None => f.write_str(&host_port(&self.host, self.port)),
        }
    }
}

/// Port number of a service name in the system's table, services(5). Makes no network query.
/// `Error::Resolve` for an unknown name, as of getaddrinfo(3).
pub fn port_named(name: &str) -> Result<u16> {
    let unknown = || Error::Resolve {
        host: name.to_owned(),
        code: libc::EAI_SERVICE,
        text: "as a port: no such service name in /etc/services".to_owned(),
    };
    if name.contains('\0') {
        return Err(Error::Value(format!("port {name:?}: a service name has no NUL")));
    }
    if name.is_empty()
        || name.len() > 64
        || name.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err(unknown());
    }
    if name.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+')) {
        return Err(Error::Value(format!("port {name:?}: give a number as int, not str")));
    }
    let found = sys::getaddrinfo(None, Some(name), false).map_err(|_| unknown())?;
    found.first().map(SocketAddr::port).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_hosts_are_rejected() {
        for bad in ["", "a b", "a\0b", "a\nb", &"x".repeat(254)] {
            assert!(matches!(Target::new(bad, 0), Err(Error::Value(_))), "{bad:?}");
        }
        for bad in ["127.0.0.1:80", "localhost:0", "http://a", "::1::", "[]", "[a]", "[::1", "a]"] {
            assert!(matches!(Target::new(bad, 0), Err(Error::Value(_))), "{bad:?}");
        }
        assert!(Target::new("fe80::1%eth0", 0).is_ok());
        assert!(Target::new(&"x".repeat(253), 0).is_ok());
        assert_eq!(Target::new("[::1]", 7).unwrap().numeric(), Some("[::1]:7".parse().unwrap()));
        assert_eq!(Target::new("example.org", 7).unwrap().numeric(), None);
    }
}
