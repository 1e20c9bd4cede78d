//! The stage of one connection with TLS, in either role. Owns the session of rustls, with the order
//! of its records; must never pass on an end that the peer has not announced by close_notify, nor
//! keep plain text.
//!
//! What rustls makes of a chunk is passed on in the same call, so nothing is held back but the
//! part of a record that has not come whole.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{CipherSuite, Connection, HandshakeKind, ProtocolVersion, ServerConnection};

use super::certificate::Certificate;
use super::settings::Resolver;
use super::words::{CUT, TLS_ERROR, TOO_LONG, own_fault, words};
use crate::net::ledger::{ClosedBy, PeerCertificate, TlsInfo};
use crate::net::service::SessionError;
use crate::net::stage::event::{Direction, Inbound, Outbound};
use crate::net::stage::flow::{Flow, StageEnd};
use crate::net::stage::gate::Place;
use crate::net::stage::stage::{Stage, StageResult};

/// The stage of one connection.
pub(super) struct TlsStage {
    connection: Connection,
    /// The certificates of a server.
    own: Option<Arc<Resolver>>,
    /// Its place among the handshakes of a server that are made.
    place: Option<Place>,
    handshaking: bool,
    /// What came while there was no place for the handshake.
    early: Vec<u8>,
    /// The peer has sent close_notify.
    received_end: bool,
    /// We have.
    sent_end: bool,
    over: bool,
    framing: Framing,
}

impl TlsStage {
    /// The stage of a server's connection.
    pub(super) fn of_server(connection: ServerConnection, own: Arc<Resolver>) -> Self {
        Self { own: Some(own), ..Self::new(connection.into()) }
    }

    /// The stage of a client's connection.
    pub(super) fn new(mut connection: Connection) -> Self {
        // What is written is taken out at once.
        connection.set_buffer_limit(None);
        Self {
            connection,
            own: None,
            place: None,
            handshaking: true,
            early: Vec::new(),
            received_end: false,
            sent_end: false,
            over: false,
            framing: Framing::default(),
        }
    }

    fn may_proceed(&self) -> bool {
        self.place.as_ref().is_none_or(Place::is_inside)
    }

    /// Takes what came from the peer.
    fn receive(&mut self, flow: &mut Flow<'_>, mut bytes: &[u8]) {
        self.framing.follow(bytes);
        while !bytes.is_empty() && !self.over && !self.received_end {
            match self.connection.read_tls(&mut bytes) {
                Ok(0) => break,
                Ok(_) => self.process(flow),
                // The buffer of a message that has not come whole is full.
                Err(_) => self.fail(flow, TOO_LONG.to_owned()),
            }
        }
    }

    /// Has rustls work on what it was given, and passes on what comes of that.
    fn process(&mut self, flow: &mut Flow<'_>) {
        let result = self.connection.process_new_packets();
        // Alerts, too.
        self.send(flow);
        let (plain, closed) = match &result {
            Ok(state) => (state.plaintext_bytes_to_read(), state.peer_has_closed()),
            // What came before is good.
            Err(_) => (usize::MAX, false),
        };
        if self.handshaking && !self.connection.is_handshaking() {
            self.complete(flow);
        }
        if plain > 0 {
            self.deliver(flow);
        }
        match result {
            Err(error) => self.fail(flow, self.explained(&error)),
            Ok(_) if closed && self.handshaking => {
                self.fail(flow, format!("{TLS_ERROR}the peer closed during the handshake"));
            }
            Ok(_) if closed && !self.received_end => {
                self.received_end = true;
                flow.pass_in(Inbound::End);
            }
            Ok(_) => {}
        }
    }

    /// Passes plain text on.
    fn deliver(&mut self, flow: &mut Flow<'_>) {
        let mut reader = self.connection.reader();
        // An error says that there is no more, or an end, which is found elsewhere.
        while let Ok(record @ [_, ..]) = reader.fill_buf() {
            flow.pass_in(Inbound::Bytes(record));
            let count = record.len();
            reader.consume(count);
        }
    }

    /// Passes out the records that rustls has made.
    fn send(&mut self, flow: &mut Flow<'_>) {
        if !self.connection.wants_write() {
            return;
        }
        let mut records = flow.chunk_out();
        while self.connection.wants_write() {
            // A write into memory does not fail.
            if self.connection.write_tls(&mut records).is_err() {
                break;
            }
        }
    }

    fn complete(&mut self, flow: &mut Flow<'_>) {
        self.handshaking = false;
        self.place = None;
        flow.note_tls(info(&self.connection));
    }

    /// What an error means. Where the client has refused our certificate, that may be our fault.
    fn explained(&self, error: &rustls::Error) -> String {
        let text = words(error);
        let (Some(own), Connection::Server(server)) = (&self.own, &self.connection) else {
            return text;
        };
        if !self.handshaking || !matches!(error, rustls::Error::AlertReceived(_)) {
            return text;
        }
        match own.find(server.server_name()).fault(SystemTime::now()) {
            Some(fault) => own_fault(&fault, &text),
            None => text,
        }
    }

    /// Ends the connection, behind the alert that rustls has sent.
    fn fail(&mut self, flow: &mut Flow<'_>, error: String) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.place = None;
        self.early = Vec::new();
        flow.close(ClosedBy::Error, Some(error));
    }

    /// The peer's socket has ended.
    fn ended(&mut self, flow: &mut Flow<'_>) {
        if self.received_end || self.over {
            return;
        }
        if self.handshaking {
            return self.fail(flow, format!("{TLS_ERROR}the peer closed during the handshake"));
        }
        self.over = true;
        let error = format!("{CUT}: data may be missing");
        // A peer that was told our end has nothing more to say to a session that has closed.
        flow.end(StageEnd {
            reset: !self.sent_end,
            delivered: true,
            cut: true,
            by: ClosedBy::Reset,
            error: Some(error),
        });
    }
}

impl Stage for TlsStage {
    fn open(&mut self, flow: &mut Flow<'_>) -> StageResult {
        if self.own.is_some() {
            self.place = flow.enter_gate();
        }
        // The hello of a client.
        self.send(flow);
        Ok(())
    }

    fn inbound(&mut self, flow: &mut Flow<'_>, event: Inbound<'_>) -> StageResult {
        match event {
            Inbound::Bytes(bytes) if self.may_proceed() => self.receive(flow, bytes),
            Inbound::Bytes(bytes) => self.early.extend_from_slice(bytes),
            // Also of one that waits for its place: without the peer no handshake completes.
            Inbound::End => self.ended(flow),
            Inbound::Error(_) => flow.pass_in(event),
        }
        Ok(())
    }

    fn outbound(&mut self, flow: &mut Flow<'_>, event: Outbound<'_>) -> StageResult {
        match event {
            Outbound::Bytes(_) if self.sent_end => {}
            Outbound::Bytes(mut bytes) => {
                while !bytes.is_empty() {
                    let count = self
                        .connection
                        .writer()
                        .write(bytes)
                        .map_err(|error| SessionError(format!("{TLS_ERROR}{error}")))?;
                    self.send(flow);
                    if count == 0 {
                        // Only before the handshake, when no session writes.
                        return Err(SessionError(format!("{TLS_ERROR}no room for plain text")));
                    }
                    bytes = &bytes[count..];
                }
            }
            Outbound::End => {
                if !std::mem::replace(&mut self.sent_end, true) {
                    self.connection.send_close_notify();
                    self.send(flow);
                }
                flow.pass_out(Outbound::End);
            }
            Outbound::Reset => flow.pass_out(Outbound::Reset),
        }
        Ok(())
    }

    fn turn(&mut self, flow: &mut Flow<'_>) -> StageResult {
        let Some(place) = &mut self.place else { return Ok(()) };
        if place.is_inside() {
            return Ok(());
        }
        place.advance();
        if place.is_inside() {
            let early = std::mem::take(&mut self.early);
            self.receive(flow, &early);
        }
        Ok(())
    }

    fn held(&self, direction: Direction) -> usize {
        match direction {
            Direction::Inbound => self.early.len(),
            Direction::Outbound => 0,
        }
    }

    fn is_owed(&self) -> bool {
        // A record whose rest is on its way; a handshake is nothing that a stop waits for.
        !self.over && !self.received_end && !self.handshaking && self.framing.is_partial()
    }

    fn owes_end(&self) -> bool {
        !self.over && !self.sent_end
    }

    fn is_ready(&self) -> bool {
        !self.handshaking
    }
}

/// Where the records of what has come begin and end.
#[derive(Default)]
struct Framing {
    /// Bytes of the header that have come.
    header: usize,
    length: [u8; 2],
    /// Bytes of the body that have not.
    left: usize,
}

/// Type, version and length (RFC 8446, section 5.1).
const HEADER: usize = 5;

impl Framing {
    fn is_partial(&self) -> bool {
        self.header > 0
    }

    fn follow(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.header < HEADER {
                if let Some(digit) = self.header.checked_sub(HEADER - 2) {
                    self.length[digit] = first;
                }
                self.header += 1;
                bytes = rest;
                if self.header == HEADER {
                    self.left = usize::from(u16::from_be_bytes(self.length));
                }
            } else {
                let count = self.left.min(bytes.len());
                self.left -= count;
                bytes = &bytes[count..];
            }
            if self.header == HEADER && self.left == 0 {
                self.header = 0;
            }
        }
    }
}

/// What a handshake has agreed on.
fn info(connection: &Connection) -> TlsInfo {
    let version = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
    let sni = match connection {
        Connection::Server(server) => server.server_name().map(str::to_owned),
        Connection::Client(_) => None,
    };
    let alpn = connection.alpn_protocol();
    let peer = connection.peer_certificates().and_then(<[_]>::first).map(|der| {
        let Certificate { subject, names } = Certificate::of(der);
        PeerCertificate { der: der.to_vec(), subject, names }
    });
    TlsInfo {
        version,
        cipher: suite.map_or_else(String::new, cipher_name),
        sni,
        alpn: alpn.map(|name| String::from_utf8_lossy(name).into_owned()),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        peer,
    }
}

/// The name in IANA's registry, where that of rustls says the version twice.
fn cipher_name(suite: CipherSuite) -> String {
    format!("{suite:?}").replacen("TLS13_", "TLS_", 1)
}
