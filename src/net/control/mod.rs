//! TODO

pub(crate) mod admission;
pub mod config;
pub(crate) mod context;
pub(crate) mod forward_loops;
pub mod limits;
pub mod registry;
pub mod shutdown;
