//! The services that run without the interpreter, one file each. Must never do anything but name
//! them.

mod by_connection;
mod bytes_repr;
pub mod chargen;
pub mod daytime;
mod dialogue;
mod discard;
mod echo;
mod forward;
mod greeting;
mod line_echo;
mod quote;
pub mod replay;
mod script;
mod send_and_close;
pub mod time;

pub use by_connection::{ByConnection, Choice};
pub use chargen::Chargen;
pub use daytime::Daytime;
pub use dialogue::{Results, ScriptResult};
pub use discard::Discard;
pub use echo::Echo;
pub use forward::{Forward, To};
pub use greeting::Greeting;
pub use line_echo::LineEcho;
pub use quote::Quote;
pub use replay::Replay;
pub use script::{Program, Script};
pub use time::Time;
