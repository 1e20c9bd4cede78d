//! The stage of one fault on one connection. Owns when the fault acts, and which way; must never
//! change what goes while it does not act.

use std::sync::Arc;
use std::time::Instant;

use super::draws::Draws;
use super::installed::{Installed, Subject};
use super::kind::{Lane, LaneFlow, LaneSite};
use super::later;
use crate::net::ledger::{Role, Way};
use crate::net::stage::event::{Direction, Inbound, Outbound, Part};
use crate::net::stage::flow::Flow;
use crate::net::stage::stage::{Stage, StageResult};

const DIRECTIONS: [Direction; 2] = [Direction::Inbound, Direction::Outbound];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Acting,
    Over,
}

/// A lane, with how much has gone into it.
struct Running {
    lane: Box<dyn Lane>,
    way: Way,
    offset: u64,
}

pub(super) struct FaultStage {
    installed: Arc<Installed>,
    opened: Instant,
    started: Instant,
    phase: Phase,
    from: Option<Instant>,
    to: Option<Instant>,
    datagrams: bool,
    inbound: Option<Running>,
    outbound: Option<Running>,
}

/// The way of a direction: a server receives what goes up.
fn way(direction: Direction, role: Role) -> Way {
    match (direction, role) {
        (Direction::Inbound, Role::Server) | (Direction::Outbound, Role::Client) => Way::Up,
        _ => Way::Down,
    }
}

impl FaultStage {
    /// None if the fault does nothing to a connection of this kind.
    pub(super) fn new(installed: &Arc<Installed>, subject: &Subject, seed: u64) -> Option<Self> {
        let fault = &installed.fault;
        let ends = fault.scope.window.is_some_and(|window| window.to.is_some());
        let lane = |direction| {
            let way = way(direction, subject.role);
            let draws = Draws::new(seed, subject.connection, Some(way), installed.id);
            let Subject { datagrams, high_water, .. } = *subject;
            let site = LaneSite { draws, way, datagrams, high_water, ends };
            let lane = fault.concerns(way).then(|| fault.kind.lane(site)).flatten()?;
            Some(Running { lane, way, offset: 0 })
        };
        let (inbound, outbound) = (lane(Direction::Inbound), lane(Direction::Outbound));
        if inbound.is_none() && outbound.is_none() {
            return None;
        }
        let window = fault.scope.window;
        let after = |time| later(subject.opened, time);
        Some(Self {
            installed: Arc::clone(installed),
            opened: subject.opened,
            started: subject.opened,
            phase: Phase::Waiting,
            from: window.map(|window| after(window.from)),
            to: window.and_then(|window| window.to).map(after),
            datagrams: subject.datagrams,
            inbound,
            outbound,
        })
    }

    fn running(&self, direction: Direction) -> Option<&Running> {
        match direction {
            Direction::Inbound => self.inbound.as_ref(),
            Direction::Outbound => self.outbound.as_ref(),
        }
    }

    /// Calls the lane of a direction.
    fn call(
        &mut self,
        flow: &mut Flow<'_>,
        direction: Direction,
        call: impl FnOnce(&mut dyn Lane, &mut LaneFlow<'_, '_>),
    ) {
        if self.phase == Phase::Over {
            return;
        }
        let (label, opened, started) = (&self.installed.fault.label, self.opened, self.started);
        let running = match direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        };
        if let Some(Running { lane, way, offset }) = running {
            let (way, offset) = (*way, *offset);
            let has_ended = false;
            let mut flow =
                LaneFlow { flow, direction, way, label, opened, started, offset, has_ended };
            call(&mut **lane, &mut flow);
            if flow.has_ended {
                // The other lane does not end the connection once more.
                self.phase = Phase::Over;
            }
        }
    }

    /// Begins to act, or ends that, where it is time.
    fn advance(&mut self, flow: &mut Flow<'_>) {
        let now = flow.now();
        let is_over = self.to.is_some_and(|to| to <= now);
        if self.phase == Phase::Waiting && is_over {
            // It was added later than that, or this thread is late.
            self.phase = Phase::Over;
        }
        if self.phase == Phase::Waiting && self.from.is_none_or(|from| from <= now) {
            self.phase = Phase::Acting;
            self.started = now.max(self.from.unwrap_or(now));
            for direction in DIRECTIONS {
                self.call(flow, direction, |lane, flow| lane.start(flow));
            }
        }
        if self.phase == Phase::Acting && is_over {
            self.end(flow);
        }
    }

    fn end(&mut self, flow: &mut Flow<'_>) {
        if self.phase == Phase::Acting {
            for direction in DIRECTIONS {
                self.call(flow, direction, |lane, flow| lane.release(flow));
            }
        }
        self.phase = Phase::Over;
    }

    fn push(&mut self, flow: &mut Flow<'_>, direction: Direction, part: Part<'_>) {
        self.advance(flow);
        if self.phase != Phase::Acting || self.running(direction).is_none() {
            return flow.pass(direction, part);
        }
        self.call(flow, direction, |lane, flow| lane.push(flow, part));
        let counted = match part {
            Part::Bytes(_) if self.datagrams => 1,
            part => part.len() as u64,
        };
        let running = match direction {
            Direction::Inbound => &mut self.inbound,
            Direction::Outbound => &mut self.outbound,
        };
        if let Some(running) = running {
            running.offset += counted;
        }
    }
}

impl Stage for FaultStage {
    fn open(&mut self, flow: &mut Flow<'_>) -> StageResult {
        self.advance(flow);
        Ok(())
    }

    fn inbound(&mut self, flow: &mut Flow<'_>, event: Inbound<'_>) -> StageResult {
        self.push(flow, Direction::Inbound, event.into());
        Ok(())
    }

    fn outbound(&mut self, flow: &mut Flow<'_>, event: Outbound<'_>) -> StageResult {
        self.push(flow, Direction::Outbound, event.into());
        Ok(())
    }

    fn turn(&mut self, flow: &mut Flow<'_>) -> StageResult {
        self.advance(flow);
        if self.phase == Phase::Acting {
            for direction in DIRECTIONS {
                self.call(flow, direction, |lane, flow| lane.turn(flow));
            }
        }
        Ok(())
    }

    fn next_call(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting => self.from,
            Phase::Acting => {
                let lane = |running: &Option<Running>| running.as_ref()?.lane.next_call();
                [lane(&self.inbound), lane(&self.outbound), self.to].into_iter().flatten().min()
            }
            Phase::Over => None,
        }
    }

    fn held(&self, direction: Direction) -> usize {
        self.running(direction).map_or(0, |running| running.lane.held())
    }

    fn capacity(&self, direction: Direction) -> usize {
        self.running(direction).map_or(0, |running| running.lane.capacity())
    }

    fn room(&self) -> usize {
        match (self.phase, &self.inbound) {
            (Phase::Acting, Some(running)) => running.lane.room(),
            _ => usize::MAX,
        }
    }

    fn parts(&self, direction: Direction) -> usize {
        self.running(direction).map_or(0, |running| running.lane.parts())
    }

    fn is_owed(&self) -> bool {
        [&self.inbound, &self.outbound].into_iter().flatten().any(|one| one.lane.is_owed())
    }

    fn is_stuck(&self, direction: Direction) -> bool {
        self.phase == Phase::Acting
            && self.running(direction).is_some_and(|running| running.lane.is_stuck())
    }

    fn release(&mut self, flow: &mut Flow<'_>) -> StageResult {
        self.end(flow);
        Ok(())
    }

    fn fault(&self) -> Option<u64> {
        Some(self.installed.id)
    }
}
