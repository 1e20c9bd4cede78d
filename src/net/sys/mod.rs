//! The system calls that `socket2` or `mio` do not offer. Owns all `unsafe` of the engine, one file
//! for each group of manual pages; each function is named after its call. A call that `rustix`
//! offers as a safe function is made by it, others by a checked wrapper. Must never hold state,
//! decide anything, or know what a server is.

use std::io;

mod batch;
mod message;
mod name;
mod pipe;
mod poll;
mod process;
mod queues;
mod resolver;
mod socket;

pub(crate) use self::batch::{BATCH, Inbound, Outgoing, Received, send_many};
pub use self::message::{control_message, control_messages};
pub(crate) use self::message::{
    destination, has_descriptors, leave_from, recv, recvmsg, send, send_to, sendmsg,
};
pub(crate) use self::name::{Name, interface_index, interface_name};
pub(crate) use self::pipe::{pipe, pread, set_pipe_size, splice};
pub use self::poll::{PollFd, poll};
pub(crate) use self::poll::{eventfd, set_timerfd, take_edge, timerfd, watch_edges};
pub(crate) use self::process::{
    at_fork, fd_limits, interrupt, name_thread, set_fd_soft_limit, set_timer_slack, try_lock,
    with_signals_blocked,
};
pub(crate) use self::queues::{is_acknowledged, queued, take_refusal, unread, unsent};
pub(crate) use self::resolver::{ResolverError, getaddrinfo};
pub use self::socket::RawTcpInfo;
pub(crate) use self::socket::{
    accept, address_of, adopt, close_number, disconnect, duplicate, getsockopt, replace,
    setsockopt, setsockopt_length, tcp_info,
};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Whether a call failed because it is not available here: the kernel lacks it, or a filter
/// (seccomp(2)) refuses it. Other causes of these errors concern every form of the call, so trying
/// another form is never wrong.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EACCES))
}

fn check_len(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
