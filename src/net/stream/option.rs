//! The options that a caller sets on a stream. Owns the form in which they are kept, for a socket
//! that replaces the stream's in `connect`; must never keep a pointer of the caller's.

use std::io;
use std::os::fd::AsRawFd;

use crate::net::sys;

/// SO_RCVTIMEO and SO_SNDTIMEO, also with 64-bit times on a 32-bit system (asm-generic/socket.h).
pub(super) const TIMEOUTS: [i32; 4] = [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO, 66, 67];

/// The bytes of the longest filter: BPF_MAXINSNS of linux/bpf_common.h.
pub(super) const MOST_FILTER: usize = 4096 * size_of::<libc::sock_filter>();

/// The value for setsockopt(2).
#[derive(Clone, Debug)]
pub enum OptionValue {
    /// Bytes in the kernel's format.
    Bytes(Vec<u8>),
    /// No value, only a length.
    Length(u32),
    /// The instructions of SO_ATTACH_FILTER, whose value is a pointer to them.
    Filter(Vec<u8>),
}

/// What concerns the calls of an inner stream, and its close: low water, time-outs.
const OF_INNER: [i32; 7] = [
    libc::SO_SNDLOWAT,
    libc::SO_RCVLOWAT,
    libc::SO_LINGER,
    libc::SO_PEEK_OFF,
    libc::SO_ERROR,
    libc::SO_TYPE,
    libc::SO_ACCEPTCONN,
];

/// Whether an option of an inner stream is one of the outer socket: those of IP and TCP are, and of
/// the others all but those that concern its calls.
pub(super) fn is_of_outer(level: i32, name: i32) -> bool {
    level != libc::SOL_SOCKET || !(OF_INNER.contains(&name) || TIMEOUTS.contains(&name))
}

/// setsockopt(2).
pub(super) fn set_option(
    fd: impl AsRawFd,
    level: i32,
    name: i32,
    value: &OptionValue,
) -> io::Result<()> {
    match value {
        OptionValue::Bytes(bytes) => sys::setsockopt(fd, level, name, bytes),
        OptionValue::Length(length) => sys::setsockopt_length(fd, level, name, *length),
        OptionValue::Filter(instructions) => {
            // struct sock_fprog of linux/filter.h: a count, and a pointer after it.
            let count = instructions.len() / size_of::<libc::sock_filter>();
            let mut value = [0; 2 * size_of::<usize>()];
            let (first, second) = value.split_at_mut(size_of::<usize>());
            first[..2].copy_from_slice(&(count as u16).to_ne_bytes());
            second.copy_from_slice(&instructions.as_ptr().expose_provenance().to_ne_bytes());
            sys::setsockopt(fd, level, name, &value)
        }
    }
}
