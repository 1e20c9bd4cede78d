//! The words for what went wrong with TLS. Owns the names of alerts as RFC 8446 has them; must
//! never decide whose fault it is.

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::net::error::TlsError;

/// How the error of a record begins where TLS has ended the connection.
pub(super) const TLS_ERROR: &str = "TLS: ";

/// How it begins where the peer's certificate was refused.
pub(super) const UNVERIFIED: &str = "TLS: certificate verify failed: ";

/// How it begins where the peer has closed without close_notify.
pub(super) const CUT: &str = "TLS: the peer closed without close_notify";

/// What a record says where a message of the handshake is longer than rustls takes.
pub(super) const TOO_LONG: &str =
    "TLS: the peer sent a handshake message of more than 64 KiB, its records included";

/// How it begins where the server's own certificate is the reason.
const OWN: &str = "TLS: the server's certificate ";

/// Whether the text of a record says that a peer has made TLS fail.
#[must_use]
pub fn is_peers_tls_error(text: &str) -> bool {
    text.starts_with(TLS_ERROR) && !text.starts_with(OWN)
}

/// What an error means where our own certificate is the reason.
pub(super) fn own_fault(fault: &str, text: &str) -> String {
    format!("{OWN}{fault}: {}", text.strip_prefix(TLS_ERROR).unwrap_or(text))
}

/// Which kind of error the text of a record says; None where TLS has no part in it.
#[must_use]
pub fn tls_error(text: &str) -> Option<TlsError> {
    match text {
        _ if text.starts_with(UNVERIFIED) => Some(TlsError::Verify),
        _ if text.starts_with(CUT) => Some(TlsError::Cut),
        _ => text.starts_with(TLS_ERROR).then_some(TlsError::Other),
    }
}

/// What an error means, for a record.
pub(super) fn words(error: &Error) -> String {
    match error {
        Error::AlertReceived(alert) => {
            format!("{TLS_ERROR}the peer sent the alert {}", name(*alert))
        }
        Error::InvalidCertificate(error) => format!("{UNVERIFIED}{}", reason(error)),
        Error::NoCertificatesPresented => {
            format!("{TLS_ERROR}the client sent no certificate, which is required")
        }
        Error::InvalidMessage(
            InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge,
        ) => TOO_LONG.to_owned(),
        Error::InvalidMessage(InvalidMessage::MessageTooLarge) => {
            format!("{TLS_ERROR}the peer sent a record that is too long")
        }
        Error::InvalidMessage(_) => format!("{TLS_ERROR}what the peer sent is not TLS"),
        Error::PeerIncompatible(why) => {
            format!("{TLS_ERROR}the peer is incompatible: {}", spaced(&format!("{why:?}")))
        }
        Error::PeerMisbehaved(why) => {
            format!("{TLS_ERROR}the peer broke the protocol: {}", spaced(&format!("{why:?}")))
        }
        Error::NoApplicationProtocol => {
            format!("{TLS_ERROR}client and server have no protocol of ALPN in common")
        }
        Error::DecryptError => format!("{TLS_ERROR}a record that cannot be decrypted"),
        other => format!("{TLS_ERROR}{other}"),
    }
}

fn reason(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired => "it has expired".to_owned(),
        CertificateError::NotValidYet => "it is not valid yet".to_owned(),
        CertificateError::UnknownIssuer => "its issuer is not known".to_owned(),
        CertificateError::NotValidForName => "it is not valid for the name".to_owned(),
        CertificateError::Revoked => "it was revoked".to_owned(),
        CertificateError::BadSignature => "its signature is wrong".to_owned(),
        CertificateError::BadEncoding => "it is not a valid certificate".to_owned(),
        // These have their own text: the times, or the names.
        other => other.to_string(),
    }
}

/// "unknown_ca", as RFC 8446 writes it.
fn name(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => "unknown_ca".to_owned(),
        AlertDescription::Unknown(number) => number.to_string(),
        other => snake(&format!("{other:?}"), '_'),
    }
}

/// "NoCipherSuitesInCommon" in words.
fn spaced(name: &str) -> String {
    // A name only, without the values in it.
    let name = name.split(['(', '{', ' ']).next().unwrap_or(name);
    snake(name, ' ')
}

fn snake(name: &str, between: char) -> String {
    let mut text = String::with_capacity(name.len() + 8);
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            text.push(between);
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}
