//! The credentials of a Unix socket's peer: unix(7), SO_PEERCRED. Must never hold a descriptor.

use std::os::fd::AsFd;

use crate::net::sys;

/// The process at the other end of a Unix socket, as the kernel reports it: unix(7), SO_PEERCRED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The process that connected or listened; 0 if it is outside of this process's PID namespace.
    pub pid: i32,
    /// Its effective user at that time.
    pub uid: u32,
    /// Its effective group at that time.
    pub gid: u32,
}

/// getsockopt(SO_PEERCRED); None if the kernel does not report it.
pub(crate) fn peer_credentials(socket: &impl AsFd) -> Option<Credentials> {
    let mut raw = [0; 12];
    let length =
        sys::getsockopt(socket.as_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, &mut raw).ok()?;
    let number = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
    // struct ucred: three ints.
    (length == raw.len()).then(|| Credentials {
        pid: number(0) as i32,
        uid: number(4),
        gid: number(8),
    })
}
