//! The contract a service is written against: what a session is told and through what it acts. Must never
//! name a socket, a poller or a thread, so that a service is tested with bytes alone.

pub mod datagrams;
pub mod forwarder_id;
pub mod null;
pub mod service;
pub mod session;
pub mod shape;
pub mod site;
pub mod waker;

pub use self::datagrams::{Datagrams, Onward, Reply};
pub use self::forwarder_id::ForwarderId;
pub(crate) use self::null::Null;
pub use self::service::{BATCH_BYTES, BATCH_CONNECTIONS, Batch, Service};
pub use self::session::{Drain, Io, Leg, Peer, Session, SessionError, SessionResult};
pub use self::shape::Shape;
pub use self::site::Site;
pub use self::waker::{Notifier, Waker};
