//! What the services that play a dialogue share: how each dialogue went, and the parts of a report.
//! Must never know the steps of a dialogue.

mod find;
mod report;
mod results;

pub(super) use self::find::find;
pub(super) use self::report::{
    Tail, push_bytes, push_compared, push_difference, push_part, so_far,
};
pub(super) use self::results::{Entry, OfServers, Ongoing, ahead_of_last};
pub use self::results::{Results, ScriptResult};
