//! TODO

pub mod ledger;
pub mod record;
pub mod trace;
