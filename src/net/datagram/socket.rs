//! One UDP socket of a server, from its start to its end. Owns how its thread waits for datagrams and is told
//! to stop; must never read or send one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Instant;

use super::amplification::PortClaim;
use crate::net::base::{EventFd, Mutex};
use crate::net::control::ShutdownListener;
use crate::net::socket::Listener;
use crate::net::sys::{self, Name, PollFd};

/// The largest UDP payload there can be, over IPv6 (RFC 768: the length has 16 bits, 8 bytes are the header's).
/// Over IPv4 the system takes 20 bytes less, and says so.
pub const MOST_DATAGRAM: usize = 65_527;

/// The least that a datagram takes of a receive buffer: the kernel's own description of it alone is larger.
pub(super) const LEAST_IN_QUEUE: usize = 256;

/// A socket that datagrams are received by.
pub(crate) struct DatagramSocket {
    socket: Listener,
    pub(super) local: SocketAddr,
    ended: AtomicBool,
    /// Set from the end on, and when there is room again for whoever waits for that.
    pub(crate) notifier: Arc<EventFd>,
    /// Tells other processes that a server answers here.
    _claim: Option<PortClaim>,
}

impl DatagramSocket {
    pub(crate) fn new(socket: Listener, local: SocketAddr) -> io::Result<Self> {
        let notifier = Arc::new(EventFd::new()?);
        let claim = PortClaim::new(local);
        Ok(Self { socket, local, ended: AtomicBool::new(false), notifier, _claim: claim })
    }

    /// Whether the server ends.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Whether it tells where each datagram was sent to.
    pub(super) fn tells_destination(&self) -> bool {
        self.socket.tells_destination()
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.local.is_ipv4()
    }

    /// Whether every address of this machine is its own.
    pub(super) fn is_wildcard(&self) -> bool {
        self.local.ip().is_unspecified()
    }

    /// Has whoever waits for a datagram come back; what was received before can still be read.
    pub(crate) fn end(&self) {
        self.ended.store(true, SeqCst);
        self.notifier.set();
        // On Linux this wakes a receive that has no peer as well, though it says ENOTCONN.
        self.socket.shut();
    }

    /// Whether a receive may wait by itself: only where `end` wakes it.
    pub(super) fn may_block(&self) -> bool {
        !self.socket.is_adopted()
    }

    /// An address as the socket's family has it.
    pub(super) fn name(&self, remote: SocketAddr) -> Name {
        match remote {
            SocketAddr::V4(v4) if self.local.is_ipv6() => {
                let mapped = IpAddr::V6(v4.ip().to_ipv6_mapped());
                Name::new(SocketAddr::new(mapped, v4.port()))
            }
            _ => Name::new(remote),
        }
    }

    /// Waits for a datagram, for the notifier, or for the deadline. True if the error queue has something,
    /// which no receive may tell of: it has to be read before another wait, which would end at once.
    #[must_use]
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut fds = [PollFd::readable(self.notifier.as_fd()), PollFd::readable(self.as_fd())];
        // An interrupted or failed poll is as good as a wake-up, for all is checked anew after it.
        let polled = sys::poll(&mut fds, deadline).is_ok();
        if polled && fds[0].ready() && !self.has_ended() {
            // Rung for room, which nobody waits for here.
            self.notifier.clear();
        }
        polled && fds[1].failed()
    }

    /// Waits for the notifier or the deadline alone.
    pub(super) fn wait_for_notifier(&self, deadline: Option<Instant>) {
        let _ = sys::poll(&mut [PollFd::readable(self.notifier.as_fd())], deadline);
        if !self.has_ended() {
            self.notifier.clear();
        }
    }
}

impl AsFd for DatagramSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The open ports of one server, for whoever ends it.
#[derive(Default)]
pub(crate) struct DatagramSockets {
    open: Mutex<Vec<Arc<DatagramSocket>>>,
    /// The number of the last peer that was met.
    met: AtomicU64,
}

impl DatagramSockets {
    pub(crate) fn add(&self, port: &Arc<DatagramSocket>) {
        self.open.lock().push(Arc::clone(port));
    }

    pub(crate) fn remove(&self, port: &Arc<DatagramSocket>) {
        self.open.lock().retain(|open| !Arc::ptr_eq(open, port));
    }

    /// Has all of them end.
    pub(crate) fn end(&self) {
        let open = self.open.lock().clone();
        open.iter().for_each(|port| port.end());
    }

    /// The number of a peer that is met now, from 1.
    pub(super) fn next_id(&self) -> u64 {
        self.met.fetch_add(1, Relaxed) + 1
    }
}

impl ShutdownListener for DatagramSockets {
    fn begun(&self) {
        self.end();
    }
}
