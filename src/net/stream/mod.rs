//! TODO

pub mod connect;
pub mod datagram;
pub mod owner;
pub mod spin;
pub mod stream;
pub mod transfer;
