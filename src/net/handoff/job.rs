//! One piece of work for a thread of the pool. Owns what a handler can do with a datagram; must
//! never start a thread.

use std::net::IpAddr;
use std::sync::Arc;

use super::handed_out::{HandedOut, JobId};
use crate::net::address::Address;
use crate::net::control::ServerContext;
use crate::net::error::Result;
use crate::net::ledger::Record;
use crate::net::stream::Stream;

/// One piece of work for a thread of the pool.
pub enum Job {
    /// A connection to serve until it ends.
    Stream(Arc<Stream>),
    /// A datagram that the handler may answer.
    Datagram(Datagram),
}

/// The way by which a datagram is answered.
pub(crate) trait Answers: Send + Sync {
    /// Sends `data` to the peer at `to`, which wrote to the local address `own`. A peer outside the
    /// loopback gets at most `most` bytes.
    fn reply(&self, to: &Address, own: Option<IpAddr>, data: &[u8], most: usize) -> Result<()>;

    /// Closes the record of a peer whose handler failed.
    fn fail(&self, to: &Address, own: Option<IpAddr>, error: String);
}

/// A received datagram, while a thread of the pool works on it.
pub struct Datagram {
    pub(crate) answers: Arc<dyn Answers>,
    pub(crate) context: Arc<ServerContext>,
    pub(crate) handed_out: Arc<HandedOut>,
    pub(crate) job: JobId,
    pub(crate) data: Vec<u8>,
    pub(crate) from: Address,
    /// The local address that it was sent to, where the socket has several.
    pub(crate) own: Option<IpAddr>,
    /// The address in its header.
    pub(crate) to: Address,
    pub(crate) record: Arc<Record>,
}

impl Datagram {
    /// The payload.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The sender's address.
    #[must_use]
    pub fn from(&self) -> &Address {
        &self.from
    }

    /// The address that it was sent to: of this machine, or a broadcast or multicast address.
    #[must_use]
    pub fn to(&self) -> &Address {
        &self.to
    }

    /// The record of the sender.
    #[must_use]
    pub fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Sends an answer. What cannot be sent is dropped and counted; only an answer that is too
    /// large for any datagram is an error. Does not block.
    pub fn reply(&self, data: &[u8]) -> Result<()> {
        match self.answers.reply(&self.from, self.own, data, self.data.len()) {
            Err(error) if error.raw() == Some(libc::EMSGSIZE) => Err(error),
            _ => Ok(()),
        }
    }

    /// Closes the sender's record after its handler failed. The next datagram opens a new one.
    pub fn fail(&self, error: String) {
        self.answers.fail(&self.from, self.own, error);
    }
}

impl Drop for Datagram {
    fn drop(&mut self) {
        if !self.context.origin.is_here() {
            // In a forked child all of this is a copy. Its locks may be held by threads that do not
            // exist there.
            std::mem::forget(Arc::clone(&self.answers));
            std::mem::forget(Arc::clone(&self.context));
            std::mem::forget(Arc::clone(&self.handed_out));
            return;
        }
        self.handed_out.remove_and_notify(self.job, &self.context);
    }
}
