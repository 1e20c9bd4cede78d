//! Servers as callers hold them. Owns their steps and states, and the start of their threads; must
//! never serve a byte itself.

mod faults;
mod inner;
mod lifecycle;
mod reset;
mod server;
mod start;
mod steps;
pub(crate) mod stop_all;

pub use self::lifecycle::State;
pub use self::server::Server;
pub use self::stop_all::stop_all;
