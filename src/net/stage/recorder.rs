//! The stage that records: what passes it, in both directions, with its ends. Must never change
//! what passes, nor wait for the recording.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::event::{Direction, Inbound, Outbound, Part};
use super::flow::Flow;
use super::queue::Queue;
use super::stage::{Stage, StageResult};
use crate::net::recording::{self, Track};

/// How long after its last look the stage looks again whether the recorder has room, where nothing
/// wakes it.
const RETRY: Duration = Duration::from_millis(20);

/// Records one connection. Where the recorder's queue is full, it holds what comes, and no more is
/// received.
pub struct RecorderStage {
    track: Track,
    inbound: Queue,
    outbound: Queue,
    /// It takes nothing until its next turn.
    is_blocked: Cell<bool>,
    /// When it looks again.
    retry: Instant,
    is_woken_later: bool,
}

impl RecorderStage {
    /// The stage of a connection that is opened at `now`.
    #[must_use]
    pub fn new(track: Track, now: Instant) -> Self {
        Self {
            track,
            inbound: Queue::default(),
            outbound: Queue::default(),
            is_blocked: Cell::new(false),
            retry: now,
            is_woken_later: false,
        }
    }

    /// The same for datagrams.
    #[must_use]
    pub fn of_datagrams(track: Track, now: Instant) -> Self {
        Self {
            inbound: Queue::of_datagrams(),
            outbound: Queue::of_datagrams(),
            ..Self::new(track, now)
        }
    }

    fn queue(&mut self, direction: Direction) -> &mut Queue {
        match direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        }
    }

    fn take(&mut self, flow: &mut Flow<'_>, direction: Direction, part: Part<'_>) {
        if self.queue(direction).is_empty() && self.track.has_room() {
            self.record(flow.now(), direction, part);
            flow.pass(direction, part);
        } else {
            self.queue(direction).push(part);
            self.wait(flow);
        }
    }

    fn record(&mut self, now: Instant, direction: Direction, part: Part<'_>) {
        let direction = match direction {
            Direction::Inbound => recording::Direction::Up,
            Direction::Outbound => recording::Direction::Down,
        };
        match part {
            Part::Bytes(bytes) => self.track.bytes(now, direction, bytes),
            Part::End => self.track.end(now, direction),
            Part::Failure(_) => self.track.reset(now, direction),
        }
    }

    /// Passes on what is held of a direction, as far as there is room.
    fn release_some(&mut self, flow: &mut Flow<'_>, direction: Direction) {
        let empty = self.queue(direction).another();
        let mut queue = std::mem::replace(self.queue(direction), empty);
        while self.track.has_room() {
            let Some(part) = queue.front() else { break };
            self.record(flow.now(), direction, part);
            flow.pass(direction, part);
            let count = part.len();
            queue.consume(count);
        }
        *self.queue(direction) = queue;
    }

    /// Has the stage called again when there is room.
    fn wait(&mut self, flow: &mut Flow<'_>) {
        self.is_blocked.set(true);
        self.retry = flow.now() + RETRY;
        if let Some(waker) = flow.waker().filter(|_| !self.is_woken_later) {
            self.is_woken_later = true;
            self.track.when_room(Box::new(move || waker.wake()));
        }
    }
}

impl Stage for RecorderStage {
    fn inbound(&mut self, flow: &mut Flow<'_>, event: Inbound<'_>) -> StageResult {
        self.take(flow, Direction::Inbound, event.into());
        Ok(())
    }

    fn outbound(&mut self, flow: &mut Flow<'_>, event: Outbound<'_>) -> StageResult {
        self.take(flow, Direction::Outbound, event.into());
        Ok(())
    }

    fn turn(&mut self, flow: &mut Flow<'_>) -> StageResult {
        if !self.is_blocked.get() {
            return Ok(());
        }
        if self.track.has_room() {
            self.is_woken_later = false;
            self.is_blocked.set(false);
            self.release_some(flow, Direction::Inbound);
            self.release_some(flow, Direction::Outbound);
        }
        if !self.track.has_room() || !self.inbound.is_empty() || !self.outbound.is_empty() {
            self.wait(flow);
        }
        Ok(())
    }

    fn next_call(&self) -> Option<Instant> {
        self.is_blocked.get().then_some(self.retry)
    }

    fn held(&self, direction: Direction) -> usize {
        match direction {
            Direction::Inbound => self.inbound.len(),
            Direction::Outbound => self.outbound.len(),
        }
    }

    fn room(&self) -> usize {
        if self.is_blocked.get() || !self.track.has_room() {
            // Also where another connection has filled the queue: the next turn is at once.
            self.is_blocked.set(true);
            return 0;
        }
        usize::MAX
    }

    fn parts(&self, direction: Direction) -> usize {
        match direction {
            Direction::Inbound => self.inbound.parts(),
            Direction::Outbound => self.outbound.parts(),
        }
    }

    fn is_owed(&self) -> bool {
        !self.inbound.is_empty() || !self.outbound.is_empty()
    }
}
