//! Truncate: one direction ends cleanly in the middle. Must never touch the other direction.

use super::kind::{Kind, Lane, LaneFlow, LaneSite};
use super::params::Params;
use crate::net::error::Result;
use crate::net::stage::event::Part;

/// After how many bytes.
#[derive(Clone, Copy, Debug)]
struct Truncate(u64);

pub(super) fn make(params: &Params) -> Result<Box<dyn Kind>> {
    Ok(Box::new(Truncate(Params::needed("after_bytes", params.whole("after_bytes")?)?)))
}

impl Kind for Truncate {
    fn lane(&self, _site: LaneSite) -> Option<Box<dyn Lane>> {
        Some(Box::new(TruncateLane { left: self.0, has_ended: false }))
    }
}

struct TruncateLane {
    left: u64,
    has_ended: bool,
}

impl TruncateLane {
    fn end(&mut self, flow: &mut LaneFlow<'_, '_>, offset: u64) {
        self.has_ended = true;
        flow.note("truncated", offset, 0);
        flow.pass(Part::End);
    }
}

impl Lane for TruncateLane {
    fn start(&mut self, flow: &mut LaneFlow<'_, '_>) {
        if self.left == 0 {
            self.end(flow, 0);
        }
    }

    fn push(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        match part {
            // A reset is still one.
            Part::Failure(_) => flow.pass(part),
            _ if self.has_ended => {}
            Part::End => {
                self.has_ended = true;
                flow.pass(part);
            }
            Part::Bytes(bytes) => {
                let count = self.left.min(bytes.len() as u64);
                flow.pass(Part::Bytes(&bytes[..count as usize]));
                self.left -= count;
                if self.left == 0 {
                    self.end(flow, flow.offset() + count);
                }
            }
        }
    }
}
