//! The turns of peers whose jobs must not overtake each other. Owns the jobs that wait for an
//! earlier job of the same peer; must never run one, nor hold more than a fixed number of bytes.

use std::collections::{HashMap, VecDeque};

use super::handed_out::JobId;
use super::job::Job;
use crate::net::address::Address;

/// The most bytes that wait for one peer. About what a socket's receive buffer holds.
const MOST_OF_PEER: usize = 1 << 20;
/// The most bytes that wait for all peers together.
const MOST: usize = 64 << 20;
/// What a waiting job takes beside its data.
const OVERHEAD: usize = 256;

/// The jobs of one peer behind the one that is queued or running.
#[derive(Default)]
struct Waiting {
    jobs: VecDeque<(JobId, Job, usize)>,
    bytes: usize,
}

/// What becomes of a new job.
pub(super) enum Turn {
    /// It is its peer's turn.
    Now(Job),
    /// It waits for an earlier job of its peer.
    Later,
    /// There is no room for it.
    NoRoom(Job),
}

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Turns {
    /// The peers that have a job which is queued or running.
    peers: HashMap<Address, Waiting>,
    /// The peer of each of these jobs, by the number of the job.
    current: HashMap<u64, Address>,
    bytes: usize,
}

impl Turns {
    /// Adds a job of a peer, with `bytes` of data.
    pub(super) fn add(&mut self, peer: Address, id: JobId, job: Job, bytes: usize) -> Turn {
        let Some(waiting) = self.peers.get_mut(&peer) else {
            self.peers.insert(peer.clone(), Waiting::default());
            self.current.insert(id.number(), peer);
            return Turn::Now(job);
        };
        let bytes = bytes + OVERHEAD;
        if waiting.bytes + bytes > MOST_OF_PEER || self.bytes + bytes > MOST {
            return Turn::NoRoom(job);
        }
        waiting.bytes += bytes;
        self.bytes += bytes;
        waiting.jobs.push_back((id, job, bytes));
        Turn::Later
    }

    /// Ends the turn of a job. Returns the next job of its peer, whose turn it is then.
    pub(super) fn finish(&mut self, number: u64) -> Option<(JobId, Job)> {
        if self.current.is_empty() {
            return None;
        }
        let peer = self.current.remove(&number)?;
        let waiting = self.peers.get_mut(&peer)?;
        let Some((id, job, bytes)) = waiting.jobs.pop_front() else {
            self.peers.remove(&peer);
            return None;
        };
        waiting.bytes -= bytes;
        self.bytes -= bytes;
        self.current.insert(id.number(), peer);
        Some((id, job))
    }

    /// Takes all jobs that wait.
    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}
