//! One connection as its worker serves it: its legs, the bytes that wait on them, its timers. Must never
//! block, nor know what a service does with the bytes.

pub(crate) mod connect;
pub(crate) mod connection;
pub(crate) mod lingering_socket;
pub(crate) mod splice;

pub(crate) use self::connection::{Connection, Gone, Served, Turn, WorkerResources};
pub(crate) use self::lingering_socket::LingeringSocket;
