//! What is remembered of one connection. Whoever moves its bytes writes the counters, anybody may read
//! them; must never own a socket or keep a connection alive.

use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use once_cell::race::OnceBox;

use super::closed_by::ClosedBy;
use super::counters::{Counters, Flow};
use super::trace::{Direction, Event, Trace, TraceLimits};
use crate::net::address::{Endpoint, Transport};
use crate::net::socket::{Algorithm, Credentials, Probe, TcpInfo};

/// How and when a connection ended.
#[derive(Debug)]
struct End {
    seconds: Duration,
    by: ClosedBy,
    error: Option<Box<str>>,
    /// The last that the kernel knew.
    tcp_info: Option<TcpInfo>,
}

/// Which end of the connection ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It was accepted.
    Server,
    /// It connected.
    Client,
}

/// The account of a connection's far leg.
#[derive(Debug)]
pub struct Far {
    local: Endpoint,
    remote: Endpoint,
    received: Counters,
    sent: Counters,
}

impl Far {
    /// Opens the account of a leg that is being opened.
    pub(crate) fn new(local: Endpoint, remote: Endpoint) -> Self {
        Self { local, remote, received: Counters::default(), sent: Counters::default() }
    }

    /// Our side.
    #[must_use]
    pub fn local(&self) -> Endpoint {
        self.local.clone()
    }

    /// Where it leads to.
    #[must_use]
    pub fn remote(&self) -> Endpoint {
        self.remote.clone()
    }

    /// What came in on it.
    #[must_use]
    pub fn received(&self) -> Flow {
        self.received.get()
    }

    /// What went out on it.
    #[must_use]
    pub fn sent(&self) -> Flow {
        self.sent.get()
    }

    /// Counts a receive. Only the owner of the connection calls it.
    pub(crate) fn count_received(&self, bytes: usize) {
        self.received.count(bytes);
    }

    /// Counts a send. Only the owner of the connection calls it.
    pub(crate) fn count_sent(&self, bytes: usize) {
        self.sent.count(bytes);
    }
}

/// A moment before all records, to count from: an `Instant` takes twice the room of a number.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Good for 584 years.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970.
fn wall_clock() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The account of one connection, live until it is closed.
#[derive(Debug)]
pub struct Record {
    id: u64,
    role: Role,
    local: Endpoint,
    remote: Endpoint,
    /// Wall clock, for people; `opened` is for durations, which a step of the clock must not bend.
    opened_at: u64,
    /// Nanoseconds since `epoch`.
    opened: u64,
    received: Counters,
    sent: Counters,
    probe: Probe,
    extra: OnceBox<Extra>,
    end: OnceBox<End>,
}

/// What few records have, so that the others are small.
#[derive(Debug, Default)]
struct Extra {
    trace: Option<Trace>,
    far: OnceLock<Box<Far>>,
    /// Who the peer is; only Unix sockets know.
    credentials: OnceLock<Credentials>,
}

impl Record {
    /// Opens the account of a connection that was just made.
    pub(crate) fn new(id: u64, role: Role, local: Endpoint, remote: Endpoint) -> Self {
        Self {
            id,
            role,
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

    /// The same, of a TCP socket that may be asked until `close`.
    pub(crate) fn with_socket(self, socket: impl AsRawFd) -> Self {
        Self { probe: Probe::of(socket), ..self }
    }

    /// The same, with what goes over it remembered within limits.
    pub(crate) fn with_trace(self, limits: Option<TraceLimits>) -> Self {
        if let Some(limits) = limits {
            let extra = Extra { trace: Some(Trace::new(limits)), ..Extra::default() };
            let again = self.extra.set(Box::new(extra));
            debug_assert!(again.is_ok(), "said when the record is made");
        }
        self
    }

    /// The same, of a peer that the kernel vouches for.
    pub(crate) fn with_credentials(self, credentials: Option<Credentials>) -> Self {
        if let Some(credentials) = credentials {
            let extra = self.extra.get_or_init(Box::default);
            let again = extra.credentials.set(credentials);
            debug_assert!(again.is_ok(), "said when the record is made");
        }
        self
    }

    /// The connection's number in its server, from 1; a client's in its process.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Which end ours is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Our side.
    #[must_use]
    pub fn local(&self) -> Endpoint {
        self.local.clone()
    }

    /// How its bytes travel.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.local.transport
    }

    /// The peer's side.
    #[must_use]
    pub fn remote(&self) -> Endpoint {
        self.remote.clone()
    }

    /// The process at the other end of a Unix socket; None with any other transport.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        self.extra.get().and_then(|extra| extra.credentials.get()).copied()
    }

    /// When it was accepted, for durations.
    pub(crate) fn opened(&self) -> Instant {
        epoch() + Duration::from_nanos(self.opened)
    }

    /// When it was accepted, on the wall clock, since 1970.
    #[must_use]
    pub fn opened_at(&self) -> Duration {
        Duration::from_nanos(self.opened_at)
    }

    /// How long it was, or has been, open.
    #[must_use]
    pub fn seconds(&self) -> Duration {
        self.end.get().map_or_else(|| self.opened().elapsed(), |end| end.seconds)
    }

    /// What the peer sent us.
    #[must_use]
    pub fn received(&self) -> Flow {
        self.received.get()
    }

    /// What we sent the peer.
    #[must_use]
    pub fn sent(&self) -> Flow {
        self.sent.get()
    }

    /// The far leg; None where there is none, or not yet.
    #[must_use]
    pub fn far(&self) -> Option<&Far> {
        self.extra.get().and_then(|extra| extra.far.get()).map(|far| &**far)
    }

    /// What ended it; None while it is open.
    #[must_use]
    pub fn closed_by(&self) -> Option<ClosedBy> {
        self.end.get().map(|end| end.by)
    }

    /// The words of an error that ended it.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.end.get().and_then(|end| end.error.as_deref())
    }

    /// What the kernel knows of it, or what it last knew, taken just before the close; None where it is
    /// none of TCP's.
    #[must_use]
    pub fn tcp_info(&self) -> Option<TcpInfo> {
        // Asked first: where it is closed in between, that has left the last one.
        self.probe.ask(None).or_else(|| self.end.get().and_then(|end| end.tcp_info))
    }

    /// What was received and sent, event by event, as far as it is remembered; None where it was not
    /// to be.
    #[must_use]
    pub fn trace(&self) -> Option<Vec<Event>> {
        self.extra.get().and_then(|extra| extra.trace.as_ref()).map(Trace::events)
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

    /// Counts a receive whose bytes have not come to us. Not where there is a trace.
    pub(crate) fn count_received_unseen(&self, bytes: usize) {
        self.received.count(bytes);
    }

    /// Counts a send likewise.
    pub(crate) fn count_sent_unseen(&self, bytes: usize) {
        self.sent.count(bytes);
    }

    /// Counts a receive of `bytes`, the first ones of `parts`, where calls may come from several threads.
    pub(crate) fn count_received_shared<'a>(
        &self,
        bytes: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) {
        self.received.count_shared(bytes);
        self.note(Direction::In, bytes, parts);
    }

    /// Counts a send likewise.
    pub(crate) fn count_sent_shared<'a>(
        &self,
        bytes: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) {
        self.sent.count_shared(bytes);
        self.note(Direction::Out, bytes, parts);
    }

    /// Whether what is moved has to be seen.
    pub(crate) fn is_traced(&self) -> bool {
        self.extra.get().is_some_and(|extra| extra.trace.is_some())
    }

    fn note<'a>(
        &self,
        direction: Direction,
        bytes: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) {
        if let Some(trace) = self.extra.get().and_then(|extra| extra.trace.as_ref()) {
            trace.note(self.opened().elapsed(), direction, bytes, parts);
        }
    }

    /// Adds the account of its far leg, which is there from now on.
    pub(crate) fn open_far(&self, far: Box<Far>) {
        let extra = self.extra.get_or_init(Box::default);
        let again = extra.far.set(far);
        debug_assert!(again.is_ok(), "a far leg is opened once");
    }

    pub(crate) fn has_received(&self) -> bool {
        self.received.bytes.get() > 0
    }

    /// What the kernel knows just before the close. `algorithm` is how it avoided congestion, where that
    /// is known: to ask costs half a microsecond.
    pub(crate) fn last_tcp_info(&self, algorithm: Option<Algorithm>) -> Option<TcpInfo> {
        self.probe.ask(algorithm)
    }

    /// Closes the account, while the socket is still open.
    pub(crate) fn close(&self, by: ClosedBy, error: Option<String>, tcp_info: Option<TcpInfo>) {
        let end = End {
            seconds: self.opened().elapsed(),
            by,
            error: error.map(String::into_boxed_str),
            tcp_info,
        };
        let again = self.end.set(Box::new(end));
        debug_assert!(again.is_ok(), "a record is closed once");
        // Only now: whoever asks finds either the socket or what was last known of it.
        self.probe.withdraw();
    }
}
