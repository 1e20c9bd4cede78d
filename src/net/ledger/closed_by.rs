//! What can end a connection. Must never decide it.

/// Who or what ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClosedBy {
    /// The peer finished first.
    Peer,
    /// A Rust service ended it.
    Service,
    /// Python closed it, or its handler returned.
    Local,
    /// Its descriptor was given away; what came of it is not known.
    Detached,
    /// The peer, or the network, reset it.
    Reset,
    /// A limit, by its name.
    Limit(&'static str),
    /// An error of ours or of the service's; the record has the text.
    Error,
    /// The server stopped.
    Stop,
}

impl ClosedBy {
    /// Every end there is, in the order of `index`; for tables of counts.
    pub const NAMES: [&'static str; 8] =
        ["peer", "local", "service", "reset", "limit", "error", "stop", "detached"];

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
        }
    }

    /// The name users see.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self.index()]
    }
}
