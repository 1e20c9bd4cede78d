//! A load for tests: connections that send messages and measure the answers. Owns its threads; must
//! never know a server of this process.

mod drive;
mod driven;
mod replay_client;

pub use self::drive::{Load, drive};
pub use self::driven::{Driven, Latency};
pub use self::replay_client::replay;
