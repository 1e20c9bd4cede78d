//! One socket: its options, its steps, what the kernel knows of it. Must never wait, nor know what it is used
//! for.

pub mod lingering;
pub mod listener;
pub mod options;
pub mod peer_credentials;
pub mod probe;
pub mod socket;
pub mod splice_pipe;
pub mod tcp_info;
pub mod unix_file;

pub(crate) use self::lingering::Until;
pub(crate) use self::listener::Listener;
pub use self::listener::bound_address;
pub use self::options::SocketOptions;
pub use self::peer_credentials::Credentials;
pub(crate) use self::peer_credentials::peer_credentials;
pub(crate) use self::probe::Probe;
pub(crate) use self::socket::Socket;
pub(crate) use self::splice_pipe::{PipeAllowance, Pipes};
pub use self::tcp_info::{Algorithm, TcpInfo};
pub(crate) use self::unix_file::{FileId, clear_way};
