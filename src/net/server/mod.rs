//! TODO

mod inner;
pub mod lifecycle;
pub mod server;
mod start;
mod steps;
pub mod stop_all;
