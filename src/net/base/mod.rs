//! TODO

pub mod event_fd;
pub mod fork;
pub mod lock;
pub mod panic;
pub mod process;
pub mod timers;
pub mod waiter;
