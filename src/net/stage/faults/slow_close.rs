//! SlowClose: an end goes on later than it came. Must never delay a byte.

use std::time::{Duration, Instant};

use super::kind::{Kind, Lane, LaneFlow, LaneSite};
use super::later;
use super::params::Params;
use crate::net::error::Result;
use crate::net::stage::event::Part;

#[derive(Clone, Copy, Debug)]
struct SlowClose(Duration);

pub(super) fn make(params: &Params) -> Result<Box<dyn Kind>> {
    Ok(Box::new(SlowClose(Params::needed("seconds", params.time("seconds")?)?)))
}

impl Kind for SlowClose {
    fn lane(&self, _site: LaneSite) -> Option<Box<dyn Lane>> {
        Some(Box::new(SlowCloseLane { time: self.0, at: None }))
    }
}

struct SlowCloseLane {
    time: Duration,
    /// When the end that it holds goes on.
    at: Option<Instant>,
}

impl Lane for SlowCloseLane {
    fn push(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        match part {
            Part::Bytes(_) => flow.pass(part),
            Part::End => {
                flow.note("delayed", flow.offset(), 0);
                self.at = Some(later(flow.now(), self.time));
            }
            Part::Failure(_) => {
                // There is no end any more.
                self.at = None;
                flow.pass(part);
            }
        }
    }

    fn turn(&mut self, flow: &mut LaneFlow<'_, '_>) {
        if self.at.is_some_and(|at| at <= flow.now()) {
            self.release(flow);
        }
    }

    fn next_call(&self) -> Option<Instant> {
        self.at
    }

    fn is_owed(&self) -> bool {
        self.at.is_some()
    }

    fn release(&mut self, flow: &mut LaneFlow<'_, '_>) {
        if self.at.take().is_some() {
            flow.pass(Part::End);
        }
    }
}
