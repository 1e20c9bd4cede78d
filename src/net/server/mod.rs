//! TODO

pub mod lifecycle;
pub mod server;
