//! Base types without network meaning: locks, event flags, waiting, timers, forks, text forms of
//! bytes and dates. Must never know a socket.

mod bytes_literal;
mod calendar;
mod event_fd;
pub(crate) mod fork;
pub(crate) mod lock;
mod panic;
pub mod process;
mod timer_fd;
mod timers;
mod waiter;

pub(crate) use self::bytes_literal::{push_quoted, quoted, unquoted};
pub(crate) use self::calendar::{Date, date_of, rfc3339, time_of_rfc3339};
pub use self::event_fd::EventFd;
pub use self::fork::Origin;
pub(crate) use self::fork::{HeldAcrossFork, Listed, watch};
pub(crate) use self::lock::{Condvar, Held};
pub use self::lock::{Mutex, MutexGuard};
pub(crate) use self::panic::panic_text;
pub(crate) use self::timer_fd::TimerFd;
pub(crate) use self::timers::Key;
pub(crate) use self::timers::Timers;
pub use self::waiter::Plain;
pub use self::waiter::Waiter;
pub(crate) use self::waiter::{pause, poll_or_sleep, poll_own, wait_for_own};
