//! Addresses: transports, hosts with ports, names of Unix sockets, and name resolution. Must never
//! open a socket except to test whether an address is this machine's.

mod endpoint;
mod loopback;
mod network;
pub(crate) mod resolve;
mod source;
mod target;
mod unix_name;

pub(crate) use self::endpoint::canonical;
pub use self::endpoint::{Address, Endpoint, Transport, display, host_text};
pub use self::loopback::reachable;
pub use self::network::Network;
pub(crate) use self::resolve::STAGGER;
pub use self::source::ConnectSource;
pub(crate) use self::source::SourceAddresses;
pub use self::target::{Target, port_named};
pub use self::unix_name::UnixName;
