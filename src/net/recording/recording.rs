//! What a recording contains: connections, each with its events. Must never know the form in which
//! it is stored.

use std::time::{Duration, SystemTime};

use super::content::Content;
use crate::net::address::{Address, Endpoint, Transport};

/// A recording that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// What the server listened on. Where the file is cut in front of this, TCP.
    pub transport: Transport,
    /// When the recording started, by the system's clock, in UTC. None where the file is cut in
    /// front of this.
    pub started: Option<SystemTime>,
    /// Where the server forwarded to, for people. Empty where the file is cut in front of this.
    pub target: String,
    /// The connections by their numbers, the order in which they were accepted. On UDP, each peer is
    /// one.
    pub connections: Vec<RecordedConnection>,
    /// When the recording stopped, since its start. None where the file is torn.
    pub stopped: Option<Duration>,
    /// Where the file is cut, if it is.
    pub torn: Option<Torn>,
}

/// The end of a file that is not complete: the recorder was killed, the disk was full, or it still
/// records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The number of the first line that is missing or not complete, from 1.
    pub line: u64,
    /// Where that line starts in the file, in bytes: everything in front of it has been read.
    pub offset: u64,
    /// What there is of that line.
    pub what: String,
}

/// One connection, or one peer of UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedConnection {
    /// The number of the connection's record, unique in a recording.
    pub number: u64,
    /// The client's side.
    pub client: Endpoint,
    /// The server's side. None in files of before it was recorded.
    pub local: Option<Endpoint>,
    /// When it was opened, since the start of the recording.
    pub at: Duration,
    /// What happened, in the order of time. In one direction nothing follows an end but a reset, and
    /// nothing follows that.
    pub events: Vec<Event>,
}

impl RecordedConnection {
    /// A connection without events.
    pub(super) fn opened(
        transport: Transport,
        number: u64,
        at: Duration,
        client: Address,
        local: Option<Address>,
    ) -> Self {
        let endpoint = |address| Endpoint { transport, address };
        let (client, local) = (endpoint(client), local.map(endpoint));
        Self { number, client, local, at, events: Vec::new() }
    }
}

/// Something that crossed a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, since the start of the recording.
    pub at: Duration,
    /// Which way.
    pub direction: Direction,
    /// What.
    pub what: What,
    /// The line of the file that says so, from 1; 0 if it was not read from a file.
    pub line: u64,
}

/// Which way something went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What crossed a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Bytes of a stream, as they came. Never empty.
    Bytes(Content),
    /// A datagram. May be empty.
    Datagram(Content),
    /// The side that it comes from has finished.
    End,
    /// The side that it comes from has reset the connection.
    Reset,
}
