//! TODO

pub mod connect;
pub mod datagram;
pub mod spin;
pub mod stream;
pub mod transfer;
