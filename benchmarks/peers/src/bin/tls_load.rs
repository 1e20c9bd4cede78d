//! A load generator of TLS 1.3. It holds N connections to 127.0.0.1, with one message in flight on
//! each; or it keeps N short ones in progress.
//!
//! `tls_load --port P --connections N [--size 64] [--churn 1]`
//!
//! Without `--churn 1` it connects, makes the handshakes, prints `ready`, and counts round trips as
//! `load` does. With it, each connection connects, makes a full handshake, sends its message,
//! receives it back and is reset, as `churn --reset 1` does it; between windows there are none. It is
//! driven as both are: each line of standard input, a number of seconds, is one measured window.
//!
//! All servers get the same offer: TLS_AES_256_GCM_SHA384 with X25519, no resumption. Certificates
//! are not verified, because that would be most of the client's work, and the server has no part in
//! it.
//!
//! Owns the connections and what is counted. Must never measure the server itself, nor count a
//! message that is not whole and equal to what was sent, nor a handshake that was resumed. Uses one
//! thread; the caller chooses its core.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peers::windows::{Window, answer, message, option, other};
use peers::{BOTH_EDGE, Epoll, Event, NO_EVENT, set_reset_on_close};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme,
};

const EVENTS: usize = 1024;
const BUFFER: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let churns = option("churn", Some(0))? == 1;
    let size = option("size", Some(64))?;
    let mut load = Load::new(option("port", None)?, option("connections", None)?, size, churns)?;
    if churns {
        return answer("handshakes", |time| load.run(time));
    }
    for slot in 0..load.connections.len() {
        load.start(slot)?;
    }
    // The handshakes, and a message on each: a server sends tickets behind its handshake.
    load.finish()?;
    answer("messages", |time| load.run(time))
}

struct Load {
    epoll: Epoll,
    port: u16,
    config: Arc<ClientConfig>,
    connections: Vec<Option<Connection>>,
    message: Vec<u8>,
    churns: bool,
}

impl Load {
    fn new(port: u16, connections: usize, size: usize, churns: bool) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            port,
            config: config()?,
            connections: (0..connections).map(|_| None).collect(),
            message: message(size),
            churns,
        })
    }

    /// Keeps every connection busy for `time`, then lets the last messages arrive.
    fn run(&mut self, time: Duration) -> io::Result<Window> {
        let begin = Instant::now();
        for slot in 0..self.connections.len() {
            self.start(slot)?;
        }
        let count = self.work(|| begin.elapsed() < time)?;
        Ok(Window { count, seconds: begin.elapsed().as_secs_f64() })
    }

    fn finish(&mut self) -> io::Result<u64> {
        self.work(|| false)
    }

    /// Serves the connections, each of which has a message in flight; starts another on one that has
    /// its message back as long as `goes_on` says so.
    fn work(&mut self, goes_on: impl Fn() -> bool) -> io::Result<u64> {
        let mut events = [NO_EVENT; EVENTS];
        let mut buffer = vec![0; BUFFER];
        let (mut count, mut in_flight) = (0, self.connections.len());
        while in_flight > 0 {
            let events = self.epoll.wait(&mut events)?;
            let goes_on = goes_on();
            for &Event { u64: slot, .. } in events {
                let slot = slot as usize;
                // An event may be that of a connection that was reset.
                let Some(connection) = &mut self.connections[slot] else { continue };
                if !connection.advance(&self.message, &mut buffer)? {
                    continue;
                }
                count += 1;
                if self.churns {
                    set_reset_on_close(connection.stream.as_raw_fd())?;
                    self.connections[slot] = None;
                }
                if goes_on {
                    self.start(slot)?;
                } else {
                    in_flight -= 1;
                }
            }
        }
        Ok(count)
    }

    /// Sends the message of a connection, which connects where there is none.
    fn start(&mut self, slot: usize) -> io::Result<()> {
        let entry = &mut self.connections[slot];
        let connection = match entry {
            Some(connection) => connection,
            None => {
                let connection = Connection::open(self.port, Arc::clone(&self.config))?;
                self.epoll.add(connection.stream.as_raw_fd(), BOTH_EDGE, slot as u64)?;
                entry.insert(connection)
            }
        };
        connection.start(&self.message)
    }
}

struct Connection {
    stream: TcpStream,
    tls: ClientConnection,
    /// The message is written once the handshake is complete.
    wanted: bool,
    is_full: bool,
    received: usize,
}

impl Connection {
    fn open(port: u16, config: Arc<ClientConfig>) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
        // A message of any size at once.
        tls.set_buffer_limit(None);
        Ok(Self { stream, tls, wanted: false, is_full: false, received: 0 })
    }

    fn start(&mut self, message: &[u8]) -> io::Result<()> {
        (self.wanted, self.received) = (true, 0);
        self.write_message(message)?;
        self.send()
    }

    fn write_message(&mut self, message: &[u8]) -> io::Result<()> {
        if self.tls.is_handshaking() || !std::mem::take(&mut self.wanted) {
            return Ok(());
        }
        self.tls.writer().write_all(message)
    }

    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives, and sends what there is room for. True when this completes the message.
    fn advance(&mut self, message: &[u8], buffer: &mut [u8]) -> io::Result<bool> {
        let mut complete = false;
        loop {
            let count = match self.stream.read(buffer) {
                Ok(0) => return Err(other("the server ended a connection")),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            complete |= self.take(message, &buffer[..count])?;
            if count < buffer.len() {
                break;
            }
        }
        self.write_message(message)?;
        self.send()?;
        Ok(complete)
    }

    /// Takes what came. True when this completes the message.
    fn take(&mut self, message: &[u8], mut bytes: &[u8]) -> io::Result<bool> {
        let mut complete = false;
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
            if !self.tls.is_handshaking() && !self.is_full {
                self.is_full = self.tls.handshake_kind() == Some(HandshakeKind::Full);
                if !self.is_full {
                    return Err(other("the handshake was not a full one"));
                }
            }
            let mut plain = [0; 16 * 1024];
            loop {
                let count = match self.tls.reader().read(&mut plain) {
                    Ok(0) => return Err(other("the server ended a connection")),
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                if message.get(self.received..self.received + count) != Some(&plain[..count]) {
                    return Err(other("the server did not echo what it was sent"));
                }
                self.received += count;
                complete |= self.received == message.len();
            }
        }
        Ok(complete)
    }
}

fn config() -> io::Result<Arc<ClientConfig>> {
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![ring::cipher_suite::TLS13_AES_256_GCM_SHA384];
    provider.kx_groups = vec![ring::kx_group::X25519];
    let provider = Arc::new(provider);
    let trusting = Arc::new(Trusting(Arc::clone(&provider)));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(trusting)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Accepts every certificate.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
