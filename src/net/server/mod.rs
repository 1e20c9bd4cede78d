//! TODO

pub mod lifecycle;
pub mod server;
pub mod stop_all;
