//! The engine: servers, connections and clients in plain Rust. Owns every socket and thread; must
//! never name Python, nor print.

#![deny(unsafe_code)]

pub mod address;
pub mod base;
mod connection;
pub mod control;
pub mod datagram;
pub mod error;
mod handoff;
pub mod ledger;
pub mod server;
pub mod service;
pub mod services;
pub mod socket;
pub mod stage;
pub mod stream;
#[allow(unsafe_code)]
pub mod sys;
mod worker;
