//! The text form of certificates, PEM (RFC 7468). Owns the words for what is wrong with
//! one; must never read a file, nor keep a password.

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::Document;
use pkcs8::der::pem::{LineEnding, encode_string};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::net::error::{Error, Result};

/// The label of a key in PKCS#8 that a password protects.
const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
/// What a key has that a password protects in the way of OpenSSL before 1.0.
const LEGACY: &[u8] = b"Proc-Type: 4,ENCRYPTED";
/// How a key is written anew.
const CONVERT: &str = "`openssl pkcs8 -topk8 -v2 aes256 -in OLD -out NEW` writes it anew";

/// What an argument has given: the content of a file, or bytes.
#[derive(Clone)]
pub struct Pem {
    /// For messages: the argument, with the path where there is one.
    pub name: String,
    /// The content.
    pub bytes: Vec<u8>,
}

impl Pem {
    fn wrong(&self, why: impl std::fmt::Display) -> Error {
        Error::Value(format!("{}: {why}", self.name))
    }

    fn not_pem(&self, error: &PemError) -> Error {
        match error {
            PemError::Base64Decode(_) => self.wrong("not valid PEM: the base64 is broken"),
            PemError::MissingSectionEnd { .. } => {
                self.wrong("not valid PEM: it ends before the line -----END …-----")
            }
            other => self.wrong(format_args!("not valid PEM: {other}")),
        }
    }

    /// Every certificate, in order; at least one.
    pub fn certificates(&self) -> Result<Vec<CertificateDer<'static>>> {
        let found =
            CertificateDer::pem_slice_iter(&self.bytes).collect::<std::result::Result<_, _>>();
        let found: Vec<_> = found.map_err(|error| self.not_pem(&error))?;
        if found.is_empty() {
            return Err(self.wrong(match contains(&self.bytes, b"-----BEGIN ") {
                true => "there is no certificate in it",
                false => "not PEM: there is no line -----BEGIN CERTIFICATE-----",
            }));
        }
        Ok(found)
    }

    /// The private key. `password` is for one that is encrypted.
    pub fn key(&self, password: Option<&[u8]>) -> Result<PrivateKeyDer<'static>> {
        if contains(&self.bytes, LEGACY) {
            return Err(self.wrong(format_args!(
                "the private key is encrypted in an old format that is not read; {CONVERT}"
            )));
        }
        if let Some(section) = section(&self.bytes, ENCRYPTED) {
            let Some(password) = password else {
                return Err(self.wrong("the private key is encrypted; give password=…"));
            };
            return self.decrypted(section, password);
        }
        match PrivateKeyDer::from_pem_slice(&self.bytes) {
            Ok(key) => Ok(key),
            Err(PemError::NoItemsFound) => Err(self.wrong("there is no private key in it")),
            Err(error) => Err(self.not_pem(&error)),
        }
    }

    fn decrypted(&self, section: &[u8], password: &[u8]) -> Result<PrivateKeyDer<'static>> {
        let broken = || self.wrong("not valid PEM: the encrypted private key is broken");
        let text = std::str::from_utf8(section).map_err(|_| broken())?;
        let (_, document) = Document::from_pem(text).map_err(|_| broken())?;
        let unknown = || {
            self.wrong(format_args!(
                "the private key is encrypted by a method that is not known; {CONVERT}"
            ))
        };
        let info = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes());
        let info = info.map_err(|_| unknown())?;
        let plain = info.decrypt(password).map_err(|error| match error {
            pkcs8::Error::EncryptedPrivateKey(pkcs8::pkcs5::Error::UnsupportedAlgorithm {
                ..
            }) => unknown(),
            _ => self.wrong("the private key cannot be decrypted with this password"),
        })?;
        Ok(PrivatePkcs8KeyDer::from(plain.as_bytes().to_vec()).into())
    }

    /// Whether there is a private key in it, whatever its format.
    #[must_use]
    pub fn has_key(&self) -> bool {
        contains(&self.bytes, b"PRIVATE KEY-----")
    }
}

/// A certificate in PEM.
#[must_use]
pub fn to_pem(certificate: &[u8]) -> String {
    encode_string("CERTIFICATE", LineEnding::LF, certificate).unwrap_or_default()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    find(bytes, part).is_some()
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// The first section with a label, its two lines included.
fn section<'a>(bytes: &'a [u8], label: &str) -> Option<&'a [u8]> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let bytes = &bytes[find(bytes, begin.as_bytes())?..];
    let length = find(bytes, end.as_bytes())? + end.len();
    Some(&bytes[..length])
}

/// A private key of PKCS#8 in PEM.
pub(super) fn key_to_pem(key: &[u8]) -> String {
    encode_string("PRIVATE KEY", LineEnding::LF, key).unwrap_or_default()
}
