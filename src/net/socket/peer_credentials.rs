//! The process at the other end of a Unix socket: unix(7), SO_PEERCRED. Must never hold a descriptor.

use std::os::fd::AsFd;

use crate::net::sys;

/// Who is at the other end of a Unix socket, as the kernel vouches for it: unix(7), SO_PEERCRED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process that connected, or that listens; 0 where it is out of sight of this one's PID namespace.
    pub pid: i32,
    /// Its effective user when it did so.
    pub uid: u32,
    /// Its effective group when it did so.
    pub gid: u32,
}

/// getsockopt(SO_PEERCRED); None where the kernel does not say.
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
