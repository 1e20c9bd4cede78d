//! TODO

pub mod closed_by;
pub mod counters;
pub mod follower;
pub mod ledger;
pub mod record;
pub mod totals;
pub mod trace;
