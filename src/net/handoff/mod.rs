//! TODO

pub(crate) mod job;
pub(crate) mod lease;
pub(crate) mod linger;
pub(crate) mod parked_thread;
pub(crate) mod pool;
pub(crate) mod wake_batches;
