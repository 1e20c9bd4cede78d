//! TODO

pub mod endpoint;
pub mod resolve;
pub mod target;
pub mod unix_name;
