//! Base types without network meaning: locks, event flags, waiting, timers, forks. Must never know
//! a socket.

mod event_fd;
pub(crate) mod fork;
pub(crate) mod lock;
mod panic;
pub mod process;
mod timer_fd;
mod timers;
mod waiter;

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
