//! TODO

pub(crate) mod drain;
pub(crate) mod handed_out;
pub mod job;
pub(crate) mod lease;
pub(crate) mod linger;
pub(crate) mod on_demand;
pub(crate) mod parked_thread;
pub mod pool;
