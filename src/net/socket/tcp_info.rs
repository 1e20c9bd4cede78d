//! A snapshot of the kernel's state of a TCP connection: tcp(7), TCP_INFO. Must never hold a
//! descriptor.

use std::io::{self};
use std::os::fd::AsRawFd;

use crate::net::sys::{self, RawTcpInfo};

/// The name of a congestion control algorithm: "cubic", "bbr".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm([u8; Self::MOST]);

impl Algorithm {
    /// TCP_CA_NAME_MAX (include/net/tcp.h).
    const MOST: usize = 16;
    /// No name.
    const UNKNOWN: Self = Self([0; Self::MOST]);

    /// The algorithm of a socket: getsockopt(TCP_CONGESTION), tcp(7). Accepted sockets inherit
    /// their listener's.
    pub(crate) fn of(fd: impl AsRawFd) -> io::Result<Self> {
        let mut name = [0; Self::MOST];
        sys::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, &mut name)?;
        Ok(Self(name))
    }

    /// The name; empty if it is not UTF-8.
    #[must_use]
    pub fn name(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(Self::MOST);
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

/// The kernel's state of a connection at one moment.
#[derive(Clone, Copy, Debug)]
pub struct TcpInfo {
    /// TCP_INFO; all bytes after `length` are zero.
    pub raw: RawTcpInfo,
    /// Number of bytes that this kernel fills.
    pub length: usize,
    /// The congestion control algorithm.
    pub algorithm: Algorithm,
}

impl TcpInfo {
    /// Queries a socket: getsockopt(TCP_INFO) and, unless `algorithm` is given, TCP_CONGESTION,
    /// whose name is empty if the kernel does not report it.
    pub(crate) fn of(fd: impl AsRawFd + Copy, algorithm: Option<Algorithm>) -> io::Result<Self> {
        let (raw, length) = sys::tcp_info(fd)?;
        let algorithm = algorithm.or_else(|| Algorithm::of(fd).ok()).unwrap_or(Algorithm::UNKNOWN);
        Ok(Self { raw, length, algorithm })
    }
}
