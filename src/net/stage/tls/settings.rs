//! What a caller chooses for TLS, checked. Owns the configurations of rustls that are made of it;
//! must never change after it was made.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::ServerName;

use super::identity::Identity;
use super::pem::Pem;
use super::roots::{self, Roots};
use super::verifier::Verifier;
use crate::net::error::{Error, Result};

/// How many sessions a server without tickets, or a client, remembers.
const SESSIONS: usize = 256;
/// The versions that are spoken, the newest first.
static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
static NEWEST: [&SupportedProtocolVersion; 1] = [&version::TLS13];

/// What a caller chooses.
#[derive(Clone, Default)]
pub struct TlsSettings {
    /// The own certificate.
    pub identity: Option<Identity>,
    /// Other certificates of a server, by the name that the client asks for.
    pub sni: Vec<(String, Identity)>,
    /// What a client verifies servers against; None for the system's.
    pub ca: Option<Roots>,
    /// What a server verifies clients against; None does not ask for a certificate.
    pub client_ca: Option<Roots>,
    /// A client without a certificate is refused.
    pub require_client_cert: bool,
    /// The protocols of ALPN (RFC 7301), the preferred one first.
    pub alpn: Vec<Vec<u8>>,
    /// TLS 1.2 is not spoken.
    pub only_newest: bool,
    /// The name that a client verifies, in place of the host that it connects to.
    pub server_hostname: Option<ServerName<'static>>,
}

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSettings(…)")
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn unusable(error: impl fmt::Display) -> Error {
    Error::Value(format!("tls: {error}"))
}

impl TlsSettings {
    /// Reads the roots of an argument.
    pub fn roots(pem: &Pem) -> Result<Roots> {
        roots::of_pem(pem)
    }

    /// What is wrong at a time with the own certificates, so that clients refuse them whatever they
    /// trust: a sentence for each.
    #[must_use]
    pub fn faults(&self, now: SystemTime) -> Vec<String> {
        let own = self.identity.iter().filter_map(|own| own.fault(now));
        let mut found: Vec<_> = own.map(|fault| format!("the certificate {fault}")).collect();
        for (name, own) in &self.sni {
            let fault = own.fault(now).or_else(|| {
                // Any label will do for the asterisk.
                let is_for = own.is_for(&name.replacen('*', "any", 1));
                (!is_for).then(|| "is not valid for that name".to_owned())
            });
            found.extend(fault.map(|fault| format!("the certificate of sni '{name}' {fault}")));
        }
        found
    }

    /// From when, and until when, all own certificates are valid, in seconds since 1970. None
    /// without one, or where one cannot be read.
    #[must_use]
    pub fn validity(&self) -> Option<(u64, u64)> {
        let own = self.identity.iter().chain(self.sni.iter().map(|(_, own)| own));
        own.map(Identity::validity).reduce(|one, other| {
            let ((from, until), (later, earlier)) = (one?, other?);
            Some((from.max(later), until.min(earlier)))
        })?
    }

    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        if self.only_newest { &NEWEST } else { &BOTH }
    }

    /// The configuration of a server, with its certificates; ValueError without one.
    pub(super) fn server(&self) -> Result<(Arc<ServerConfig>, Arc<Resolver>)> {
        let Some(identity) = &self.identity else {
            return Err(Error::Value(
                "tls: a server needs a certificate and its private key: TLS(cert, key)".to_owned(),
            ));
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(self.versions())
            .map_err(unusable)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(
                    Arc::clone(&roots.store),
                    provider(),
                );
                let verifier = match self.require_client_cert {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build().map_err(unusable)?)
            }
        };
        let resolver = Arc::new(Resolver {
            named: self.sni.iter().cloned().collect(),
            default: identity.clone(),
        });
        let mut config = builder.with_cert_resolver(Arc::clone(&resolver) as _);
        // Tickets keep the state of a session with the client: the server remembers none.
        config.ticketer = ring::Ticketer::new().map_err(unusable)?;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.alpn_protocols.clone_from(&self.alpn);
        Ok((Arc::new(config), resolver))
    }

    /// The configuration of a client, with what it verifies servers against.
    pub(super) fn client(&self, roots: Roots) -> Result<Arc<ClientConfig>> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(self.versions())
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Verifier::new(roots, provider())?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(
                CertifiedKey::clone(&identity.0),
            ))),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        config.alpn_protocols.clone_from(&self.alpn);
        Ok(Arc::new(config))
    }
}

/// Chooses the certificate of a server by the name that the client asks for.
#[derive(Debug)]
pub(super) struct Resolver {
    named: HashMap<String, Identity>,
    default: Identity,
}

impl Resolver {
    /// The certificate for a client that asks for a name, or for none.
    pub(super) fn find(&self, name: Option<&str>) -> &Identity {
        let named = name.filter(|_| !self.named.is_empty());
        named.and_then(|name| self.named(&name.to_ascii_lowercase())).unwrap_or(&self.default)
    }

    fn named(&self, name: &str) -> Option<&Identity> {
        // RFC 6125, section 6.4.3: an asterisk stands for one label, the leftmost one.
        let any = || self.named.get(&format!("*{}", &name[name.find('.')?..]));
        self.named.get(name).or_else(any)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.find(hello.server_name()).0))
    }
}
