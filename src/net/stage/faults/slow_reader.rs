//! SlowReader: the peer is read slowly, so that its own sends have to wait. Must never hold more
//! than one small piece.

use super::bandwidth::rate;
use super::kind::{Kind, Lane, LaneSite};
use super::paced::PacedLane;
use super::pacer::Pacer;
use super::params::Params;
use crate::net::error::Result;

#[derive(Debug)]
struct SlowReader(f64);

pub(super) fn make(params: &Params) -> Result<Box<dyn Kind>> {
    Ok(Box::new(SlowReader(rate(params)?)))
}

impl Kind for SlowReader {
    fn lane(&self, site: LaneSite) -> Option<Box<dyn Lane>> {
        Some(Box::new(PacedLane::new(Pacer::new(self.0), site, true)))
    }
}
