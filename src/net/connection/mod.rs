//! One connection as its worker sees it: its legs, its buffers, its ends and its deadlines. Owns the way of
//! a byte between a socket and a session. Must never block, take a lock, or know a thread.

mod connect;
pub(crate) mod connection;
mod deadlines;
mod ends;
mod io;
mod leg;
pub(crate) mod lingering_socket;
mod outbox;
mod receive;
pub(crate) mod resources;
mod send;
pub(crate) mod serve;
mod splice;
mod stages;
