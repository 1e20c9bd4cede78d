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
