//! Reorder: datagrams are overtaken by later ones. Must never lose one, nor hold one longer than
//! its limit.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::kind::{Kind, Lane, LaneFlow, LaneSite};
use super::params::Params;
use super::{Draws, Rate};
use crate::net::error::{Error, Result};
use crate::net::stage::Part;

/// How many later datagrams overtake one by default.
const WINDOW: u64 = 3;
/// The longest time that a datagram waits for later ones.
const LONGEST: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
struct Reorder {
    rate: Rate,
    window: u64,
}

pub(super) fn make(params: &Params) -> Result<Box<dyn Kind>> {
    let rate = Rate::of(params)?;
    match params.whole("window")?.unwrap_or(WINDOW) {
        0 => Err(Error::Value("window: must be a number from 1".to_owned())),
        window => Ok(Box::new(Reorder { rate, window })),
    }
}

impl Kind for Reorder {
    fn fits_streams(&self) -> bool {
        false
    }

    fn fits_datagrams(&self) -> bool {
        true
    }

    fn lane(&self, site: LaneSite) -> Option<Box<dyn Lane>> {
        let (held, bytes) = (VecDeque::new(), 0);
        let lane = || Box::new(ReorderLane { reorder: *self, draws: site.draws, held, bytes });
        site.datagrams.then(|| lane() as Box<_>)
    }
}

/// A datagram that waits for later ones.
struct Held {
    number: u64,
    until: Instant,
    overtaken: bool,
    bytes: Vec<u8>,
}

struct ReorderLane {
    reorder: Reorder,
    draws: Draws,
    /// The oldest first. That is also the order in which they go on.
    held: VecDeque<Held>,
    bytes: usize,
}

impl ReorderLane {
    fn pass_first(&mut self, flow: &mut LaneFlow<'_, '_>) {
        if let Some(held) = self.held.pop_front() {
            self.bytes -= held.bytes.len();
            flow.pass(Part::Bytes(&held.bytes));
        }
    }

    /// Passes on the first ones, as long as `is_due` says so.
    fn pass_while(&mut self, flow: &mut LaneFlow<'_, '_>, is_due: impl Fn(&Held) -> bool) {
        while self.held.front().is_some_and(&is_due) {
            self.pass_first(flow);
        }
    }
}

impl Lane for ReorderLane {
    fn push(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        let (now, number) = (flow.now(), flow.offset());
        self.pass_while(flow, |held| held.until <= now);
        match part {
            Part::Bytes(bytes) if self.reorder.rate.strikes(self.draws, number) => {
                self.bytes += bytes.len();
                let (bytes, until) = (bytes.to_vec(), now + LONGEST);
                self.held.push_back(Held { number, until, overtaken: false, bytes });
            }
            _ => {
                for held in self.held.iter_mut().filter(|held| !held.overtaken) {
                    held.overtaken = true;
                    flow.note("reordered", held.number, held.bytes.len());
                }
                flow.pass(part);
            }
        }
        let window = self.reorder.window;
        self.pass_while(flow, |held| number.saturating_sub(held.number) >= window);
    }

    fn turn(&mut self, flow: &mut LaneFlow<'_, '_>) {
        let now = flow.now();
        self.pass_while(flow, |held| held.until <= now);
    }

    fn next_call(&self) -> Option<Instant> {
        self.held.front().map(|held| held.until)
    }

    fn held(&self) -> usize {
        self.bytes
    }

    fn parts(&self) -> usize {
        self.held.len()
    }

    fn is_owed(&self) -> bool {
        !self.held.is_empty()
    }

    fn release(&mut self, flow: &mut LaneFlow<'_, '_>) {
        self.pass_while(flow, |_| true);
    }
}
