//! The threads that accept and serve: `acceptor` takes connections off the queue, `worker` runs a poller with
//! its connections. Must never attach to an interpreter (a service may).

mod accept_errors;
mod acceptor;
mod admit;
mod inbox;
mod open_record;
mod pool;
mod sink;
mod worker;

pub(crate) use self::accept_errors::{ACCEPT_BACKOFF, Failures, backoff};
pub(crate) use self::acceptor::Acceptor;
pub(crate) use self::admit::{Admitter, Attempt};
pub(crate) use self::inbox::{Inbox, Message};
pub(crate) use self::pool::{WorkerPool, start_accepting_worker, start_worker};
pub(crate) use self::sink::{Accepted, Sink};
