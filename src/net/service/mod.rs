//! The contract of a service with the engine: events to a session, actions from it. Must never name
//! a socket, a poller or a thread, so that a service is tested with bytes alone.

mod datagrams;
mod forwarder_id;
mod leg_stages;
mod null;
mod service;
mod session;
mod shape;
mod site;
mod waker;

pub use self::datagrams::{Datagrams, Onward, Reply};
pub use self::forwarder_id::ForwarderId;
pub use self::leg_stages::LegStages;
pub(crate) use self::null::Null;
pub use self::service::{BATCH_BYTES, BATCH_CONNECTIONS, Batch, Service};
pub use self::session::{Drain, Io, Leg, Peer, Session, SessionError, SessionResult, WaitingCalls};
pub use self::shape::{HandedOutBy, Shape};
pub use self::site::Site;
pub use self::waker::{Notifier, Waker};
