//! Garbage: something else goes in place of what is sent. Must never let a byte of that through.

use super::draws::Draws;
use super::kind::{Kind, Lane, LaneFlow, LaneSite};
use super::params::Params;
use crate::net::error::{Error, Result};
use crate::net::stage::event::Part;

/// Random bytes are made at once.
const MOST: u64 = 1 << 24;

#[derive(Clone, Debug)]
enum Garbage {
    Bytes(Vec<u8>),
    Random(u64),
}

pub(super) fn make(params: &Params) -> Result<Box<dyn Kind>> {
    let garbage = match (params.bytes("data")?, params.whole("size")?) {
        (Some(data), None) => Garbage::Bytes(data.to_vec()),
        (None, Some(size)) if size <= MOST => Garbage::Random(size),
        (None, Some(_)) => return Err(Error::Value(format!("size: must be at most {MOST}"))),
        _ => return Err(Error::Value("give one of data and size".to_owned())),
    };
    Ok(Box::new(garbage))
}

impl Garbage {
    fn bytes(&self, draws: Draws) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Random(size) => (0..*size).map(|offset| draws.bits(offset) as u8).collect(),
        }
    }
}

impl Kind for Garbage {
    fn lane(&self, site: LaneSite) -> Option<Box<dyn Lane>> {
        Some(Box::new(GarbageLane { garbage: Some(self.clone()), draws: site.draws }))
    }
}

struct GarbageLane {
    /// None once it has gone.
    garbage: Option<Garbage>,
    draws: Draws,
}

impl Lane for GarbageLane {
    fn push(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        if matches!(part, Part::Bytes(_) | Part::End) {
            if let Some(garbage) = self.garbage.take() {
                let bytes = garbage.bytes(self.draws);
                flow.note("garbled", flow.offset(), bytes.len());
                if !bytes.is_empty() {
                    flow.pass(Part::Bytes(&bytes));
                }
            }
        }
        if !matches!(part, Part::Bytes(_)) {
            flow.pass(part);
        }
    }
}
