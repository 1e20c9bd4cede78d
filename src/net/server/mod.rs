//! What callers hold: a server, its steps and states. Must never serve a byte itself.

mod inner;
mod lifecycle;
mod server;
mod start;
mod steps;
pub(crate) mod stop_all;

pub use self::lifecycle::State;
pub use self::server::Server;
pub use self::stop_all::stop_all;
