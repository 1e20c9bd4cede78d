//! The limits of the process: descriptors, ports, backlog. Must never change anything but the soft
//! limit of descriptors, and that only on request.

use std::fs;

use crate::net::error::{Error, Result};
use crate::net::sys;

/// A snapshot of the process's limits.
#[derive(Clone, Copy, Debug)]
pub struct ProcessLimits {
    /// Soft limit of open descriptors, which `open` and `accept` obey.
    pub fd_soft: u64,
    /// Hard limit, up to which the soft limit can be raised.
    pub fd_hard: u64,
    /// Descriptors open now.
    pub fd_in_use: u64,
    /// First and last port that the system assigns to clients (ip_local_port_range).
    pub ephemeral_ports: (u16, u16),
    /// Longest accept queue that the system allows (net.core.somaxconn).
    pub backlog_max: u32,
}

/// Reads the current limits, getrlimit(2) and proc(5).
pub fn process_limits() -> Result<ProcessLimits> {
    let (fd_soft, fd_hard) =
        sys::fd_limits().map_err(|error| Error::os("getrlimit", "", &error))?;
    Ok(ProcessLimits {
        fd_soft,
        fd_hard,
        fd_in_use: fds_in_use(),
        ephemeral_ports: ephemeral_ports(),
        backlog_max: backlog_max(),
    })
}

/// Raises the soft limit of descriptors to the hard limit and returns it, setrlimit(2).
pub fn raise_fd_limit() -> Result<u64> {
    let (soft, hard) = sys::fd_limits().map_err(|error| Error::os("getrlimit", "", &error))?;
    if soft < hard {
        sys::set_fd_soft_limit(hard, hard).map_err(|error| Error::os("setrlimit", "", &error))?;
    }
    Ok(hard)
}

/// Descriptors open in this process; 0 if /proc is not mounted.
pub(crate) fn fds_in_use() -> u64 {
    // One of them is the directory being read.
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1) as u64)
}

fn ephemeral_ports() -> (u16, u16) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(low)), Some(Ok(high))) => (low, high),
        // The kernel's built-in default, if /proc is not mounted.
        _ => (32_768, 60_999),
    }
}

/// Longest accept queue that the system allows.
pub(crate) fn backlog_max() -> u32 {
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    // The kernel's built-in default since 5.4, if /proc is not mounted.
    text.trim().parse().unwrap_or(4096)
}
