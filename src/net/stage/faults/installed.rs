//! A fault in the set of a server, with the choice of the connections that have it. Must never know
//! the stage that acts for it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::draws::Draws;
use super::fault::{Connections, Fault};
use crate::net::ledger::Role;

/// A fault in a set.
#[derive(Debug)]
pub struct Installed {
    /// Its number: how many faults the set had before it.
    pub id: u64,
    /// The fault.
    pub fault: Fault,
    /// How many connections had been accepted when it was added.
    pub(super) accepted: AtomicU64,
}

impl Installed {
    /// Whether it concerns a connection, by its number and by chance.
    pub(super) fn concerns(&self, connection: u64, seed: u64) -> bool {
        let scope = &self.fault.scope;
        let chosen = match &scope.connections {
            Connections::All => true,
            Connections::First(count) => connection
                .checked_sub(self.accepted.load(Relaxed))
                .is_some_and(|number| (1..=*count).contains(&number)),
            Connections::Numbered(numbers) => numbers.contains(&connection),
        };
        // A fault of accepting has nothing to do with a connection that is accepted.
        chosen
            && self.fault.kind.accepting().is_none()
            && Draws::new(seed, connection, None, self.id).chance(0, scope.probability)
    }
}

/// A connection, for the choice of its faults.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Its number in its server; of a datagram peer, that of its record.
    pub connection: u64,
    /// The side that is ours.
    pub role: Role,
    /// Its start.
    pub opened: Instant,
    /// Whether it is made of datagrams.
    pub datagrams: bool,
    /// High water, as `Limits.write_buffer`.
    pub high_water: usize,
}
