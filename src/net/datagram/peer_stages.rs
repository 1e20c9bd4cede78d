//! The stages of one peer. Owns the bound on what they hold; must never send a datagram, nor read a
//! clock.

use std::net::IpAddr;
use std::time::Instant;

use crate::net::ledger::Record;
use crate::net::stage::faults::FaultSet;
use crate::net::stage::{
    Chain, Direction, Inbound, Outbound, RecorderStage, StageError, StageResult,
};

/// Bytes that the stages of a peer hold at most in each direction.
const MOST_BYTES: usize = 1 << 20;
/// Datagrams likewise. An empty one takes memory as well.
const MOST_DATAGRAMS: usize = 4096;

const DIRECTIONS: [Direction; 2] = [Direction::Inbound, Direction::Outbound];

/// The stages between a peer's datagrams and the service.
pub(super) struct PeerStages {
    chain: Chain,
    /// The time under which the table of peers has them in its order.
    pub(super) due: Option<Instant>,
    /// The destination of the last datagram of the peer. A delayed datagram is given with it.
    pub(super) to: Option<(IpAddr, IpAddr)>,
    /// The peer has sent a datagram that was longer than the limit.
    pub(super) has_cut: bool,
}

impl PeerStages {
    /// Stages without any. They pass everything.
    pub(super) fn new(now: Instant) -> Self {
        let mut chain = Chain::of_datagrams();
        // No stage can fail.
        let _ = chain.open(now, None);
        Self { chain, due: None, to: None, has_cut: false }
    }

    /// Adds the stage of a recorder. Only to stages without any.
    pub(super) fn record(&mut self, now: Instant, stage: RecorderStage) {
        // It cannot fail.
        let _ = self.chain.push(now, Box::new(stage));
    }

    /// Adds and removes stages, so that there is one for each fault that the peer has now.
    pub(super) fn update(
        &mut self,
        faults: &FaultSet,
        record: &Record,
        now: Instant,
    ) -> StageResult {
        faults.update(&mut self.chain, record, now)
    }

    /// Gives a datagram to the stages. False if they hold too much, so that it is lost.
    pub(super) fn push(
        &mut self,
        now: Instant,
        direction: Direction,
        data: &[u8],
    ) -> Result<bool, StageError> {
        if self.chain.held(direction) + data.len() > MOST_BYTES
            || self.chain.parts(direction) >= MOST_DATAGRAMS
        {
            return Ok(false);
        }
        match direction {
            Direction::Inbound => self.chain.inbound(now, Inbound::Bytes(data))?,
            Direction::Outbound => self.chain.outbound(now, Outbound::Bytes(data))?,
        }
        Ok(true)
    }

    /// Calls the stages whose time has come.
    pub(super) fn turn(&mut self, now: Instant) -> StageResult {
        self.chain.turn(now)
    }

    /// When `turn` is next due.
    pub(super) fn next_call(&self) -> Option<Instant> {
        self.chain.next_call()
    }

    /// Puts the next datagram that has left the stages into `data`. False if there is none.
    pub(super) fn take(&mut self, direction: Direction, data: &mut Vec<u8>) -> bool {
        data.clear();
        match direction {
            Direction::Inbound => {
                let Some(Inbound::Bytes(bytes)) = self.chain.next_inbound() else { return false };
                data.extend_from_slice(bytes);
                self.chain.consume_inbound(data.len());
            }
            Direction::Outbound => {
                let Some(Outbound::Bytes(bytes)) = self.chain.next_outbound() else { return false };
                data.extend_from_slice(bytes);
                self.chain.consume_outbound(data.len());
            }
        }
        true
    }

    /// Notes in the record what faults have done.
    pub(super) fn keep_notes(&mut self, record: &Record) {
        self.chain.take_notes().into_iter().for_each(|event| record.note_fault(event));
    }

    /// How many datagrams are in them.
    pub(super) fn parts(&self, direction: Direction) -> usize {
        self.chain.parts(direction)
    }

    /// How many datagrams are in them, whichever way they go.
    pub(super) fn all_parts(&self) -> usize {
        DIRECTIONS.into_iter().map(|direction| self.parts(direction)).sum()
    }

    /// Whether they have nothing to do any more: no fault, and nothing on its way.
    pub(super) fn is_unused(&self) -> bool {
        self.chain.is_empty()
    }
}
