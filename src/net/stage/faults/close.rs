//! CloseAfter: the connection is closed after a number of bytes, or after a time. Must never close
//! before the bytes in front have been passed on.

use super::after::{After, EndingLane};
use super::kind::{Kind, Lane, LaneSite};
use super::params::Params;
use crate::net::error::Result;

#[derive(Clone, Copy, Debug)]
struct CloseAfter(After);

pub(super) fn make(params: &Params) -> Result<Box<dyn Kind>> {
    Ok(Box::new(CloseAfter(After::of(params)?)))
}

impl Kind for CloseAfter {
    fn lane(&self, _site: LaneSite) -> Option<Box<dyn Lane>> {
        Some(Box::new(EndingLane::new(self.0, false)))
    }
}
