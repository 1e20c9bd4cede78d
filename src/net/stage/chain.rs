//! The stages of one connection, from the socket up. Owns the order in which they are called and
//! what lies at both ends of them. Must never hold back what a stage has passed on, nor reorder it.

use std::sync::Arc;
use std::time::Instant;

use super::event::{Direction, Inbound, Outbound};
use super::flow::{Flow, Requests, StageEnd};
use super::gate::Gate;
use super::queue::Queue;
use super::stage::{Stage, StageError, StageResult};
use crate::net::ledger::{FaultEvent, ProxyHeader, TlsInfo};
use crate::net::service::Waker;

/// The stages of one connection: the first one is next to the socket, the last one next to the
/// session.
///
/// Whatever a stage passes on is given to its neighbour before a call of the chain returns; what
/// leaves the chain waits at its ends until it is taken.
pub struct Chain {
    stages: Vec<Box<dyn Stage>>,
    /// What goes into each stage from below, and behind the last one what is for the session.
    inbound: Vec<Queue>,
    /// What goes out of each stage below, the first of which is for the socket, and into the last
    /// one.
    outbound: Vec<Queue>,
    requests: Requests,
    woken: bool,
    is_open: bool,
}

impl Chain {
    /// A chain of stages, from the socket up.
    #[must_use]
    pub fn new(stages: Vec<Box<dyn Stage>>) -> Self {
        let queues = || (0..=stages.len()).map(|_| Queue::default()).collect();
        Self {
            inbound: queues(),
            outbound: queues(),
            requests: Requests::default(),
            woken: false,
            is_open: false,
            stages,
        }
    }

    /// A chain without stages whose chunks are datagrams: an empty one is passed on as well.
    #[must_use]
    pub fn of_datagrams() -> Self {
        let mut chain = Self::new(Vec::new());
        chain.inbound = vec![Queue::of_datagrams()];
        chain.outbound = vec![Queue::of_datagrams()];
        chain
    }

    /// Has stages that are opened from now on keep to a bound on handshakes; None for none.
    pub(crate) fn put_gate(&mut self, gate: Option<&Arc<Gate>>) {
        self.requests.gate = gate.cloned();
    }

    /// Opens every stage, those next to the socket first.
    pub fn open(&mut self, now: Instant, waker: Option<Waker>) -> StageResult {
        self.is_open = true;
        self.requests.waker = waker;
        for index in 0..self.stages.len() {
            self.call(now, index, |stage, flow| stage.open(flow))?;
        }
        self.settle(now)
    }

    /// The faults among the stages, from the socket up.
    pub(crate) fn faults(&self) -> impl Iterator<Item = u64> {
        self.stages.iter().filter_map(|stage| stage.fault())
    }

    /// Whether a stage can be added: not once one has ended the connection.
    pub(crate) fn takes_stages(&self) -> bool {
        self.requests.enders.is_empty()
    }

    /// Whether it has no stages, and nothing on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.stages.is_empty()
            && self.inbound[0].is_empty()
            && self.outbound[0].is_empty()
            && self.requests.ended.is_none()
            && self.requests.notes.is_empty()
    }

    /// Adds a stage next to the socket, to a chain that is not open yet.
    pub(crate) fn put_first(&mut self, stage: Box<dyn Stage>) {
        debug_assert!(!self.is_open, "before anything can be on its way");
        self.inbound.insert(0, self.inbound[0].another());
        self.outbound.insert(0, self.outbound[0].another());
        self.stages.insert(0, stage);
    }

    /// Whether no stage holds anything, whatever waits at the ends of the chain.
    pub(crate) fn is_at_rest(&self) -> bool {
        [Direction::Inbound, Direction::Outbound]
            .into_iter()
            .all(|direction| self.stages.iter().all(|stage| stage.held(direction) == 0))
    }

    /// Adds a stage next to the socket of a chain that is in use. What has left the chain for the
    /// socket goes ahead of it, and does not go through it.
    pub(crate) fn push_below(&mut self, now: Instant, stage: Box<dyn Stage>) -> StageResult {
        debug_assert!(self.is_open && self.is_at_rest(), "what a stage holds would go through it");
        let queue = self.inbound[0].another();
        self.inbound.insert(0, queue);
        // The queue for the socket stays the first.
        let queue = self.outbound[0].another();
        self.outbound.insert(1, queue);
        self.stages.insert(0, stage);
        self.requests.enders.iter_mut().for_each(|ender| *ender += 1);
        self.call(now, 0, |stage, flow| stage.open(flow))?;
        self.settle(now)
    }

    /// The stages of a chain that is not open yet.
    pub(crate) fn into_stages(self) -> Vec<Box<dyn Stage>> {
        self.stages
    }

    /// Adds a stage next to the session. What has left the chain for the session does not go
    /// through it. No effect once a stage has ended the connection.
    pub(crate) fn push(&mut self, now: Instant, stage: Box<dyn Stage>) -> StageResult {
        if !self.takes_stages() {
            return Ok(());
        }
        // The queue at the end stays at the end.
        let last = self.stages.len();
        let queue = self.inbound[last].another();
        self.inbound.insert(last, queue);
        self.outbound.push(self.outbound[last].another());
        self.stages.push(stage);
        if !self.is_open {
            return Ok(());
        }
        self.call(now, last, |stage, flow| stage.open(flow))?;
        self.settle(now)
    }

    /// Removes the stage of a fault. What it holds is passed on first, in order. No effect on the
    /// fault that has ended the connection.
    pub(crate) fn remove_fault(&mut self, now: Instant, fault: u64) -> StageResult {
        let found = self.stages.iter().position(|stage| stage.fault() == Some(fault));
        let Some(index) = found else { return Ok(()) };
        self.call(now, index, |stage, flow| stage.release(flow))?;
        self.settle(now)?;
        if self.requests.enders.contains(&index) {
            return Ok(());
        }
        for ender in self.requests.enders.iter_mut().filter(|ender| **ender > index) {
            *ender -= 1;
        }
        // Everything between two stages has settled: these two queues are empty.
        self.stages.remove(index);
        self.inbound.remove(index);
        self.outbound.remove(index + 1);
        Ok(())
    }

    /// What faults have done since the last call.
    pub fn take_notes(&mut self) -> Vec<FaultEvent> {
        std::mem::take(&mut self.requests.notes)
    }

    /// What TLS has agreed on, once.
    pub fn take_tls(&mut self) -> Option<Box<TlsInfo>> {
        self.requests.tls.take()
    }

    /// Gives what came from the socket to the first stage.
    pub fn inbound(&mut self, now: Instant, event: Inbound<'_>) -> StageResult {
        if self.stages.is_empty() || event == Inbound::Bytes(&[]) {
            self.inbound[0].push(event.into());
        } else {
            // Not through the queue, which is empty: everything in front of a stage has settled.
            self.call(now, 0, |stage, flow| stage.inbound(flow, event))?;
        }
        self.settle(now)
    }

    /// Gives what came from the session to the last stage.
    pub fn outbound(&mut self, now: Instant, event: Outbound<'_>) -> StageResult {
        match self.stages.len().checked_sub(1) {
            Some(last) if event != Outbound::Bytes(&[]) => {
                self.call(now, last, |stage, flow| stage.outbound(flow, event))?;
            }
            _ => self.outbound[self.stages.len()].push(event.into()),
        }
        self.settle(now)
    }

    /// Calls the stages whose time has come; after `wake`, all of them.
    pub fn turn(&mut self, now: Instant) -> StageResult {
        let woken = std::mem::take(&mut self.woken);
        for index in 0..self.served() {
            if woken || self.stages[index].next_call().is_some_and(|at| at <= now) {
                self.call(now, index, |stage, flow| stage.turn(flow))?;
            }
        }
        self.settle(now)
    }

    /// Has the next `turn` call every stage.
    pub fn wake(&mut self) {
        self.woken = true;
    }

    /// When `turn` is next due.
    #[must_use]
    pub fn next_call(&self) -> Option<Instant> {
        self.stages[..self.served()].iter().filter_map(|stage| stage.next_call()).min()
    }

    /// What leaves the chain next for the session.
    #[must_use]
    pub fn next_inbound(&self) -> Option<Inbound<'_>> {
        self.inbound[self.stages.len()].front().map(Inbound::from)
    }

    /// Takes what `next_inbound` has shown; of a chunk, that many bytes.
    pub fn consume_inbound(&mut self, count: usize) {
        self.inbound[self.stages.len()].consume(count);
    }

    /// What leaves the chain next for the socket.
    #[must_use]
    pub fn next_outbound(&self) -> Option<Outbound<'_>> {
        self.outbound[0].front().map(Outbound::from)
    }

    /// Takes what `next_outbound` has shown; of a chunk, that many bytes.
    pub fn consume_outbound(&mut self, count: usize) {
        self.outbound[0].consume(count);
    }

    /// Whether the last that waits for the session is an error.
    #[must_use]
    pub fn ends_with_error(&self) -> bool {
        self.inbound[self.stages.len()].ends_with_failure()
    }

    /// Whether the last that waits for the socket is a reset.
    #[must_use]
    pub fn ends_with_reset(&self) -> bool {
        self.outbound[0].ends_with_failure()
    }

    /// Bytes in the chain, its end included.
    #[must_use]
    pub fn held(&self, direction: Direction) -> usize {
        let end = match direction {
            Direction::Inbound => &self.inbound[self.stages.len()],
            Direction::Outbound => &self.outbound[0],
        };
        end.len() + self.stages.iter().map(|stage| stage.held(direction)).sum::<usize>()
    }

    /// How many datagrams are in the chain, its end included.
    #[must_use]
    pub fn parts(&self, direction: Direction) -> usize {
        let end = match direction {
            Direction::Inbound => &self.inbound[self.stages.len()],
            Direction::Outbound => &self.outbound[0],
        };
        end.parts() + self.stages.iter().map(|stage| stage.parts(direction)).sum::<usize>()
    }

    /// Bytes of `held` that do not count towards high water.
    #[must_use]
    pub fn capacity(&self, direction: Direction) -> usize {
        self.stages.iter().map(|stage| stage.capacity(direction)).sum()
    }

    /// Bytes that the stages take now from the socket.
    #[must_use]
    pub fn room(&self) -> usize {
        self.stages.iter().map(|stage| stage.room()).min().unwrap_or(usize::MAX)
    }

    /// Whether something is on its way through the chain, or held in it.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        !self.inbound[self.stages.len()].is_empty()
            || !self.outbound[0].is_empty()
            || self.stages.iter().any(|stage| stage.is_owed())
    }

    /// Whether our end has to go through the chain, also where a limit ends the connection.
    #[must_use]
    pub fn owes_end(&self) -> bool {
        self.stages.iter().any(|stage| stage.owes_end()) && !self.is_stuck(Direction::Outbound)
    }

    /// Whether nothing gets through in a direction until a stage is removed.
    #[must_use]
    pub fn is_stuck(&self, direction: Direction) -> bool {
        self.stages.iter().any(|stage| stage.is_stuck(direction))
    }

    /// Whether a fault holds something that goes on by itself, in its time.
    #[must_use]
    pub fn is_delaying(&self) -> bool {
        self.stages.iter().any(|stage| stage.fault().is_some() && stage.is_owed())
    }

    /// Bytes that have left the chain and wait for the session.
    pub(crate) fn unread(&self) -> usize {
        self.inbound[self.stages.len()].len()
    }

    /// Whether the session may be opened.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.stages.iter().all(|stage| stage.is_ready())
    }

    /// What a proxy has said about the connection, once.
    pub fn take_proxy(&mut self) -> Option<Box<ProxyHeader>> {
        self.requests.proxy.take()
    }

    /// Whether a stage has ended the connection, which `take_end` tells.
    #[must_use]
    pub fn has_end(&self) -> bool {
        self.requests.ended.is_some()
    }

    /// How a stage has ended the connection, until `take_end`.
    pub(crate) fn end(&self) -> Option<&StageEnd> {
        self.requests.ended.as_ref()
    }

    /// How a stage has ended the connection, once.
    pub fn take_end(&mut self) -> Option<StageEnd> {
        self.requests.ended.take()
    }

    /// Whether `waker` was used since the last call.
    pub(crate) fn was_woken(&self) -> bool {
        self.requests.waker.as_ref().is_some_and(Waker::heard)
    }

    /// How many stages have turns: those above one that has ended the connection have none.
    fn served(&self) -> usize {
        self.requests.enders.iter().copied().min().unwrap_or(self.stages.len())
    }

    fn call(
        &mut self,
        now: Instant,
        index: usize,
        action: impl FnOnce(&mut dyn Stage, &mut Flow<'_>) -> StageResult,
    ) -> StageResult {
        if self.requests.enders.contains(&index) {
            return Ok(());
        }
        let mut flow = Flow {
            now,
            inbound: &mut self.inbound[index + 1],
            outbound: &mut self.outbound[index],
            requests: &mut self.requests,
            index,
        };
        action(&mut *self.stages[index], &mut flow)
    }

    /// Gives everything that stages have passed on to their neighbours, until it has left the chain
    /// or is held by a stage.
    fn settle(&mut self, now: Instant) -> StageResult {
        loop {
            let mut moved = false;
            for index in 0..self.stages.len() {
                moved |= self.give_inbound(now, index)?;
            }
            for index in (0..self.stages.len()).rev() {
                moved |= self.give_outbound(now, index)?;
            }
            if !moved {
                return Ok(());
            }
        }
    }

    fn give_inbound(&mut self, now: Instant, index: usize) -> Result<bool, StageError> {
        if self.inbound[index].is_empty() {
            return Ok(false);
        }
        // A stage never passes anything back into the queue it is given from.
        let empty = self.inbound[index].another();
        let mut queue = std::mem::replace(&mut self.inbound[index], empty);
        while let Some(part) = queue.front() {
            self.call(now, index, |stage, flow| stage.inbound(flow, part.into()))?;
            let count = part.len();
            queue.consume(count);
        }
        Ok(true)
    }

    fn give_outbound(&mut self, now: Instant, index: usize) -> Result<bool, StageError> {
        if self.outbound[index + 1].is_empty() {
            return Ok(false);
        }
        let empty = self.outbound[index + 1].another();
        let mut queue = std::mem::replace(&mut self.outbound[index + 1], empty);
        while let Some(part) = queue.front() {
            self.call(now, index, |stage, flow| stage.outbound(flow, part.into()))?;
            let count = part.len();
            queue.consume(count);
        }
        Ok(true)
    }
}
