//! One socket: its options, its steps, its state in the kernel. Must never wait, nor know what the
//! socket is used for.

mod arrivals;
mod decoy;
pub(crate) mod hops;
mod intake;
pub(crate) mod lingering;
mod listener;
mod multicast;
mod options;
pub(crate) mod peer_credentials;
mod probe;
mod sharing;
mod socket;
mod splice_pipe;
mod tcp_info;
mod unix_file;

pub(crate) use self::intake::{Intake, Mode, Noted, Taken};
pub(crate) use self::lingering::Until;
pub(crate) use self::listener::Listener;
pub use self::listener::bound_address;
pub use self::multicast::{Interface, Membership};
pub(crate) use self::options::MAX_BACKLOG;
pub use self::options::{Keepalive, SocketOptions};
pub use self::peer_credentials::Credentials;
pub(crate) use self::peer_credentials::peer_credentials;
pub(crate) use self::probe::Probe;
pub(crate) use self::sharing::Sharing;
pub(crate) use self::socket::{Socket, close_resets};
pub(crate) use self::splice_pipe::Pipe;
pub(crate) use self::splice_pipe::{PipeAllowance, Pipes};
pub use self::tcp_info::{Algorithm, TcpInfo};
pub(crate) use self::unix_file::{FileId, clear_way};
