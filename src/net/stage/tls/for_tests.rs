//! A certificate authority for tests, in memory. Owns how its certificates are made; must never
//! write one anywhere.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::identity::Identity;
use super::pem::{Pem, to_pem};
use super::roots::{Roots, of_pem};
use crate::net::error::{Error, Result};

/// What tests need: an authority, and a certificate of it.
pub struct ForTests {
    /// The certificate, for both roles.
    pub identity: Identity,
    /// The authority.
    pub ca: Roots,
    /// The same in PEM.
    pub ca_pem: String,
    /// The certificate in PEM.
    pub cert_pem: String,
    /// Its private key in PEM.
    pub key_pem: String,
}

/// Makes an authority with a certificate for host names and addresses.
pub fn for_tests(names: &[String]) -> Result<ForTests> {
    let failed = |error: rcgen::Error| {
        Error::Value(format!("TLS.for_tests({names:?}): no certificate for these names: {error}"))
    };
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "rsock test authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut params = CertificateParams::new(names).map_err(failed)?;
    if let Some(first) = names.first() {
        params.distinguished_name.push(DnType::CommonName, first.as_str());
    }
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for params in [&mut authority, &mut params] {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2120, 1, 1);
    }
    let authority_key = KeyPair::generate().map_err(failed)?;
    let key = KeyPair::generate().map_err(failed)?;
    let root = authority.self_signed(&authority_key).map_err(failed)?;
    let issuer = Issuer::new(authority, authority_key);
    let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
    let ca_pem = to_pem(root.der());
    let der: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let identity = Identity::made(vec![certificate.der().clone()], &der, "key", "the certificate")?;
    let ca = of_pem(&Pem { name: "ca".to_owned(), bytes: ca_pem.clone().into_bytes() })?;
    let cert_pem = to_pem(certificate.der());
    let key_pem = super::pem::key_to_pem(der.secret_der());
    Ok(ForTests { identity, ca, ca_pem, cert_pem, key_pem })
}
