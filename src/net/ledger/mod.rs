//! The ledger: records of connections, with totals that balance. Must never be locked while bytes
//! are moved; only its counters are written then.

mod closed_by;
mod counters;
mod fault_event;
mod follower;
mod ledger;
mod paths;
mod proxy_header;
mod record;
mod refusal;
mod socket_close;
mod tls_info;
mod totals;
mod trace;
mod watch;

pub use self::closed_by::ClosedBy;
pub use self::fault_event::{FaultEvent, Way};
pub use self::follower::Follower;
pub(crate) use self::ledger::EntryId;
pub use self::ledger::Ledger;
pub use self::paths::{Paths, RETRANSMIT_BOUNDS, RTT_BOUNDS};
pub use self::proxy_header::ProxyHeader;
pub use self::record::{Far, Record, Role};
pub use self::refusal::Refusal;
pub(crate) use self::socket_close::SocketClose;
pub use self::tls_info::{PeerCertificate, TlsInfo};
pub use self::trace::{Direction, EventKind, FarEvent, TraceLimits};
pub use self::watch::Watch;
