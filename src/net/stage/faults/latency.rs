//! Latency: everything goes on after a time, in order. Must never change what is passed on, nor
//! let an end overtake the bytes before it.

use std::time::{Duration, Instant};

use super::draws::Draws;
use super::kind::{Kind, Lane, LaneFlow, LaneSite};
use super::later;
use super::params::Params;
use crate::net::error::{Error, Result};
use crate::net::stage::{Line, Part};

/// Bytes that one direction of a connection may hold on purpose.
const MOST_HELD: usize = 1024 * 1024;

#[derive(Clone, Copy, Debug)]
enum Distribution {
    Uniform,
    Normal,
    LogNormal,
}

#[derive(Clone, Copy, Debug)]
struct Latency {
    time: f64,
    jitter: f64,
    distribution: Distribution,
}

pub(super) fn make(params: &Params) -> Result<Box<dyn Kind>> {
    let distribution = match params.text("distribution")? {
        None | Some("uniform") => Distribution::Uniform,
        Some("normal") => Distribution::Normal,
        Some("lognormal") => Distribution::LogNormal,
        Some(other) => {
            return Err(Error::Value(format!(
                "distribution {other:?}: must be \"uniform\", \"normal\" or \"lognormal\""
            )));
        }
    };
    let time = Params::needed("seconds", params.number("seconds")?)?;
    let jitter = params.number("jitter")?.unwrap_or(0.0);
    Ok(Box::new(Latency { time, jitter, distribution }))
}

impl Kind for Latency {
    fn fits_datagrams(&self) -> bool {
        true
    }

    fn lane(&self, site: LaneSite) -> Option<Box<dyn Lane>> {
        Some(Box::new(LatencyLane {
            latency: *self,
            draws: site.draws,
            line: Line::default(),
            has_noted: false,
        }))
    }
}

impl Latency {
    /// A delay, by the offset of the first byte that has it: each message has one of its own,
    /// however small, and however many small ones are sent.
    fn delay(&self, draws: Draws, draw: u64) -> Duration {
        let (time, jitter) = (self.time, self.jitter);
        let seconds = match self.distribution {
            _ if jitter == 0.0 => time,
            Distribution::Uniform => time + jitter * draws.symmetric(draw),
            Distribution::Normal => time + jitter * draws.normal(draw),
            Distribution::LogNormal if time == 0.0 => 0.0,
            Distribution::LogNormal => {
                // With `time` as its mean, and `jitter` as its standard deviation.
                let variance = (jitter / time).powi(2).ln_1p();
                (time.ln() - variance / 2.0 + variance.sqrt() * draws.normal(draw)).exp()
            }
        };
        Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
    }
}

struct LatencyLane {
    latency: Latency,
    draws: Draws,
    line: Line,
    has_noted: bool,
}

impl LatencyLane {
    fn due(&self, now: Instant, draw: u64) -> Instant {
        later(now, self.latency.delay(self.draws, draw))
    }
}

impl Lane for LatencyLane {
    fn push(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        let offset = flow.offset();
        if !self.has_noted {
            self.has_noted = true;
            flow.note("delayed", offset, 0);
        }
        self.line.push(self.due(flow.now(), offset), part);
    }

    fn turn(&mut self, flow: &mut LaneFlow<'_, '_>) {
        self.line.pass_due(flow.now(), &mut |part| flow.pass(part));
    }

    fn next_call(&self) -> Option<Instant> {
        self.line.next()
    }

    fn held(&self) -> usize {
        self.line.len()
    }

    fn capacity(&self) -> usize {
        self.line.len().min(MOST_HELD)
    }

    fn parts(&self) -> usize {
        self.line.parts()
    }

    fn is_owed(&self) -> bool {
        !self.line.is_empty()
    }

    fn release(&mut self, flow: &mut LaneFlow<'_, '_>) {
        self.line.pass_all(&mut |part| flow.pass(part));
    }
}
