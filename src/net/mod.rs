//! The engine: servers, connections, clients in plain Rust. Owns every socket, and every thread but
//! those that run Python code; must never name Python, nor print. `server/server.rs` lists the
//! threads.
//!
//! The layers. A file uses its own folder and the lines below; `·` separates folders that do not
//! use each other. `tests/test_layers.py` holds the `use` lines to this picture.
//!
//! ```text
//! server                             what callers hold; starts the threads, waits for them
//! load                               connections that send messages and measure the answers
//! datagram                           UDP sockets, their threads, the records of peers
//! handoff                            connections in the hands of the caller's threads; faults of clients
//! worker                             the accept loop, and threads with a poller
//! connection · stream · services     a worker's connection; a blocking stream; Echo, Forward, a new one
//! control                            limits, admission, shutdown, registry of servers
//! stage                              faults, TLS, the PROXY protocol: between a socket and its session
//! service                            the traits of a service, and of its session on one connection
//! recording                          what crossed connections, in a file; the form of that file
//! ledger                             records, totals, traces
//! socket                             one socket, its options and files
//! address                            hosts, ports, names
//! base                               locks, event flags, waiting, timers, forks
//! error                              what callers are told
//! sys                                system calls: all unsafe code
//! ```

#![deny(unsafe_code)]

pub mod address;
pub mod base;
mod connection;
pub mod control;
pub mod datagram;
pub mod error;
pub mod handoff;
pub mod ledger;
pub mod load;
pub mod recording;
pub mod server;
pub mod service;
pub mod services;
pub mod socket;
pub mod stage;
pub mod stream;
// The one folder with `unsafe` in it.
#[allow(unsafe_code)]
pub mod sys;
mod worker;
