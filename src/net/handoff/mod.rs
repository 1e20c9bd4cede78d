//! Connections and datagrams in the hands of the caller's threads: `pool` gives each to the next idle thread,
//! `on_demand` accepts when a caller asks. Must never start a thread of the caller's, nor call one back.

mod drain;
mod handed_out;
mod inner;
mod job;
mod lease;
mod linger;
mod on_demand;
mod parked_thread;
mod pool;

pub(crate) use self::handed_out::HandedOut;
pub(crate) use self::inner::OuterWorkers;
pub(crate) use self::job::Answers;
pub use self::job::{Datagram, Job};
pub(crate) use self::on_demand::OnDemand;
pub use self::pool::Pool;
pub(crate) use self::pool::{PoolSink, ThreadPool};
