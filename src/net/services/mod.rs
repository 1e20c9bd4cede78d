//! The services that never need the interpreter: one file each, one line here each. Must never do
//! anything but name them.

mod by_connection;
pub mod chargen;
pub mod daytime;
mod discard;
mod echo;
mod forward;
mod greeting;
mod last_word;
mod line_echo;
mod literal;
mod quote;
pub mod time;

pub use by_connection::ByConnection;
pub use chargen::Chargen;
pub use daytime::Daytime;
pub use discard::Discard;
pub use echo::Echo;
pub use forward::{Forward, To};
pub use greeting::Greeting;
pub use line_echo::LineEcho;
pub use quote::Quote;
pub use time::Time;
