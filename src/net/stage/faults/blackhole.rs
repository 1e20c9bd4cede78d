//! Blackhole: nothing goes on, and neither end is told. Must never lose a byte of a stream, nor
//! keep a datagram.

use std::time::{Duration, Instant};

use super::backlog::Backlog;
use super::kind::{Kind, Lane, LaneFlow, LaneSite};
use super::later;
use super::params::Params;
use crate::net::error::Result;
use crate::net::stage::event::Part;

#[derive(Clone, Copy, Debug)]
struct Blackhole {
    after: Duration,
    /// None for as long as the fault acts.
    lasts: Option<Duration>,
}

pub(super) fn make(params: &Params) -> Result<Box<dyn Kind>> {
    let after = params.time("after_seconds")?.unwrap_or_default();
    Ok(Box::new(Blackhole { after, lasts: params.time("for_seconds")? }))
}

impl Kind for Blackhole {
    fn fits_datagrams(&self) -> bool {
        true
    }

    fn lane(&self, site: LaneSite) -> Option<Box<dyn Lane>> {
        Some(Box::new(BlackholeLane {
            blackhole: *self,
            datagrams: site.datagrams,
            fault_ends: site.ends,
            phase: Phase::Before,
            next: None,
            backlog: Backlog::new(false),
            has_noted: false,
        }))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Before,
    Open,
    Over,
}

struct BlackholeLane {
    blackhole: Blackhole,
    datagrams: bool,
    /// The fault ends by itself, at the end of its window.
    fault_ends: bool,
    phase: Phase,
    /// When the phase changes.
    next: Option<Instant>,
    backlog: Backlog,
    has_noted: bool,
}

impl BlackholeLane {
    fn advance(&mut self, flow: &mut LaneFlow<'_, '_>) {
        while let Some(at) = self.next.filter(|&at| at <= flow.now()) {
            if self.phase == Phase::Before {
                self.phase = Phase::Open;
                self.next = self.blackhole.lasts.map(|lasts| later(at, lasts));
            } else {
                self.release(flow);
            }
        }
    }

    fn note(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        if self.datagrams {
            flow.note("dropped", flow.offset(), part.len());
        } else if !self.has_noted {
            self.has_noted = true;
            flow.note("held", flow.offset(), 0);
        }
    }
}

impl Lane for BlackholeLane {
    fn start(&mut self, flow: &mut LaneFlow<'_, '_>) {
        self.next = Some(later(flow.started(), self.blackhole.after));
        self.advance(flow);
    }

    fn push(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        self.advance(flow);
        if self.phase != Phase::Open {
            return flow.pass(part);
        }
        self.note(flow, part);
        if !self.datagrams {
            self.backlog.push(part);
        }
    }

    fn turn(&mut self, flow: &mut LaneFlow<'_, '_>) {
        self.advance(flow);
    }

    fn next_call(&self) -> Option<Instant> {
        self.next
    }

    fn held(&self) -> usize {
        self.backlog.bytes()
    }

    fn is_owed(&self) -> bool {
        !self.backlog.is_empty() && !self.is_stuck()
    }

    fn is_stuck(&self) -> bool {
        self.phase == Phase::Open && self.next.is_none() && !self.fault_ends && !self.datagrams
    }

    fn release(&mut self, flow: &mut LaneFlow<'_, '_>) {
        self.phase = Phase::Over;
        self.next = None;
        self.backlog.pass_all(flow);
    }
}
