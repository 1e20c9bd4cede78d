//! The certificates that a peer's are verified against. Owns their reading; must never trust one
//! that the caller, or the system, does not name.

use std::sync::Arc;

use rustls::RootCertStore;

use super::pem::Pem;
use crate::net::error::{Error, Result};

/// Certificates of authorities.
pub type Roots = Arc<RootCertStore>;

/// The roots of an argument: every certificate in it.
pub(super) fn of_pem(pem: &Pem) -> Result<Roots> {
    let mut roots = RootCertStore::empty();
    for certificate in pem.certificates()? {
        roots.add(certificate).map_err(|error| {
            Error::Value(format!("{}: not a valid certificate: {error}", pem.name))
        })?;
    }
    Ok(Arc::new(roots))
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
    Ok(Arc::new(roots))
}
