//! Corrupt: bytes are changed. Must never change how many there are, nor replace one by itself.

use std::borrow::Cow;

use super::draws::Draws;
use super::kind::{Kind, Lane, LaneFlow, LaneSite};
use super::params::Params;
use crate::net::error::Result;
use crate::net::stage::event::Part;

/// How likely a byte of a stream is changed, or one byte of a datagram.
#[derive(Clone, Copy, Debug)]
struct Corrupt(f64);

pub(super) fn make(params: &Params) -> Result<Box<dyn Kind>> {
    Ok(Box::new(Corrupt(Params::needed("rate", params.rate("rate")?)?)))
}

impl Kind for Corrupt {
    fn fits_datagrams(&self) -> bool {
        true
    }

    fn lane(&self, site: LaneSite) -> Option<Box<dyn Lane>> {
        let LaneSite { draws, datagrams, .. } = site;
        Some(Box::new(CorruptLane { rate: self.0, draws, datagrams }))
    }
}

struct CorruptLane {
    rate: f64,
    draws: Draws,
    datagrams: bool,
}

/// Another value of a byte, by random bits.
fn another(byte: u8, bits: u64) -> u8 {
    byte ^ (1 + bits % 255) as u8
}

impl CorruptLane {
    fn push_datagram(&self, flow: &mut LaneFlow<'_, '_>, bytes: &[u8]) {
        let number = flow.offset();
        if bytes.is_empty() || !self.draws.chance(number, self.rate) {
            return flow.pass(Part::Bytes(bytes));
        }
        // A draw that no other datagram has.
        let bits = self.draws.bits(!number);
        let (place, bits) = (bits % bytes.len() as u64, bits >> 32);
        let mut changed = bytes.to_vec();
        changed[place as usize] = another(bytes[place as usize], bits);
        flow.note("corrupted", number, bytes.len());
        flow.pass(Part::Bytes(&changed));
    }
}

impl Lane for CorruptLane {
    fn push(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        let Part::Bytes(bytes) = part else { return flow.pass(part) };
        if self.datagrams {
            return self.push_datagram(flow, bytes);
        }
        let mut changed = Cow::Borrowed(bytes);
        for (index, offset) in (0..bytes.len()).zip(flow.offset()..) {
            if self.draws.chance(offset, self.rate) {
                // The low bits, which the chance does not use.
                let bits = self.draws.bits(offset) & 0x7ff;
                changed.to_mut()[index] = another(bytes[index], bits);
                flow.note("corrupted", offset, 1);
            }
        }
        flow.pass(Part::Bytes(&changed));
    }
}
