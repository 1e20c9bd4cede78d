//! Two stages that only tests use: one cuts everything into single bytes, one delays everything.
//! Must never be offered to users.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chain::Chain;
use super::event::{Direction, Inbound, Outbound};
use super::factory::StageFactory;
use super::flow::Flow;
use super::line::Line;
use super::stage::{Stage, StageResult};
use crate::net::service::Peer;

/// Passes on byte by byte, each as a chunk of its own, in both directions.
#[derive(Debug, Default)]
pub struct Bytewise;

impl Stage for Bytewise {
    fn inbound(&mut self, flow: &mut Flow<'_>, event: Inbound<'_>) -> StageResult {
        match event {
            Inbound::Bytes(bytes) => {
                bytes.chunks(1).for_each(|byte| flow.pass_in(Inbound::Bytes(byte)));
            }
            end => flow.pass_in(end),
        }
        Ok(())
    }

    fn outbound(&mut self, flow: &mut Flow<'_>, event: Outbound<'_>) -> StageResult {
        match event {
            Outbound::Bytes(bytes) => {
                bytes.chunks(1).for_each(|byte| flow.pass_out(Outbound::Bytes(byte)));
            }
            end => flow.pass_out(end),
        }
        Ok(())
    }
}

/// Delays everything by a fixed time in both directions, ends included.
#[derive(Debug)]
pub struct Delayed {
    by: Duration,
    inbound: Line,
    outbound: Line,
}

impl Delayed {
    /// A delay of `by` in each direction.
    #[must_use]
    pub fn new(by: Duration) -> Self {
        Self { by, inbound: Line::default(), outbound: Line::default() }
    }
}

impl Stage for Delayed {
    fn inbound(&mut self, flow: &mut Flow<'_>, event: Inbound<'_>) -> StageResult {
        self.inbound.push(flow.now() + self.by, event.into());
        Ok(())
    }

    fn outbound(&mut self, flow: &mut Flow<'_>, event: Outbound<'_>) -> StageResult {
        self.outbound.push(flow.now() + self.by, event.into());
        Ok(())
    }

    fn turn(&mut self, flow: &mut Flow<'_>) -> StageResult {
        let now = flow.now();
        self.inbound.pass_due(now, &mut |part| flow.pass_in(part.into()));
        self.outbound.pass_due(now, &mut |part| flow.pass_out(part.into()));
        Ok(())
    }

    fn next_call(&self) -> Option<Instant> {
        [self.inbound.next(), self.outbound.next()].into_iter().flatten().min()
    }

    fn held(&self, direction: Direction) -> usize {
        match direction {
            Direction::Inbound => self.inbound.len(),
            Direction::Outbound => self.outbound.len(),
        }
    }

    fn is_owed(&self) -> bool {
        !self.inbound.is_empty() || !self.outbound.is_empty()
    }
}

/// A factory that gives each connection the one stage that `make` makes.
pub fn each<S: Stage + 'static>(
    make: impl Fn() -> S + Send + Sync + 'static,
) -> Arc<dyn StageFactory> {
    Arc::new(move |_: &Peer| Some(Box::new(Chain::new(vec![Box::new(make()) as Box<dyn Stage>]))))
}
