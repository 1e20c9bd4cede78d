//! The events of a stage: bytes or an end, in one of two directions. Must never own a byte.

/// What comes from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound<'a> {
    /// Never empty.
    Bytes(&'a [u8]),
    /// The peer has finished. Only an error can follow.
    End,
    /// The socket failed, with this errno. Nothing follows.
    Error(i32),
}

/// What goes to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outbound<'a> {
    /// Never empty.
    Bytes(&'a [u8]),
    /// Our side has finished. Only a reset can follow.
    End,
    /// The connection is reset. Nothing follows.
    Reset,
}

/// From the socket to the session, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the socket to the session.
    Inbound,
    /// From the session to the socket.
    Outbound,
}

/// Something on its way through a stage, whichever way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Never empty, except for a datagram.
    Bytes(&'a [u8]),
    /// The side that it comes from has finished.
    End,
    /// An errno inbound, a reset outbound. Nothing follows.
    Failure(i32),
}

impl Part<'_> {
    /// Its length in bytes; 0 for an end.
    #[must_use]
    pub fn len(&self) -> usize {
        if let Self::Bytes(bytes) = self { bytes.len() } else { 0 }
    }

    /// Whether it carries no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> From<Inbound<'a>> for Part<'a> {
    fn from(event: Inbound<'a>) -> Self {
        match event {
            Inbound::Bytes(bytes) => Self::Bytes(bytes),
            Inbound::End => Self::End,
            Inbound::Error(errno) => Self::Failure(errno),
        }
    }
}

impl<'a> From<Outbound<'a>> for Part<'a> {
    fn from(event: Outbound<'a>) -> Self {
        match event {
            Outbound::Bytes(bytes) => Self::Bytes(bytes),
            Outbound::End => Self::End,
            Outbound::Reset => Self::Failure(0),
        }
    }
}

impl<'a> From<Part<'a>> for Inbound<'a> {
    fn from(part: Part<'a>) -> Self {
        match part {
            Part::Bytes(bytes) => Self::Bytes(bytes),
            Part::End => Self::End,
            Part::Failure(errno) => Self::Error(errno),
        }
    }
}

impl<'a> From<Part<'a>> for Outbound<'a> {
    fn from(part: Part<'a>) -> Self {
        match part {
            Part::Bytes(bytes) => Self::Bytes(bytes),
            Part::End => Self::End,
            Part::Failure(_) => Self::Reset,
        }
    }
}
