//! The record of one connection: endpoints, counters, times, its end. Written by the owner of the
//! connection, readable from any thread; must never own a socket or keep a connection alive.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use once_cell::race::OnceBox;

use super::closed_by::ClosedBy;
use super::counters::{Counters, Flow};
use super::fault_event::{FaultEvent, FaultEvents};
use super::proxy_header::ProxyHeader;
use super::socket_close::SocketClose;
use super::tls_info::TlsInfo;
use super::trace::{Direction, Event, EventKind, FarEvent, Trace, TraceLimits};
use crate::net::address::{Endpoint, Transport};
use crate::net::socket::{Algorithm, Credentials, Probe, TcpInfo};

/// The end of a connection: its time and its cause.
#[derive(Debug)]
struct End {
    seconds: Duration,
    by: ClosedBy,
    error: Option<Box<str>>,
    /// The last state known to the kernel.
    tcp_info: Option<TcpInfo>,
}

/// The side of the connection that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The accepting side.
    Server,
    /// The connecting side.
    Client,
}

/// The record of a connection's upstream leg.
#[derive(Debug)]
pub struct Far {
    local: Endpoint,
    remote: Endpoint,
    received: Counters,
    sent: Counters,
    /// Whether the leg has a TLS handshake, complete or not.
    handshakes: AtomicBool,
    tls: OnceLock<Box<TlsInfo>>,
}

impl Far {
    /// Opens the record of a leg that is being connected.
    pub(crate) fn new(local: Endpoint, remote: Endpoint) -> Self {
        let (received, sent) = (Counters::default(), Counters::default());
        let handshakes = AtomicBool::new(false);
        Self { local, remote, received, sent, handshakes, tls: OnceLock::new() }
    }

    /// What TLS has agreed on with the target; None without TLS.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.tls.get().map(|tls| &**tls)
    }

    /// Notes that a TLS handshake begins, which `note_tls` completes.
    pub(crate) fn begin_handshake(&self) {
        self.handshakes.store(true, Relaxed);
    }

    /// Whether a TLS handshake has begun, and is not complete.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.handshakes.load(Relaxed) && self.tls.get().is_none()
    }

    /// Notes what TLS has agreed on.
    pub(crate) fn note_tls(&self, info: Box<TlsInfo>) {
        let _ = self.tls.set(info);
    }

    /// The address of our side.
    #[must_use]
    pub fn local(&self) -> Endpoint {
        self.local.clone()
    }

    /// The address of the target.
    #[must_use]
    pub fn remote(&self) -> Endpoint {
        self.remote.clone()
    }

    /// Data received on this leg.
    #[must_use]
    pub fn received(&self) -> Flow {
        self.received.get()
    }

    /// Data sent on this leg.
    #[must_use]
    pub fn sent(&self) -> Flow {
        self.sent.get()
    }
}

/// Time origin shared by all records; a u64 offset is half the size of an `Instant`.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Nanoseconds as u64, enough for 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970.
fn wall_clock() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The record of one connection, updated until it is closed.
#[derive(Debug)]
pub struct Record {
    id: u64,
    role: Role,
    reset_sent: AtomicBool,
    local: Endpoint,
    remote: Endpoint,
    /// Wall clock, for display. `opened` is used for durations, which a step of the clock must not
    /// change.
    opened_at: u64,
    /// Nanoseconds since `epoch`.
    opened: u64,
    received: Counters,
    sent: Counters,
    probe: Probe,
    extra: OnceBox<Extra>,
    end: OnceBox<End>,
}

/// Fields that few records need, stored apart so that the others stay small.
#[derive(Debug, Default)]
struct Extra {
    trace: Option<Trace>,
    far: OnceLock<Box<Far>>,
    /// The same where there is a trace, so that a leg without one is counted without a look at it.
    traced_far: OnceLock<Box<Far>>,
    /// Credentials of the peer; only Unix sockets have them.
    credentials: OnceLock<Credentials>,
    faults: OnceLock<Box<FaultEvents>>,
    /// Whether the connection has a TLS handshake, complete or not.
    handshakes: AtomicBool,
    tls: OnceLock<Box<TlsInfo>>,
    proxied: OnceLock<Box<Proxied>>,
}

/// A connection from a proxy, which sends a header before the first byte of the client.
#[derive(Debug, Default)]
struct Proxied {
    /// The peer that the header names, with the header, once it has come.
    claim: OnceLock<(Endpoint, ProxyHeader)>,
    /// Whether the peer that it names has a slot of its host.
    has_slot: AtomicBool,
}

impl Record {
    /// Opens the record of a connection that was just made.
    pub(crate) fn new(id: u64, role: Role, local: Endpoint, remote: Endpoint) -> Self {
        Self {
            id,
            role,
            reset_sent: AtomicBool::new(false),
            local,
            remote,
            opened_at: wall_clock(),
            opened: nanos(epoch().elapsed()),
            received: Counters::default(),
            sent: Counters::default(),
            probe: Probe::none(),
            extra: OnceBox::new(),
            end: OnceBox::new(),
        }
    }

    /// Adds the socket, which is queried for TCP's state until `close`.
    pub(crate) fn with_socket(self, socket: impl AsRawFd) -> Self {
        Self { probe: Probe::of(socket), ..self }
    }

    /// Adds a trace of the traffic within limits; None adds nothing.
    pub(crate) fn with_trace(self, limits: Option<TraceLimits>) -> Self {
        if let Some(limits) = limits {
            let extra = Extra { trace: Some(Trace::new(limits)), ..Extra::default() };
            let again = self.extra.set(Box::new(extra));
            debug_assert!(again.is_ok(), "set once, when the record is made");
        }
        self
    }

    /// Adds the credentials of a Unix socket's peer; None adds nothing.
    pub(crate) fn with_credentials(self, credentials: Option<Credentials>) -> Self {
        if let Some(credentials) = credentials {
            let extra = self.extra.get_or_init(Box::default);
            let again = extra.credentials.set(credentials);
            debug_assert!(again.is_ok(), "set once, when the record is made");
        }
        self
    }

    /// The connection's number, from 1: in its server, or for a client in its process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The side that is ours.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The address of our side.
    #[must_use]
    pub fn local(&self) -> Endpoint {
        self.local.clone()
    }

    /// The protocol that carries the bytes.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.local.transport
    }

    /// The peer's address; that which a proxy names, where one has passed the connection on.
    #[must_use]
    pub fn remote(&self) -> Endpoint {
        self.claim().map_or_else(|| self.remote.clone(), |(claimed, _)| claimed.clone())
    }

    /// The address of the socket at the other end: that of a proxy, where there is one.
    pub(crate) fn socket_peer(&self) -> &Endpoint {
        &self.remote
    }

    /// The address of the proxy that has passed the connection on; None without one, or before its
    /// header has come.
    #[must_use]
    pub fn proxy(&self) -> Option<Endpoint> {
        self.claim().map(|_| self.remote.clone())
    }

    /// The header that the proxy has sent.
    #[must_use]
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.claim().map(|(_, header)| header)
    }

    fn proxied(&self) -> Option<&Proxied> {
        self.extra.get().and_then(|extra| extra.proxied.get()).map(|proxied| &**proxied)
    }

    fn claim(&self) -> Option<&(Endpoint, ProxyHeader)> {
        self.proxied()?.claim.get()
    }

    /// A header of a proxy comes before the first byte.
    pub(crate) fn expect_proxy(&self) {
        let _ = self.extra.get_or_init(Box::default).proxied.set(Box::default());
    }

    /// Whether the connection is one of a proxy.
    pub(crate) fn is_proxied(&self) -> bool {
        self.proxied().is_some()
    }

    /// Whether such a header has yet to come.
    pub(crate) fn awaits_proxy(&self) -> bool {
        self.proxied().is_some_and(|proxied| proxied.claim.get().is_none())
    }

    /// Notes what the proxy says, once.
    pub(crate) fn note_proxy(&self, header: ProxyHeader) {
        let claimed = header.source.clone().map_or_else(|| self.remote.clone(), Endpoint::stream);
        let extra = self.extra.get_or_init(Box::default);
        let _ = extra.proxied.get_or_init(Box::default).claim.set((claimed, header));
    }

    /// Notes that the peer which the proxy names has a slot of its host.
    pub(crate) fn note_slot(&self) {
        if let Some(proxied) = self.proxied() {
            proxied.has_slot.store(true, Relaxed);
        }
    }

    /// The address whose slot of a host the connection has; None for a proxy's.
    pub(crate) fn host(&self) -> Option<SocketAddr> {
        match self.proxied() {
            Some(proxied) if !proxied.has_slot.load(Relaxed) => None,
            _ => self.remote().address.as_ip(),
        }
    }

    /// The process at the other end of a Unix socket; None with any other transport.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        self.extra.get().and_then(|extra| extra.credentials.get()).copied()
    }

    /// The time of the accept, for durations.
    pub(crate) fn opened(&self) -> Instant {
        epoch() + Duration::from_nanos(self.opened)
    }

    /// The time of the accept on the wall clock, since 1970.
    #[must_use]
    pub fn opened_at(&self) -> Duration {
        Duration::from_nanos(self.opened_at)
    }

    /// How long the connection was open, or has been open so far.
    #[must_use]
    pub fn seconds(&self) -> Duration {
        self.end.get().map_or_else(|| self.opened().elapsed(), |end| end.seconds)
    }

    /// Data received from the peer.
    #[must_use]
    pub fn received(&self) -> Flow {
        self.received.get()
    }

    /// Data sent to the peer.
    #[must_use]
    pub fn sent(&self) -> Flow {
        self.sent.get()
    }

    /// The record of the upstream leg; None if there is none, or not yet.
    #[must_use]
    pub fn far(&self) -> Option<&Far> {
        let extra = self.extra.get()?;
        extra.far.get().or_else(|| extra.traced_far.get()).map(|far| &**far)
    }

    /// The cause of the close; None while the connection is open.
    #[must_use]
    pub fn closed_by(&self) -> Option<ClosedBy> {
        self.end.get().map(|end| end.by)
    }

    /// Whether our end was closed with RST.
    #[must_use]
    pub fn reset_sent(&self) -> bool {
        self.reset_sent.load(Relaxed)
    }

    /// The message of the error that ended it, if any.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.end.get().and_then(|end| end.error.as_deref())
    }

    /// The current TCP state, or the last one, read just before the close; None if it is not TCP.
    #[must_use]
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        // The socket first: if it is closed meanwhile, `end` is already set.
        self.probe.ask(None).or_else(|| self.end.get().and_then(|end| end.tcp_info))
    }

    /// The trace: receives, sends and faults, event by event, as far as they are kept. None if the
    /// server does not trace.
    #[must_use]
    pub fn trace(&self) -> Option<Vec<Event>> {
        self.extra.get().and_then(|extra| extra.trace.as_ref()).map(Trace::events)
    }

    /// What faults have done to the connection: the first events, and how many there were.
    #[must_use]
    pub fn faults(&self) -> (Vec<FaultEvent>, u64) {
        let faults = self.extra.get().and_then(|extra| extra.faults.get());
        faults.map_or_else(Default::default, |faults| faults.get())
    }

    /// How many things faults have done to the connection.
    #[must_use]
    pub fn fault_count(&self) -> u64 {
        let faults = self.extra.get().and_then(|extra| extra.faults.get());
        faults.map_or(0, |faults| faults.count())
    }

    /// What TLS has agreed on; None without TLS, or before the handshake is complete.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsInfo> {
        self.extra.get().and_then(|extra| extra.tls.get()).map(|tls| &**tls)
    }

    /// The connection's socket has another number from here on.
    pub(crate) fn socket_moved(&self, duplicate: impl AsRawFd) {
        self.probe.follow(duplicate);
    }

    /// Notes that a TLS handshake begins, which `note_tls` completes.
    pub(crate) fn begin_handshake(&self) {
        self.extra.get_or_init(Box::default).handshakes.store(true, Relaxed);
    }

    /// Whether a TLS handshake has begun, and is not complete.
    pub(crate) fn is_handshaking(&self) -> bool {
        let extra = self.extra.get();
        extra.is_some_and(|extra| extra.handshakes.load(Relaxed) && extra.tls.get().is_none())
    }

    /// Notes what TLS has agreed on; the first call counts.
    pub(crate) fn note_tls(&self, info: Box<TlsInfo>) {
        let extra = self.extra.get_or_init(Box::default);
        let _ = extra.tls.set(info);
    }

    /// Notes what a fault has done.
    pub(crate) fn note_fault(&self, event: FaultEvent) {
        let extra = self.extra.get_or_init(Box::default);
        if let Some(trace) = &extra.trace {
            // The time of the call: events of the trace are in the order of their times.
            trace.note_fault(self.opened().elapsed(), event.clone());
        }
        extra.faults.get_or_init(Box::default).note(event);
    }

    /// Counts a receive. Only the owner of the connection calls it.
    pub(crate) fn count_received(&self, data: &[u8]) {
        self.received.count(data.len());
        self.note(Direction::In, data.len(), [data]);
    }

    /// Counts a send. Only the owner of the connection calls it.
    pub(crate) fn count_sent(&self, data: &[u8]) {
        self.sent.count(data.len());
        self.note(Direction::Out, data.len(), [data]);
    }

    /// Counts a receive whose bytes stayed in the kernel. Not for a record with a trace.
    pub(crate) fn count_received_unseen(&self, bytes: usize) {
        self.received.count(bytes);
    }

    /// Counts such a send.
    pub(crate) fn count_sent_unseen(&self, bytes: usize) {
        self.sent.count(bytes);
    }

    /// Counts a receive of `bytes`, the first ones of `parts`, where calls may come from several
    /// threads.
    pub(crate) fn count_received_shared<'a>(
        &self,
        bytes: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) {
        self.received.count_shared(bytes);
        self.note(Direction::In, bytes, parts);
    }

    /// Counts a send, where calls may come from several threads.
    pub(crate) fn count_sent_shared<'a>(
        &self,
        bytes: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) {
        self.sent.count_shared(bytes);
        self.note(Direction::Out, bytes, parts);
    }

    /// Counts a receive on the upstream leg; None for bytes that stayed in the kernel. Only the
    /// owner of the connection calls it.
    pub(crate) fn count_far_received(&self, bytes: usize, data: Option<&[u8]>) {
        let Some(extra) = self.extra.get() else { return };
        if let Some(far) = extra.far.get() {
            far.received.count(bytes);
        } else if let Some(far) = extra.traced_far.get() {
            far.received.count(bytes);
            self.note_as(EventKind::Far(FarEvent::Data(Direction::In)), bytes, data);
        }
    }

    /// Counts such a send.
    pub(crate) fn count_far_sent(&self, bytes: usize, data: Option<&[u8]>) {
        let Some(extra) = self.extra.get() else { return };
        if let Some(far) = extra.far.get() {
            far.sent.count(bytes);
        } else if let Some(far) = extra.traced_far.get() {
            far.sent.count(bytes);
            self.note_as(EventKind::Far(FarEvent::Data(Direction::Out)), bytes, data);
        }
    }

    /// Notes a step of a connect of the upstream leg, if there is a trace.
    pub(crate) fn note_connect(&self, step: impl FnOnce() -> FarEvent) {
        if let Some(trace) = self.extra.get().and_then(|extra| extra.trace.as_ref()) {
            trace.note_far(self.opened().elapsed(), step());
        }
    }

    /// Whether the bytes must be read into memory for the trace.
    pub(crate) fn is_traced(&self) -> bool {
        self.extra.get().is_some_and(|extra| extra.trace.is_some())
    }

    fn note<'a>(
        &self,
        direction: Direction,
        bytes: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) {
        self.note_as(EventKind::Data(direction), bytes, parts);
    }

    fn note_as<'a>(
        &self,
        kind: EventKind,
        bytes: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) {
        if let Some(trace) = self.extra.get().and_then(|extra| extra.trace.as_ref()) {
            trace.note(self.opened().elapsed(), kind, bytes, parts);
        }
    }

    /// Adds the record of the upstream leg, which exists from now on.
    pub(crate) fn open_far(&self, far: Box<Far>) {
        let extra = self.extra.get_or_init(Box::default);
        let place = if extra.trace.is_some() { &extra.traced_far } else { &extra.far };
        let again = place.set(far);
        debug_assert!(again.is_ok(), "an upstream leg is opened once");
    }

    /// Whether the first byte has come; that of the client, where a header of a proxy comes before.
    pub(crate) fn has_received(&self) -> bool {
        let received = self.received.bytes.get();
        match self.proxied() {
            None => received > 0,
            Some(proxied) => {
                let header = |(_, header): &(_, ProxyHeader)| header.length as u64;
                proxied.claim.get().is_some_and(|claim| received > header(claim))
            }
        }
    }

    /// The TCP state just before the close. `algorithm` is the congestion control if known;
    /// querying it costs half a microsecond.
    pub(crate) fn last_tcp_info(&self, algorithm: Option<Algorithm>) -> Option<TcpInfo> {
        self.probe.ask(algorithm)
    }

    /// Notes what a close of the socket sends that follows at once; before the record closes, or
    /// when it has lingered after that. `info` is its state now.
    pub(crate) fn note_close(&self, close: SocketClose<'_>, by: ClosedBy, info: Option<&TcpInfo>) {
        if close.sends_reset(self.transport(), by, self.received().bytes, info) {
            self.reset_sent.store(true, Relaxed);
        }
    }

    /// Closes the record, while the socket is still open.
    pub(crate) fn close(&self, by: ClosedBy, error: Option<String>, tcp_info: Option<TcpInfo>) {
        let end = End {
            seconds: self.opened().elapsed(),
            by,
            error: error.map(String::into_boxed_str),
            tcp_info,
        };
        let again = self.end.set(Box::new(end));
        debug_assert!(again.is_ok(), "a record is closed once");
        // Last, so that a reader finds either the socket or its last state.
        self.probe.withdraw();
    }
}
