//! The engine: servers, connections and clients in plain Rust. Owns every socket and thread; must
//! never name Python, nor print.
//!
//! From the outside in: `server` and `stream` are what callers hold; `listener`, `accept`, `worker`
//! and `connection` move a byte through a server; `service` is what a service sees of all that, and
//! `services` holds those in Rust; `handoff` gives connections to threads of the caller's instead;
//! `shared` is what a server's threads have in common; `ledger` and `record` keep the books, `gauge`
//! and `trace` show more of a connection; `unix` and `socket_file` are what only Unix sockets have;
//! `lock` is what is locked by; `stop` ends it all.

#![deny(unsafe_code)]

mod accept;
mod connection;
pub mod datagram;
pub mod endpoint;
pub mod error;
mod fork;
pub mod gauge;
mod handoff;
pub mod ledger;
pub mod limits;
mod linger;
mod listener;
pub mod lock;
mod loops;
pub mod options;
mod pipe;
pub mod process;
pub mod record;
mod registry;
mod resolve;
pub mod server;
pub mod service;
pub mod services;
mod shared;
mod socket;
mod socket_file;
mod steps;
pub mod stop;
pub mod stream;
// The one file with `unsafe` in it.
#[allow(unsafe_code)]
pub mod sys;
mod timers;
pub mod trace;
pub mod unix;
pub mod wake;
mod worker;

pub use fork::Origin;
