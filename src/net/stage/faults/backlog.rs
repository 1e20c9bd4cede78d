//! What a lane holds back, in order: chunks, and ends behind them. Must never join two datagrams,
//! nor pass an end on before the bytes in front of it.

use super::kind::LaneFlow;
use crate::net::stage::event::Part;
use crate::net::stage::queue::Queue;

/// What a lane holds back.
pub(super) struct Backlog(Queue);

impl Backlog {
    pub(super) fn new(datagrams: bool) -> Self {
        Self(if datagrams { Queue::of_datagrams() } else { Queue::default() })
    }

    pub(super) fn push(&mut self, part: Part<'_>) {
        self.0.push(part);
    }

    /// What stands first.
    pub(super) fn front(&self) -> Option<Part<'_>> {
        self.0.front()
    }

    /// Bytes in it.
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }

    /// Chunks and ends in it.
    pub(super) fn parts(&self) -> usize {
        self.0.parts()
    }

    /// Whether nothing is in it, not even an end.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Passes on what stands first; of a chunk, up to `most` bytes. Returns how many there were.
    pub(super) fn pass(&mut self, flow: &mut LaneFlow<'_, '_>, most: usize) -> usize {
        let Some(part) = self.0.front() else { return 0 };
        let count = part.len().min(most);
        flow.pass(match part {
            Part::Bytes(bytes) => Part::Bytes(&bytes[..count]),
            end => end,
        });
        self.0.consume(count);
        count
    }

    /// Passes on everything.
    pub(super) fn pass_all(&mut self, flow: &mut LaneFlow<'_, '_>) {
        while !self.is_empty() {
            self.pass(flow, usize::MAX);
        }
    }
}
