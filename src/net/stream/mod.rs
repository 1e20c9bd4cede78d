//! Blocking streams. A stream is a client's socket, or a connection that a server gave to a thread
//! of its caller. Owns the calls on it; must never read ahead of what a call returns.

mod accepted;
mod calls;
mod connect;
mod datagram;
mod deadline;
mod frame;
mod message;
mod option;
mod owner;
mod preface;
mod race;
mod send_preface;
mod slot;
mod spin;
mod staging;
mod start_tls;
mod stream;
mod transfer;
mod turn;
mod wait;

pub(crate) use self::calls::Calls;
pub use self::frame::FrameHeader;
pub use self::message::Message;
pub use self::option::OptionValue;
pub use self::owner::DeferredClose;
pub(crate) use self::owner::{InnerEnd, Outer, OuterEnd, OuterPlace, Owned, Owner, Place, Staging};
pub use self::preface::Preface;
pub use self::stream::Stream;
pub(crate) use self::stream::is_in_call;
