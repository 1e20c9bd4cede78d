//! TODO

pub(crate) mod lease;
pub(crate) mod linger;
pub(crate) mod pool;
