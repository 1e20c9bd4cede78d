//! Stages: what sits between a connection's socket and its session, such as TLS, the PROXY protocol, a
//! recorder or a fault. Owns the contract of a stage and the chain that stages form. Must never name a
//! socket, a poller or a thread, so that a stage is tested with bytes and a clock of the test's own.
//!
//! ```text
//! socket ─▶ inbound ─▶ first stage ─▶ … ─▶ last stage ─▶ session
//! socket ◀─ outbound ◀─ first stage ◀─ … ◀─ last stage ◀─ session
//! ```

mod chain;
mod queue;
mod stage;
#[doc(hidden)]
mod testing;

pub use self::chain::{Chain, StageEnd};
pub use self::stage::{
    Direction, Flow, Inbound, Outbound, Stage, StageError, StageFactory, StageResult,
};
pub use self::testing::{Bytewise, Delayed, each};
