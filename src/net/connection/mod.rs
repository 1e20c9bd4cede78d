//! TODO

pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod splice;
