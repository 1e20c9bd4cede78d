//! What TLS has agreed on for one connection. Must never have a secret.

/// What the handshake of a connection has agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// "TLSv1.3" or "TLSv1.2".
    pub version: &'static str,
    /// The cipher suite, by its name in the registry of IANA.
    pub cipher: String,
    /// The host that the client has asked for (RFC 6066).
    pub sni: Option<String>,
    /// The protocol that was chosen (RFC 7301).
    pub alpn: Option<String>,
    /// Whether it continues a session of before.
    pub resumed: bool,
    /// The certificate of the peer; None where it sent none.
    pub peer: Option<PeerCertificate>,
}

impl TlsInfo {
    /// All values of `version`.
    pub const VERSIONS: [&'static str; 2] = ["TLSv1.2", "TLSv1.3"];
}

/// The certificate of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// In DER.
    pub der: Vec<u8>,
    /// The subject, as in "CN=example.org, O=Example".
    pub subject: String,
    /// The names of subjectAltName.
    pub names: Vec<String>,
}
