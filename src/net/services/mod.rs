//! The services that never need the interpreter: one file each, one line here each. Must never do
//! anything but name them.

mod echo;
mod forward;

pub use echo::Echo;
pub use forward::{Forward, To};
