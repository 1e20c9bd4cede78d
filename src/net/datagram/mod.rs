//! TODO

pub mod admission;
pub mod amplification;
pub mod handoff;
pub mod peer_table;
pub mod relay;
pub mod socket;
pub mod start;

pub mod errors;
pub mod send;
pub mod worker;
