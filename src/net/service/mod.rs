//! TODO

pub mod datagrams;
pub mod forwarder_id;
pub mod null;
pub mod service;
pub mod session;
pub mod shape;
pub mod site;
pub mod waker;
