//! Two stages that only tests use: one cuts everything into single bytes, one delays everything.
//! Must never be offered to users.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::chain::Chain;
use super::event::{Direction, Inbound, Outbound};
use super::factory::StageFactory;
use super::flow::Flow;
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

/// Something that is delayed.
#[derive(Debug)]
enum Held {
    Bytes(Vec<u8>),
    End,
    /// An errno inbound, a reset outbound.
    Failure(i32),
}

/// What is delayed in one direction.
#[derive(Debug, Default)]
struct Line {
    held: VecDeque<(Instant, Held)>,
    bytes: usize,
}

impl Line {
    fn push(&mut self, at: Instant, held: Held) {
        if let Held::Bytes(bytes) = &held {
            self.bytes += bytes.len();
        }
        self.held.push_back((at, held));
    }

    fn pop(&mut self, now: Instant) -> Option<Held> {
        self.next().filter(|&at| at <= now)?;
        let (_, held) = self.held.pop_front()?;
        if let Held::Bytes(bytes) = &held {
            self.bytes -= bytes.len();
        }
        Some(held)
    }

    fn next(&self) -> Option<Instant> {
        self.held.front().map(|&(at, _)| at)
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
        let held = match event {
            Inbound::Bytes(bytes) => Held::Bytes(bytes.to_vec()),
            Inbound::End => Held::End,
            Inbound::Error(errno) => Held::Failure(errno),
        };
        self.inbound.push(flow.now() + self.by, held);
        Ok(())
    }

    fn outbound(&mut self, flow: &mut Flow<'_>, event: Outbound<'_>) -> StageResult {
        let held = match event {
            Outbound::Bytes(bytes) => Held::Bytes(bytes.to_vec()),
            Outbound::End => Held::End,
            Outbound::Reset => Held::Failure(0),
        };
        self.outbound.push(flow.now() + self.by, held);
        Ok(())
    }

    fn turn(&mut self, flow: &mut Flow<'_>) -> StageResult {
        while let Some(held) = self.inbound.pop(flow.now()) {
            match held {
                Held::Bytes(bytes) => flow.pass_in(Inbound::Bytes(&bytes)),
                Held::End => flow.pass_in(Inbound::End),
                Held::Failure(errno) => flow.pass_in(Inbound::Error(errno)),
            }
        }
        while let Some(held) = self.outbound.pop(flow.now()) {
            match held {
                Held::Bytes(bytes) => flow.pass_out(Outbound::Bytes(&bytes)),
                Held::End => flow.pass_out(Outbound::End),
                Held::Failure(_) => flow.pass_out(Outbound::Reset),
            }
        }
        Ok(())
    }

    fn next_call(&self) -> Option<Instant> {
        [self.inbound.next(), self.outbound.next()].into_iter().flatten().min()
    }

    fn held(&self, direction: Direction) -> usize {
        match direction {
            Direction::Inbound => self.inbound.bytes,
            Direction::Outbound => self.outbound.bytes,
        }
    }

    fn is_owed(&self) -> bool {
        !self.inbound.held.is_empty() || !self.outbound.held.is_empty()
    }
}

/// A factory that gives each connection the one stage that `make` makes.
pub fn each<S: Stage + 'static>(
    make: impl Fn() -> S + Send + Sync + 'static,
) -> Arc<dyn StageFactory> {
    Arc::new(move |_: &Peer| Some(Box::new(Chain::new(vec![Box::new(make()) as Box<dyn Stage>]))))
}
