//! Drop: datagrams are lost. Must never hold one.

use super::kind::{Kind, Lane, LaneFlow, LaneSite};
use super::params::Params;
use super::{Draws, Rate};
use crate::net::error::Result;
use crate::net::stage::Part;

#[derive(Clone, Copy, Debug)]
struct Drop(Rate);

pub(super) fn make(params: &Params) -> Result<Box<dyn Kind>> {
    Ok(Box::new(Drop(Rate::of(params)?)))
}

impl Kind for Drop {
    fn fits_streams(&self) -> bool {
        false
    }

    fn fits_datagrams(&self) -> bool {
        true
    }

    fn lane(&self, site: LaneSite) -> Option<Box<dyn Lane>> {
        site.datagrams.then(|| Box::new(DropLane { rate: self.0, draws: site.draws }) as Box<_>)
    }
}

struct DropLane {
    rate: Rate,
    draws: Draws,
}

impl Lane for DropLane {
    fn push(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        let number = flow.offset();
        if self.rate.strikes(self.draws, number) {
            flow.note("dropped", number, part.len());
        } else {
            flow.pass(part);
        }
    }
}
