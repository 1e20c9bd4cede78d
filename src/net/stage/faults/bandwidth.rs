//! Bandwidth: no more than a number of bytes go on in a second. Must never burst beyond that rate.

use super::kind::{Kind, Lane, LaneSite};
use super::paced::PacedLane;
use super::pacer::Pacer;
use super::params::Params;
use crate::net::error::{Error, Result};
use crate::net::ledger::Way;

/// The rate, with the lines of each way where all connections share them.
#[derive(Debug)]
struct Bandwidth {
    bytes_per_second: f64,
    shared: Option<[Pacer; 2]>,
}

/// The parameter `bytes_per_second`, of which there must be some.
pub(super) fn rate(params: &Params) -> Result<f64> {
    let rate = Params::needed("bytes_per_second", params.number("bytes_per_second")?)?;
    if rate > 0.0 {
        Ok(rate)
    } else {
        Err(Error::Value("bytes_per_second: must be more than 0".to_owned()))
    }
}

pub(super) fn make(params: &Params) -> Result<Box<dyn Kind>> {
    let bytes_per_second = rate(params)?;
    let lines = || [Pacer::new(bytes_per_second), Pacer::new(bytes_per_second)];
    let shared = params.flag("shared")?.then(lines);
    Ok(Box::new(Bandwidth { bytes_per_second, shared }))
}

impl Kind for Bandwidth {
    fn fits_datagrams(&self) -> bool {
        true
    }

    fn lane(&self, site: LaneSite) -> Option<Box<dyn Lane>> {
        let pacer = match (&self.shared, site.way) {
            (Some([up, _]), Way::Up) => up.clone(),
            (Some([_, down]), Way::Down) => down.clone(),
            (None, _) => Pacer::new(self.bytes_per_second),
        };
        Some(Box::new(PacedLane::new(pacer, site, false)))
    }
}
