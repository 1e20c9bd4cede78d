//! The faults of accepting: Refuse, Full, NeverAccept, AcceptDelay. Own what each does to
//! connections that are not accepted yet; must never act on one that is.

use std::time::Duration;

use super::kind::{Accepting, Kind};
use super::params::Params;
use crate::net::error::Result;

#[derive(Clone, Copy, Debug)]
struct OfListener(Accepting);

impl Kind for OfListener {
    fn accepting(&self) -> Option<Accepting> {
        Some(self.0)
    }
}

fn make(accepting: Accepting) -> Result<Box<dyn Kind>> {
    Ok(Box::new(OfListener(accepting)))
}

pub(super) fn refuse(_params: &Params) -> Result<Box<dyn Kind>> {
    make(Accepting::Refuse)
}

pub(super) fn full(_params: &Params) -> Result<Box<dyn Kind>> {
    make(Accepting::Full)
}

pub(super) fn never(_params: &Params) -> Result<Box<dyn Kind>> {
    make(Accepting::Never)
}

pub(super) fn delay(params: &Params) -> Result<Box<dyn Kind>> {
    let time: Duration = Params::needed("seconds", params.time("seconds")?)?;
    make(Accepting::Delay(time))
}
