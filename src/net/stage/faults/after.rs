//! When a fault ends a connection: after a number of bytes, or after a time. Must never pass on more
//! bytes than that number.

use std::time::{Duration, Instant};

use super::kind::{Lane, LaneFlow};
use super::later;
use super::params::Params;
use crate::net::error::{Error, Result};
use crate::net::stage::event::Part;

/// When something happens on a way of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    Bytes(u64),
    Time(Duration),
}

impl After {
    /// Of the parameters `after_bytes` and `after_seconds`, one must be given.
    pub(super) fn of(params: &Params) -> Result<Self> {
        match (params.whole("after_bytes")?, params.time("after_seconds")?) {
            (Some(bytes), None) => Ok(Self::Bytes(bytes)),
            (None, Some(time)) => Ok(Self::Time(time)),
            _ => Err(Error::Value("give one of after_bytes and after_seconds".to_owned())),
        }
    }
}

/// A lane that ends its connection.
pub(super) struct EndingLane {
    after: After,
    reset: bool,
    at: Option<Instant>,
}

impl EndingLane {
    /// `reset` is whether it ends with a reset, where otherwise with a FIN.
    pub(super) fn new(after: After, reset: bool) -> Self {
        Self { after, reset, at: None }
    }

    fn strike(&mut self, flow: &mut LaneFlow<'_, '_>, offset: u64) {
        self.at = None;
        flow.note(if self.reset { "reset" } else { "closed" }, offset, 0);
        // What went before a byte has to arrive. What happens at a time waits for nothing.
        flow.end(self.reset, matches!(self.after, After::Bytes(_)));
    }
}

impl Lane for EndingLane {
    fn start(&mut self, flow: &mut LaneFlow<'_, '_>) {
        match self.after {
            After::Bytes(0) => self.strike(flow, 0),
            After::Bytes(_) => {}
            After::Time(time) => self.at = Some(later(flow.started(), time)),
        }
    }

    fn push(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        let (Part::Bytes(bytes), After::Bytes(most)) = (part, self.after) else {
            return flow.pass(part);
        };
        let left = most.saturating_sub(flow.offset());
        if left > bytes.len() as u64 {
            return flow.pass(part);
        }
        if left > 0 {
            flow.pass(Part::Bytes(&bytes[..left as usize]));
        }
        self.strike(flow, most);
    }

    fn turn(&mut self, flow: &mut LaneFlow<'_, '_>) {
        if self.at.is_some_and(|at| at <= flow.now()) {
            self.strike(flow, flow.offset());
        }
    }

    fn next_call(&self) -> Option<Instant> {
        self.at
    }

    fn release(&mut self, _flow: &mut LaneFlow<'_, '_>) {
        self.at = None;
    }
}
