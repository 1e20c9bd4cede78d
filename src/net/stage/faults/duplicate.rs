//! Duplicate: datagrams arrive twice. Must never hold one.

use super::kind::{Kind, Lane, LaneFlow, LaneSite};
use super::params::Params;
use super::{Draws, Rate};
use crate::net::error::Result;
use crate::net::stage::Part;

#[derive(Clone, Copy, Debug)]
struct Duplicate(Rate);

pub(super) fn make(params: &Params) -> Result<Box<dyn Kind>> {
    Ok(Box::new(Duplicate(Rate::of(params)?)))
}

impl Kind for Duplicate {
    fn fits_streams(&self) -> bool {
        false
    }

    fn fits_datagrams(&self) -> bool {
        true
    }

    fn lane(&self, site: LaneSite) -> Option<Box<dyn Lane>> {
        let lane = || Box::new(DuplicateLane { rate: self.0, draws: site.draws });
        site.datagrams.then(|| lane() as Box<_>)
    }
}

struct DuplicateLane {
    rate: Rate,
    draws: Draws,
}

impl Lane for DuplicateLane {
    fn push(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        let number = flow.offset();
        flow.pass(part);
        if self.rate.strikes(self.draws, number) {
            flow.note("duplicated", number, part.len());
            flow.pass(part);
        }
    }
}
