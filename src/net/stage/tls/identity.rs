//! A certificate with its private key. Owns the check that they belong together; must never show
//! the key.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::InconsistentKeys;
use rustls::client::verify_server_name;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::certificate::validity;
use super::pem::Pem;
use crate::net::base::rfc3339;
use crate::net::error::{Error, Result};

/// A chain of certificates, the own one first, with the private key of that.
#[derive(Clone)]
pub struct Identity(pub(super) Arc<CertifiedKey>);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

impl Identity {
    /// Of two arguments; without `key`, the private key is in `cert` as well.
    pub fn new(cert: &Pem, key: Option<&Pem>, password: Option<&[u8]>) -> Result<Self> {
        let chain = cert.certificates()?;
        let holder = key.unwrap_or(cert);
        if key.is_none() && !cert.has_key() {
            return Err(Error::Value(format!(
                "{}: there is no private key in it; give key=…",
                cert.name
            )));
        }
        let der = holder.key(password)?;
        Self::made(chain, &der, &holder.name, &cert.name)
    }

    /// Of what is known to belong together, under names for messages.
    pub(super) fn made(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'static>,
        key_name: &str,
        cert_name: &str,
    ) -> Result<Self> {
        let wrong = |text| Error::Value(format!("{key_name}: {text}"));
        let key = any_supported_type(key)
            .map_err(|_| wrong("a private key that is not valid, or of an unknown kind; RSA of 2048 bits or more, ECDSA P-256 and P-384, and Ed25519 are known".to_owned()))?;
        let own = CertifiedKey::new(chain, key);
        match own.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                return Err(wrong(format!("not the private key of {cert_name}")));
            }
            Err(error) => {
                return Err(Error::Value(format!("{cert_name}: not a valid certificate: {error}")));
            }
        }
        Ok(Self(Arc::new(own)))
    }

    /// From when, and until when, the own certificate is valid, in seconds since 1970.
    pub(super) fn validity(&self) -> Option<(u64, u64)> {
        self.0.cert.first().and_then(|own| validity(own))
    }

    /// Why a client refuses the own certificate at a time, whatever it trusts; None where there is
    /// no such reason.
    pub(super) fn fault(&self, now: SystemTime) -> Option<String> {
        let (from, until) = self.validity()?;
        let from = UNIX_EPOCH + Duration::from_secs(from);
        let until = UNIX_EPOCH + Duration::from_secs(until);
        if now < from {
            return Some(format!("is not valid before {}", rfc3339(from)));
        }
        (now > until).then(|| format!("has expired at {}", rfc3339(until)))
    }

    /// Whether the own certificate is one of a host.
    pub(super) fn is_for(&self, name: &str) -> bool {
        let Some(own) = self.0.cert.first() else { return false };
        let (Ok(own), Ok(name)) = (ParsedCertificate::try_from(own), ServerName::try_from(name))
        else {
            return false;
        };
        verify_server_name(&own, &name).is_ok()
    }

    /// The certificates in DER, the own one first.
    pub fn chain(&self) -> impl Iterator<Item = &[u8]> {
        self.0.cert.iter().map(|certificate| &**certificate)
    }
}
