//! What the kernel tells of a TCP socket to those who do not own it: to a record, and to whoever asks
//! how many wait for a listener. Must never use a number that its owner has closed, nor keep it open.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use parking_lot::Mutex;

use super::sys::{self, RawTcpInfo};

/// The name of a congestion control: "cubic", "bbr".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Algorithm([u8; Self::MOST]);

impl Algorithm {
    /// TCP_CA_NAME_MAX (include/net/tcp.h).
    const MOST: usize = 16;

    /// That of a socket: getsockopt(TCP_CONGESTION), tcp(7). What is accepted inherits its listener's.
    pub(crate) fn of(fd: impl AsRawFd) -> io::Result<Self> {
        let mut name = [0; Self::MOST];
        sys::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_CONGESTION, &mut name)?;
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(Self::MOST);
        std::str::from_utf8(&self.0[..end]).unwrap_or_default()
    }
}

/// What the kernel knew of a connection at one moment.
#[derive(Clone, Copy, Debug)]
pub struct TcpInfo {
    /// TCP_INFO; what is behind `length` is all zero.
    pub raw: RawTcpInfo,
    /// How many bytes of it this kernel fills.
    pub length: usize,
    /// How it avoids congestion.
    pub algorithm: Algorithm,
}

impl TcpInfo {
    /// Asks a socket: getsockopt(TCP_INFO) and, where the answer is not known, TCP_CONGESTION.
    pub(crate) fn of(fd: impl AsRawFd + Copy, algorithm: Option<Algorithm>) -> io::Result<Self> {
        let (raw, length) = sys::tcp_info(fd)?;
        let algorithm = algorithm.map_or_else(|| Algorithm::of(fd), Ok)?;
        Ok(Self { raw, length, algorithm })
    }
}

/// The number of a socket that others may ask, until its owner withdraws it, which must be before it is
/// closed.
#[derive(Debug)]
pub(crate) struct Gauge(Mutex<RawFd>);

impl Gauge {
    /// Of a socket.
    pub(crate) fn of(fd: impl AsRawFd) -> Self {
        Self(Mutex::new(fd.as_raw_fd()))
    }

    /// Of none.
    pub(crate) fn none() -> Self {
        Self(Mutex::new(-1))
    }

    /// What the kernel knows of it now; None where it is none of TCP's, or was withdrawn. `algorithm`
    /// as in `TcpInfo::of`.
    pub(crate) fn ask(&self, algorithm: Option<Algorithm>) -> Option<TcpInfo> {
        // Held until the kernel has answered: who closes the socket waits for it in `withdraw`.
        let number = self.0.lock();
        if *number < 0 {
            return None;
        }
        TcpInfo::of(*number, algorithm).ok()
    }

    /// From here on nobody asks it any more.
    pub(crate) fn withdraw(&self) {
        *self.0.lock() = -1;
    }

    /// Of a listener: connections that have finished their handshake and wait to be accepted. 0 where
    /// it listens no more.
    pub(crate) fn waiting(&self) -> usize {
        let number = self.0.lock();
        if *number < 0 {
            return 0;
        }
        sys::waiting(*number)
    }
}
