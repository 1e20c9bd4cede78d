//! The TLS of clients: what they verify, and the name. Must never connect one.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

use super::roots::Roots;
use super::settings::TlsSettings;
use super::tls_stage::TlsStage;
use crate::net::error::{Error, Result};
use crate::net::stage::stage::Stage;

/// The TLS of clients.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsClient(…)")
    }
}

impl TlsClient {
    /// Of settings. `system` has the roots of the system, where the settings name none.
    pub fn new(settings: &TlsSettings, system: impl FnOnce() -> Result<Roots>) -> Result<Self> {
        let roots = settings.ca.clone().map_or_else(system, Ok)?;
        Ok(Self { config: settings.client(roots)?, name: settings.server_hostname.clone() })
    }

    /// The name that the certificate of a server at `host` must have; None for a host without a
    /// name, such as a Unix socket.
    pub fn verified_name(&self, host: Option<&str>) -> Result<ServerName<'static>> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let Some(host) = host else {
            return Err(Error::Value(
                "tls: a Unix socket has no name to verify; give TLS(server_hostname=…)".to_owned(),
            ));
        };
        server_name(host).ok_or_else(|| {
            Error::Value(format!(
                "tls: {host:?} is not a name that a certificate can have; give \
                 TLS(server_hostname=…)"
            ))
        })
    }

    /// The stage of a connection to a server with a name.
    pub fn stage(&self, name: ServerName<'static>) -> Box<dyn Stage> {
        let connection = ClientConnection::new(Arc::clone(&self.config), name);
        let connection = connection.expect("the settings were checked");
        Box::new(TlsStage::new(connection.into()))
    }
}

/// A host as a certificate names it; None where none can. A scope belongs to this machine.
#[must_use]
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    let plain = host.split('%').next().unwrap_or(host);
    if let Ok(address) = plain.parse::<IpAddr>() {
        return Some(ServerName::IpAddress(address.into()));
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_owned();
    ServerName::try_from(name).ok()
}
