//! TODO

mod accepted;
mod connect;
mod datagram;
pub mod deadline;
pub mod message;
pub mod owner;
mod spin;
pub mod stream;
mod transfer;
mod wait;
