//! The certificates that a peer's are verified against. Owns their reading; must never trust one
//! that the caller, or the system, does not name.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;

use super::pem::Pem;
use crate::net::error::{Error, Result};

/// Certificates of authorities.
#[derive(Clone)]
pub struct Roots {
    pub(super) store: Arc<RootCertStore>,
    /// Those that the caller names: a server may have one of them itself.
    pub(super) named: Arc<[CertificateDer<'static>]>,
}

/// The roots of an argument: every certificate in it.
pub(super) fn of_pem(pem: &Pem) -> Result<Roots> {
    let mut roots = RootCertStore::empty();
    let named = pem.certificates()?;
    for certificate in &named {
        roots.add(certificate.clone()).map_err(|error| {
            Error::Value(format!("{}: not a valid certificate: {error}", pem.name))
        })?;
    }
    Ok(Roots { store: Arc::new(roots), named: named.into() })
}

/// The system's roots; `SSL_CERT_FILE` and `SSL_CERT_DIR` name others. Reads files.
pub fn system_roots() -> Result<Roots> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map_or_else(String::new, |error| format!(": {error}"));
        return Err(Error::Value(format!(
            "tls=True: the system has no certificates of authorities{why}; give tls=TLS(ca=…)"
        )));
    }
    Ok(Roots { store: Arc::new(roots), named: Arc::default() })
}
