//! Peers that abuse TLS inside of it, behind a handshake that was in order: what they may do is
//! bounded, the record says what they did, and nothing is answered after that. What an attacker can
//! send without a handshake is in `tests/tls/test_hostile_tls.py`.

use std::sync::Arc;
use std::time::Instant;

use _rsock::net::ledger::ClosedBy;
use _rsock::net::stage::tls::{TlsServer, TlsSettings, for_tests};
use _rsock::net::stage::{Chain, Direction, Inbound, Outbound};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, ConnectionTrafficSecrets, ContentType, DigitallySignedStruct,
    Error, ProtocolVersion, SignatureScheme, SupportedCipherSuite,
};

/// A server's chain with TLS, and the client that has made a handshake with it.
struct Rig {
    now: Instant,
    server: Chain,
    client: ClientConnection,
}

/// Believes any certificate.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

impl Rig {
    fn new() -> Self {
        let mut provider = ring::default_provider();
        provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_256_GCM_SHA384];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting))
            .with_no_client_auth();
        config.enable_secret_extraction = true;
        let made = for_tests(&["localhost".to_owned()]).unwrap();
        let settings = TlsSettings { identity: Some(made.identity), ..TlsSettings::default() };
        let server = TlsServer::new(&settings).unwrap();
        let mut rig = Self {
            now: Instant::now(),
            server: Chain::new(vec![server.stage()]),
            client: ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap())
                .unwrap(),
        };
        rig.server.open(rig.now, None).unwrap();
        while !rig.server.is_ready() || rig.client.is_handshaking() {
            rig.sends_what_it_has();
            rig.receives();
        }
        rig.receives();
        rig
    }

    fn sends_what_it_has(&mut self) {
        let mut records = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut records).unwrap();
        }
        self.sends(&records);
    }

    fn sends(&mut self, records: &[u8]) {
        self.server.inbound(self.now, Inbound::Bytes(records)).unwrap();
    }

    /// Gives the client what the server has sent.
    fn receives(&mut self) {
        while let Some(Outbound::Bytes(bytes)) = self.server.next_outbound() {
            let mut rest = bytes;
            while !rest.is_empty() {
                self.client.read_tls(&mut rest).unwrap();
                self.client.process_new_packets().unwrap();
            }
            let count = bytes.len();
            self.server.consume_outbound(count);
        }
    }

    /// Takes over the keys of the client, for records that no client makes.
    fn forge(self) -> Forger {
        let secrets = self.client.dangerous_extract_secrets().unwrap();
        let (next, ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
            panic!("the suite was chosen")
        };
        let SupportedCipherSuite::Tls13(suite) = ring::cipher_suite::TLS13_AES_256_GCM_SHA384
        else {
            panic!("a suite of TLS 1.3")
        };
        let encrypter = suite.aead_alg.encrypter(key, iv);
        Forger { now: self.now, server: self.server, encrypter, next }
    }
}

struct Forger {
    now: Instant,
    server: Chain,
    encrypter: Box<dyn MessageEncrypter>,
    next: u64,
}

impl Forger {
    fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let payload = OutboundChunks::Single(payload);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_3, payload };
        self.next += 1;
        self.encrypter.encrypt(message, self.next - 1).unwrap().encode()
    }

    fn sends(&mut self, typ: ContentType, payload: &[u8]) {
        let record = self.record(typ, payload);
        self.server.inbound(self.now, Inbound::Bytes(&record)).unwrap();
    }

    /// Sends the same record until the connection ends. Returns how often that was.
    fn floods(&mut self, typ: ContentType, payload: &[u8]) -> usize {
        for count in 1..=10_000 {
            self.sends(typ, payload);
            assert_eq!(self.server.held(Direction::Inbound), 0);
            if self.server.has_end() {
                return count;
            }
            assert!(self.server.held(Direction::Outbound) < 1_000, "it answers each");
        }
        panic!("nothing ends it");
    }

    fn ends(self) -> String {
        told_end(self.server, self.now)
    }
}

/// The reason of the end, behind which nothing comes. (rustls sends an alert for most of them.)
fn told_end(mut server: Chain, now: Instant) -> String {
    let end = server.take_end().expect("it has ended the connection");
    assert_eq!((end.by, end.reset), (ClosedBy::Error, false));
    let mut out = Vec::new();
    while let Some(event) = server.next_outbound() {
        let count = if let Outbound::Bytes(bytes) = event { bytes.len() } else { 0 };
        out.push(count > 0);
        server.consume_outbound(count);
    }
    assert_eq!(out.last(), Some(&false), "FIN is the last");
    assert!(out.len() <= 2, "an alert comes before it, or nothing");
    for _ in 0..100 {
        let _ = server.inbound(now, Inbound::Bytes(&[23, 3, 3, 0, 20]));
    }
    assert!(server.next_outbound().is_none() && server.next_inbound().is_none());
    assert_eq!(server.next_call(), None);
    assert!(!server.is_owed() && !server.owes_end());
    let error = end.error.unwrap();
    assert!(error.starts_with("TLS: "), "{error}");
    error
}

/// RFC 8446, section 4.6.3. A server answers each with the next data that it sends.
#[test]
fn a_flood_of_key_updates_ends() {
    let mut rig = Rig::new();
    let mut count = 0;
    while !rig.server.has_end() {
        count += 1;
        assert!(count < 1_000, "nothing ends it");
        rig.client.refresh_traffic_keys().unwrap();
        rig.sends_what_it_has();
        assert!(rig.server.held(Direction::Outbound) < 1_000, "it answers each");
    }
    assert!(count > 10, "a few are in order: {count}");
    assert!(told_end(rig.server, rig.now).contains("key update"));
}

#[test]
fn key_updates_between_data_are_in_order() {
    let mut rig = Rig::new();
    for _ in 0..200 {
        rig.client.refresh_traffic_keys().unwrap();
        std::io::Write::write_all(&mut rig.client.writer(), b"x").unwrap();
        rig.sends_what_it_has();
        assert_eq!(rig.server.next_inbound(), Some(Inbound::Bytes(b"x")));
        rig.server.consume_inbound(1);
        rig.server.outbound(rig.now, Outbound::Bytes(b"y")).unwrap();
        rig.receives();
    }
    assert!(!rig.server.has_end());
}

#[test]
fn a_flood_of_empty_records_ends() {
    let mut forger = Rig::new().forge();
    let count = forger.floods(ContentType::ApplicationData, b"");
    assert!((10..100).contains(&count), "{count}");
    assert!(forger.ends().contains("empty"));
}

#[test]
fn a_flood_of_warnings_ends() {
    let mut forger = Rig::new().forge();
    // user_canceled, which is a warning also in TLS 1.3.
    let count = forger.floods(ContentType::Alert, &[1, 90]);
    assert!(count < 20, "{count}");
    forger.ends();
}

#[test]
fn a_heartbeat_ends() {
    let mut forger = Rig::new().forge();
    // RFC 6520: a request that says it is longer than it is.
    assert_eq!(forger.floods(ContentType::Heartbeat, &[1, 0x40, 0, b'x']), 1);
    forger.ends();
}

#[test]
fn another_hello_inside_of_a_session_ends() {
    let mut forger = Rig::new().forge();
    let mut hello = vec![1, 0, 0, 41, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0x13, 2, 1, 0]);
    assert_eq!(forger.floods(ContentType::Handshake, &hello), 1);
    forger.ends();
}

#[test]
fn a_flood_of_change_cipher_spec_ends() {
    let mut rig = Rig::new();
    for _ in 0..10 {
        rig.sends(&[20, 3, 3, 0, 1, 1]);
    }
    assert!(rig.server.has_end());
    told_end(rig.server, rig.now);
}

#[test]
fn a_message_of_16_mib_ends_at_its_header() {
    let mut forger = Rig::new().forge();
    // A ticket, of which only a server may send one, and of any length.
    assert_eq!(forger.floods(ContentType::Handshake, &[4, 0xff, 0xff, 0xff]), 1);
    forger.ends();
}

#[test]
fn a_message_that_never_becomes_whole_takes_64_kib_at_most() {
    let mut forger = Rig::new().forge();
    forger.sends(ContentType::Handshake, &[4, 0, 0xff, 0xf0]);
    let mut sent = 0;
    while !forger.server.has_end() {
        sent += 1;
        assert!(sent < 64 * 1024, "nothing ends it");
        forger.sends(ContentType::Handshake, b"x");
    }
    // A record of one byte has 22 more, which are kept with it.
    assert!(sent * 22 <= 70_000, "{sent}");
    forger.ends();
}

#[test]
fn a_record_that_is_too_long_ends_at_its_header() {
    let mut rig = Rig::new();
    rig.sends(&[23, 3, 3, 0xff, 0xff]);
    assert!(rig.server.has_end());
    told_end(rig.server, rig.now);
}

#[test]
fn a_changed_byte_ends() {
    let mut forger = Rig::new().forge();
    let mut record = forger.record(ContentType::ApplicationData, b"hello");
    record[7] ^= 1;
    forger.server.inbound(forger.now, Inbound::Bytes(&record)).unwrap();
    assert_eq!(forger.server.held(Direction::Inbound), 0, "nothing of it is passed on");
    assert!(forger.ends().contains("cannot be decrypted"));
}
