//! Socket options, each with the step at which it is set. Must never hold a socket.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, SockRef, TcpKeepalive};

use super::multicast::Membership;
use crate::net::address::Transport;
use crate::net::error::{Error, Result};

/// The largest useful backlog: the kernel stores it in 16 bits on some paths.
pub(crate) const MAX_BACKLOG: u32 = 65_535;

/// Whether the kernel probes a silent peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keepalive {
    /// No.
    Off,
    /// After the system's times: two hours, unless it was configured otherwise.
    System,
    /// After times of its own, tcp(7).
    Probes {
        /// TCP_KEEPIDLE: silence before the first probe, whole seconds.
        idle: Duration,
        /// TCP_KEEPINTVL: time between the probes, whole seconds.
        interval: Duration,
        /// TCP_KEEPCNT: unanswered probes before the connection is reset.
        count: u32,
    },
}

impl Keepalive {
    fn set(self, socket: &SockRef<'_>, tcp: bool) -> io::Result<()> {
        match self {
            Self::Off => socket.set_keepalive(false),
            Self::Probes { idle, interval, count } if tcp => {
                let probes = TcpKeepalive::new();
                let probes = probes.with_time(idle).with_interval(interval).with_retries(count);
                // Sets SO_KEEPALIVE as well.
                socket.set_tcp_keepalive(&probes)
            }
            Self::System | Self::Probes { .. } => socket.set_keepalive(true),
        }
    }
}

/// The options of a new socket. `None` keeps the system's default.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// SO_REUSEADDR on the listener: bind to the port while old connections are in TIME_WAIT.
    pub reuse_address: bool,
    /// SO_REUSEPORT on the listener: share the port with other sockets that set it.
    pub reuse_port: bool,
    /// The backlog of listen(2); None is the system's maximum.
    pub backlog: Option<u32>,
    /// TCP_NODELAY: disable Nagle's algorithm (RFC 896).
    pub nodelay: bool,
    /// SO_KEEPALIVE, with the times of its probes.
    pub keepalive: Option<Keepalive>,
    /// TCP_USER_TIMEOUT: how long data that was sent may stay unacknowledged (RFC 5482).
    pub user_timeout: Option<Duration>,
    /// SO_LINGER; zero makes every close a reset.
    pub linger: Option<Duration>,
    /// SO_SNDBUF, bytes; the kernel doubles it.
    pub send_buffer: Option<usize>,
    /// SO_RCVBUF, bytes; the kernel doubles it.
    pub receive_buffer: Option<usize>,
    /// TCP_MAXSEG, bytes, including the TCP options.
    pub max_segment: Option<u32>,
    /// Whether "::" accepts IPv4 too (IPV6_V6ONLY off).
    pub dual_stack: bool,
    /// Permission bits of a Unix listener's file; None uses the umask.
    pub mode: Option<u32>,
    /// Multicast groups that a UDP socket joins.
    pub multicast: Vec<Membership>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            reuse_address: true,
            reuse_port: false,
            backlog: None,
            nodelay: true,
            keepalive: None,
            user_timeout: None,
            linger: None,
            send_buffer: None,
            receive_buffer: None,
            max_segment: None,
            dual_stack: true,
            mode: None,
            multicast: Vec::new(),
        }
    }
}

impl SocketOptions {
    /// Sets the options that must be set before bind(2) or connect(2). On Linux, accepted TCP
    /// sockets inherit all of them from the listener, which saves one call for each connection.
    /// Accepted Unix sockets inherit none, so they are set on each.
    ///
    /// Options of TCP are skipped for other transports.
    pub(crate) fn apply(&self, fd: &impl AsFd, transport: Transport) -> io::Result<()> {
        let socket = SockRef::from(fd);
        let tcp = transport == Transport::Tcp;
        if self.nodelay && tcp {
            socket.set_tcp_nodelay(true)?;
        }
        if let Some(keepalive) = self.keepalive {
            keepalive.set(&socket, tcp)?;
        }
        if self.user_timeout.is_some() && tcp {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        if let Some(linger) = self.linger {
            socket.set_linger(Some(linger))?;
        }
        if let Some(bytes) = self.send_buffer {
            socket.set_send_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(bytes) = self.max_segment.filter(|_| tcp) {
            socket.set_tcp_mss(bytes)?;
        }
        Ok(())
    }

    /// Joins the multicast groups, once the socket is bound: the port decides what it hears of
    /// them.
    ///
    /// An IPv4 socket joins no groups of IPv6.
    pub(crate) fn join_groups(&self, fd: &impl AsFd, domain: Domain) -> Result<()> {
        let fits = |group: IpAddr| group.is_ipv4() || domain == Domain::IPV6;
        for membership in self.multicast.iter().filter(|membership| fits(membership.group)) {
            membership
                .join(fd)
                .map_err(|error| Error::os("join multicast group", membership.text(), &error))?;
        }
        Ok(())
    }

    /// Whether a socket with these options joins this multicast group.
    pub(crate) fn is_joined(&self, group: IpAddr) -> bool {
        self.multicast.iter().any(|membership| membership.group == group)
    }

    /// `Error::Value` for multicast groups on a transport that has none.
    pub fn check_multicast(&self, transport: Transport) -> Result<()> {
        match self.multicast.first() {
            Some(membership) if transport != Transport::Udp => Err(Error::Value(format!(
                "SocketOptions(multicast={:?}): only UDP has multicast groups; give transport='udp'",
                membership.text()
            ))),
            _ => Ok(()),
        }
    }

    /// `Error::Value` for an option that was set explicitly and has no effect on a Unix socket.
    /// `nodelay`, on by default, is accepted: a Unix socket never delays.
    pub fn check_unix(&self) -> Result<()> {
        let refuse = |field: &str, why: &str| {
            Err(Error::Value(format!(
                "SocketOptions({field}=…): {why}; a Unix socket has no such thing"
            )))
        };
        if self.keepalive.is_some() {
            return refuse("keepalive", "SO_KEEPALIVE probes the peers of TCP");
        }
        if self.user_timeout.is_some() {
            return refuse("user_timeout", "TCP_USER_TIMEOUT bounds the retransmissions of TCP");
        }
        if self.linger.is_some() {
            return refuse("linger", "SO_LINGER delays the close of TCP");
        }
        if self.max_segment.is_some() {
            return refuse("max_segment", "TCP_MAXSEG is an option of TCP");
        }
        if self.reuse_port {
            return refuse("reuse_port", "SO_REUSEPORT shares a port of TCP or UDP");
        }
        Ok(())
    }
}
