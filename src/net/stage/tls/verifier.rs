//! The verification of a server's certificate. Owns what makes a certificate that the caller names
//! itself good; must never accept another one that webpki refuses.
//!
//! webpki refuses the certificate of an authority as that of a server, and one that signs itself is
//! both: `openssl req -x509` makes such. A caller that names exactly that certificate trusts it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error as TlsError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::certificate::validity;
use super::roots::Roots;
use crate::net::error::{Error, Result};

/// Verifies the certificates of servers.
#[derive(Debug)]
pub(super) struct Verifier {
    chains: Arc<WebPkiServerVerifier>,
    named: Arc<[CertificateDer<'static>]>,
}

impl Verifier {
    pub(super) fn new(roots: Roots, provider: Arc<CryptoProvider>) -> Result<Arc<Self>> {
        let chains = WebPkiServerVerifier::builder_with_provider(roots.store, provider).build();
        let chains = chains.map_err(|error| Error::Value(format!("tls: {error}")))?;
        Ok(Arc::new(Self { chains, named: roots.named }))
    }

    /// Verifies a certificate that the caller has named.
    fn verify_named(
        own: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        verify_server_name(&ParsedCertificate::try_from(own)?, name)?;
        let (from, until) = validity(own).ok_or(CertificateError::BadEncoding)?;
        match now.as_secs() {
            now if now < from => Err(CertificateError::NotValidYet.into()),
            now if now > until => Err(CertificateError::Expired.into()),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        self.chains.verify_server_cert(own, chain, name, ocsp, now).or_else(|error| {
            match self.named.iter().any(|named| named == own) {
                true => Self::verify_named(own, name, now),
                false => Err(error),
            }
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        self.chains.verify_tls12_signature(message, own, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        self.chains.verify_tls13_signature(message, own, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
