//! TODO

pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod lingering_socket;
pub(crate) mod splice;
