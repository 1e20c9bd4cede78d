//! The engine: servers, connections and clients in plain Rust. Owns every socket and thread; must
//! never name Python, nor print.
//!
//! The layers. A file uses its own folder and what is below; folders of one line do not know each
//! other. `tests/test_layers.py` holds the `use` lines to this picture.
//!
//! ```text
//! server                             what callers hold; starts the threads, waits for them
//! datagram                           UDP sockets, their threads, the records of peers
//! handoff                            connections in the hands of the caller's threads
//! worker                             the accept loop, and threads with a poller
//! connection   stream   services     a worker's connection; a blocking stream; Echo and the others
//! control                            limits, admission, shutdown, registry of servers
//! stage                              what sits between a socket and its session: faults, TLS
//! service                            what a service is written against
//! ledger                             records, totals, traces
//! socket   >   address   >   base    one socket; where it leads; locks, flags, timers, forks
//! error    >   sys                   what callers are told; all unsafe code
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
