//! Work for the caller's threads: accepted connections, received datagrams. `pool` gives each to
//! the next idle thread; `on_demand` accepts when a caller asks; `client_worker` serves what is
//! between a client with faults and its peer. Owns what is handed out until it closes; must never
//! start a thread of the caller's, nor call into one.

mod client_faults;
pub(crate) mod client_worker;
mod drain;
mod handed_out;
mod inner;
mod job;
mod lease;
mod lifetime;
mod linger;
mod mixed;
mod on_demand;
mod parked_thread;
mod pool;
mod start_tls;
mod turns;

pub use self::client_faults::ClientFaults;
pub(crate) use self::inner::{OUTER_LEGS, OuterHost};
pub(crate) use self::job::Answers;
pub use self::job::{Datagram, Job};
pub(crate) use self::mixed::MixedSink;
pub(crate) use self::on_demand::OnDemand;
pub use self::pool::{Member, Pool};
pub(crate) use self::pool::{PoolSink, ThreadPool};
pub use self::start_tls::{start_tls_as_client, start_tls_as_server};
