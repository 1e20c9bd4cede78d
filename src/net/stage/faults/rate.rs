//! The share of datagrams that a fault strikes. Must never keep a state: whether one is struck
//! depends on its number alone.

use super::draws::Draws;
use super::params::Params;
use crate::net::error::Result;

/// A probability for each datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate(f64);

impl Rate {
    /// The parameter `rate`, which must be given.
    pub(super) fn of(params: &Params) -> Result<Self> {
        Params::needed("rate", params.rate("rate")?).map(Self)
    }

    /// Whether the datagram with this number is struck.
    pub(super) fn strikes(self, draws: Draws, number: u64) -> bool {
        draws.chance(number, self.0)
    }
}
