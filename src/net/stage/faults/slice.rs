//! Slice: the stream is cut into pieces, each of which is sent by itself. Must never cut elsewhere
//! because the stream came in other chunks.

use std::time::{Duration, Instant};

use super::backlog::Backlog;
use super::draws::Draws;
use super::kind::{Kind, Lane, LaneFlow, LaneSite};
use super::later;
use super::params::Params;
use crate::net::error::{Error, Result};
use crate::net::stage::event::Part;

#[derive(Clone, Copy, Debug)]
struct Slice {
    size: u64,
    variation: u64,
    delay: Duration,
}

pub(super) fn make(params: &Params) -> Result<Box<dyn Kind>> {
    let size = Params::needed("size", params.whole("size")?)?;
    if size == 0 {
        return Err(Error::Value("size: must be at least 1".to_owned()));
    }
    let variation = params.whole("variation")?.unwrap_or(0);
    let delay = params.time("delay")?.unwrap_or_default();
    Ok(Box::new(Slice { size, variation, delay }))
}

impl Kind for Slice {
    fn lane(&self, site: LaneSite) -> Option<Box<dyn Lane>> {
        if site.datagrams {
            return None;
        }
        let mut lane = SliceLane {
            slice: *self,
            draws: site.draws,
            backlog: Backlog::new(false),
            number: 0,
            left: 0,
            next: None,
            has_noted: false,
        };
        lane.left = lane.size();
        Some(Box::new(lane))
    }
}

struct SliceLane {
    slice: Slice,
    draws: Draws,
    backlog: Backlog,
    /// The number of the current piece.
    number: u64,
    /// Its bytes that have not gone on yet.
    left: u64,
    /// When it may begin.
    next: Option<Instant>,
    has_noted: bool,
}

impl SliceLane {
    /// The size of the current piece.
    fn size(&self) -> u64 {
        let Slice { size, variation, .. } = self.slice;
        let differs = (variation as f64 * self.draws.symmetric(self.number)).round() as i64;
        size.saturating_add_signed(differs).max(1)
    }

    fn pass_due(&mut self, flow: &mut LaneFlow<'_, '_>) {
        let now = flow.now();
        while let Some(front) = self.backlog.front() {
            if matches!(front, Part::Bytes(_)) && self.next.is_some_and(|next| next > now) {
                return;
            }
            self.next = None;
            let most = usize::try_from(self.left).unwrap_or(usize::MAX);
            self.left -= self.backlog.pass(flow, most) as u64;
            if self.left == 0 {
                self.number += 1;
                self.left = self.size();
                self.next = Some(later(now, self.slice.delay));
            }
        }
    }
}

impl Lane for SliceLane {
    fn push(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        if !self.has_noted && matches!(part, Part::Bytes(_)) {
            self.has_noted = true;
            flow.note("sliced", flow.offset(), 0);
        }
        self.backlog.push(part);
        self.pass_due(flow);
    }

    fn turn(&mut self, flow: &mut LaneFlow<'_, '_>) {
        self.pass_due(flow);
    }

    fn next_call(&self) -> Option<Instant> {
        self.next.filter(|_| !self.backlog.is_empty())
    }

    fn held(&self) -> usize {
        self.backlog.bytes()
    }

    fn is_owed(&self) -> bool {
        !self.backlog.is_empty()
    }

    fn release(&mut self, flow: &mut LaneFlow<'_, '_>) {
        self.backlog.pass_all(flow);
    }
}
