//! The address that a client connects from: a host with a port, or any address of the machine. Must
//! never use a resolver without a deadline.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use super::endpoint::Address;
use super::resolve;
use super::target::Target;
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};

/// An address to connect from, for either family.
#[derive(Clone, Debug)]
pub struct ConnectSource {
    /// None for any address of the machine.
    host: Option<Target>,
    port: u16,
}

impl ConnectSource {
    /// Any address of the machine. Port 0 lets the system choose one.
    #[must_use]
    pub fn any(port: u16) -> Self {
        Self { host: None, port }
    }

    /// The addresses of a host.
    #[must_use]
    pub fn of(host: Target) -> Self {
        Self { port: host.port(), host: Some(host) }
    }

    /// The port; 0 if the system chooses one.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it stands for any address of either family.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.host.is_none()
    }

    /// Its addresses. Blocks while a name is resolved.
    pub(crate) fn addresses(
        &self,
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<SourceAddresses> {
        let Some(host) = &self.host else {
            let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
            return Ok(SourceAddresses {
                host: String::new(),
                found: any.map(|ip| SocketAddr::new(ip, self.port)).to_vec(),
            });
        };
        let found = resolve::addresses(host, true, deadline, waiter)?;
        let found = found.iter().filter_map(Address::as_ip).collect();
        Ok(SourceAddresses { host: host.host().to_owned(), found })
    }
}

/// The addresses of a source.
pub(crate) struct SourceAddresses {
    host: String,
    found: Vec<SocketAddr>,
}

impl SourceAddresses {
    /// The first address.
    pub(crate) fn first(&self) -> Option<SocketAddr> {
        self.found.first().copied()
    }

    /// The address from which `target` can be connected to: one of the same family. An error of the
    /// resolver if there is none, as of getaddrinfo(3) when it is asked for one family.
    pub(crate) fn fitting(&self, target: SocketAddr) -> Result<SocketAddr> {
        let found = self.found.iter().find(|found| found.is_ipv4() == target.is_ipv4());
        found.copied().ok_or_else(|| Error::Resolve {
            host: self.host.clone(),
            // EAI_ADDRFAMILY of netdb.h, which the `libc` crate lacks for some systems.
            code: -9,
            text: format!(
                "the source has no {} address, and {target} needs one",
                if target.is_ipv4() { "IPv4" } else { "IPv6" }
            ),
        })
    }
}
