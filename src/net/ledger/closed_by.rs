//! The causes that end a connection. Must never decide which one applies.

/// The cause that ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClosedBy {
    /// The peer sent its FIN first.
    Peer,
    /// A Rust service closed it.
    Service,
    /// Python closed it, or its handler returned.
    Local,
    /// Its descriptor was given away; how it ended is not known.
    Detached,
    /// The peer or the network reset it.
    Reset,
    /// A limit was exceeded, given by name.
    Limit(&'static str),
    /// A fault on purpose, given by name.
    Fault(&'static str),
    /// An error of the engine or of the service; the record has the message.
    Error,
    /// The server stopped.
    Stop,
}

impl ClosedBy {
    /// The names of all causes, in the order of `index`; for tables of counts.
    pub const NAMES: [&'static str; 9] =
        ["peer", "local", "service", "reset", "limit", "error", "stop", "detached", "fault"];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Peer => 0,
            Self::Local => 1,
            Self::Service => 2,
            Self::Reset => 3,
            Self::Limit(_) => 4,
            Self::Error => 5,
            Self::Stop => 6,
            Self::Detached => 7,
            Self::Fault(_) => 8,
        }
    }

    /// The name in Python's API.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}
