//! The control of one server: its limits, admission, shutdown, and the registry of servers. Must
//! never move a byte, nor know which threads exist.

mod access;
mod admission;
mod config;
mod context;
pub(crate) mod forward_loops;
mod limits;
mod listening;
pub(crate) mod registry;
mod resets;
mod shutdown;
mod token_bucket;

pub use self::access::Access;
pub use self::config::Config;
pub(crate) use self::context::{Alive, OpenRecordings, ServerContext, random_seed};
pub(crate) use self::forward_loops::{Opened, Opening};
pub use self::limits::{Limits, Overflow};
pub(crate) use self::registry::Registered;
pub use self::registry::ServerHandle;
pub(crate) use self::resets::SeenResets;
pub(crate) use self::shutdown::{Begun, FIRST_BYTE_GRACE, ShutdownListener};
pub use self::shutdown::{Cause, StopReport};
pub(crate) use self::token_bucket::TokenBucket;
