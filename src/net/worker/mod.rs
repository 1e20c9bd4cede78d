//! The threads that accept connections. `acceptor` is the accept loop, `worker` a thread with a
//! poller that serves connections. Owns both kinds of thread; must never attach to an interpreter
//! (a service may).

mod accept_errors;
mod acceptor;
mod admit;
mod inbox;
mod open_record;
mod pool;
mod sink;
mod worker;

pub(crate) use self::accept_errors::{ACCEPT_BACKOFF, Failures, backoff, shut_down};
pub(crate) use self::acceptor::Acceptor;
pub(crate) use self::admit::{Admitter, Attempt};
pub(crate) use self::inbox::{Inbox, Message};
pub(crate) use self::pool::{WorkerPool, start_accepting_worker, start_worker};
pub(crate) use self::sink::{Accepted, Inner, Sink};
