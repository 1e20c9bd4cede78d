//! One connection as its worker sees it: its legs, its buffers, its ends and its deadlines. Owns
//! the way of a byte between a socket and a session. Must never block, take a lock, or know a
//! thread.

mod connect;
mod connection;
mod deadlines;
mod due;
mod ends;
mod io;
mod leg;
mod leg_stages;
mod lingering_socket;
mod outbox;
mod receive;
mod resources;
mod send;
mod serve;
mod splice;
mod stages;
mod start_tls;
mod upstream;
mod watch;

pub(crate) use self::connection::{Connection, Gone};
pub(crate) use self::lingering_socket::LingeringSocket;
pub(crate) use self::resources::WorkerResources;
pub(crate) use self::serve::{Served, Turn};
