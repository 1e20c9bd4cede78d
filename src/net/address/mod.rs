//! TODO

pub mod endpoint;
pub mod resolve;
pub mod unix_name;
