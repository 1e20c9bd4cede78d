//! TODO

pub mod config;
pub mod context;
pub mod forward_loops;
pub mod limits;
pub mod registry;
pub mod shutdown;
