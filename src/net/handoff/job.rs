//! What a thread of the caller's is given to work on. Must never start a thread.

use std::sync::Arc;

use crate::net::datagram::handoff::Datagram;
use crate::net::stream::stream::Stream;

/// What a thread of the pool is given to work at.
pub enum Job {
    /// A connection, to be served to its end.
    Stream(Arc<Stream>),
    /// A datagram, to be answered or not.
    Datagram(Datagram),
}

impl Job {
    pub(super) fn ticket(&self) -> Option<JobId> {
        match self {
            Self::Stream(stream) => stream.ticket(),
            Self::Datagram(datagram) => Some(datagram.ticket()),
        }
    }
}

/// A job's place on the list of what is handed out, and its number: places are used again while a
/// handler is still at what had them before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobId {
    pub(super) place: usize,
    pub(super) number: u64,
}
