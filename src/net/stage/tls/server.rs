//! The TLS of one server: what new connections get, and what they replace it with. Must never
//! change a connection that has it.

use std::fmt;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use super::settings::{Resolver, TlsSettings};
use super::tls_stage::TlsStage;
use crate::net::base::Mutex;
use crate::net::error::Result;
use crate::net::stage::stage::Stage;

/// The TLS of one server.
pub struct TlsServer {
    config: Mutex<(Arc<ServerConfig>, Arc<Resolver>)>,
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsServer(…)")
    }
}

impl TlsServer {
    /// Of settings with a certificate.
    pub fn new(settings: &TlsSettings) -> Result<Self> {
        Ok(Self { config: Mutex::new(settings.server()?) })
    }

    /// Has new connections use other settings. Those that are open go on as they are.
    pub fn replace(&self, settings: &TlsSettings) -> Result<()> {
        let config = settings.server()?;
        *self.config.lock() = config;
        Ok(())
    }

    /// The stage of a new connection.
    pub fn stage(&self) -> Box<dyn Stage> {
        let (config, own) = self.config.lock().clone();
        let connection = ServerConnection::new(config).expect("the settings were checked");
        Box::new(TlsStage::of_server(connection, own))
    }
}
