//! Stages: what can be put between a connection's socket and its session. The place for faults
//! (`faults`), TLS, the PROXY protocol and recorders. Owns the contract of a stage, with the chain
//! that stages form. Must never name a socket, a poller or a thread, so that a
//! stage is tested with bytes and a clock of the test's own.
//!
//! ```text
//! socket ─▶ inbound ─▶ first stage ─▶ … ─▶ last stage ─▶ session
//! socket ◀─ outbound ◀─ first stage ◀─ … ◀─ last stage ◀─ session
//! ```

mod chain;
mod event;
mod factory;
pub mod faults;
mod flow;
mod gate;
mod line;
pub(crate) mod proxy_codec;
mod proxy_protocol;
mod queue;
mod recorder;
mod stage;
#[doc(hidden)]
mod testing;
pub mod tls;

pub use self::chain::Chain;
pub use self::event::{Direction, Inbound, Outbound, Part};
pub use self::factory::StageFactory;
pub use self::flow::{Flow, StageEnd};
pub(crate) use self::gate::Gate;
pub use self::line::Line;
pub use self::proxy_protocol::ProxyProtocol;
pub use self::recorder::RecorderStage;
pub use self::stage::{Stage, StageError, StageResult};
pub use self::testing::{Bytewise, Delayed, each};
