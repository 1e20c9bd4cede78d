//! One UDP socket of a server. Owns how its thread waits for datagrams and learns of the end; must
//! never receive or send one.

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

/// The largest UDP payload, reached over IPv6 (RFC 768: the length field has 16 bits and counts the
/// 8 bytes of the header). Over IPv4 the limit is 20 bytes less, and the system enforces it.
pub const MOST_DATAGRAM: usize = 65_527;

/// The least space that a datagram takes in a receive buffer: the kernel's own structure for it
/// alone is larger.
pub(super) const LEAST_IN_QUEUE: usize = 256;

/// A socket that receives datagrams.
pub(crate) struct DatagramSocket {
    socket: Listener,
    pub(super) local: SocketAddr,
    ended: AtomicBool,
    /// Set when the server ends, when the deadline of its stop moves closer, and when a thread that
    /// waits for room can continue.
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

    /// Whether the server has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Whether the socket reports the destination of each datagram.
    pub(super) fn tells_destination(&self) -> bool {
        self.socket.tells_destination()
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.local.is_ipv4()
    }

    /// Whether the socket is bound to all addresses of this machine.
    pub(super) fn is_wildcard(&self) -> bool {
        self.local.ip().is_unspecified()
    }

    /// Marks the end and wakes the threads that wait for a datagram. What was received before can
    /// still be read.
    pub(crate) fn end(&self) {
        self.ended.store(true, SeqCst);
        self.notifier.set();
        // On Linux this also wakes a receive on a socket without a peer, although it returns
        // ENOTCONN.
        self.socket.shut();
    }

    /// Whether a receive may block: only on a socket that `end` can wake.
    pub(super) fn may_block(&self) -> bool {
        !self.socket.is_adopted()
    }

    /// An address in the form of the socket's family.
    pub(super) fn name(&self, remote: SocketAddr) -> Name {
        match remote {
            SocketAddr::V4(v4) if self.local.is_ipv6() => {
                let mapped = IpAddr::V6(v4.ip().to_ipv6_mapped());
                Name::new(SocketAddr::new(mapped, v4.port()))
            }
            _ => Name::new(remote),
        }
    }

    /// Waits for a datagram, the notifier, or the deadline. True if the error queue is not empty: a
    /// receive may not report that, and the next wait would return at once, so the caller reads the
    /// queue first.
    #[must_use]
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut fds = [PollFd::readable(self.notifier.as_fd()), PollFd::readable(self.as_fd())];
        // An interrupted or failed poll is treated as a wake-up: everything is checked again after
        // it.
        let polled = sys::poll(&mut fds, deadline).is_ok();
        if polled && fds[0].ready() && !self.has_ended() {
            // Set for room in the pool, which this wait does not need.
            self.notifier.clear();
        }
        polled && fds[1].failed()
    }

    /// Waits for the notifier or the deadline only.
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

/// The open sockets of one server, so that the end reaches all of them.
#[derive(Default)]
pub(crate) struct DatagramSockets {
    open: Mutex<Vec<Arc<DatagramSocket>>>,
    /// The number of the newest peer.
    last_id: AtomicU64,
}

impl DatagramSockets {
    pub(crate) fn add(&self, socket: &Arc<DatagramSocket>) {
        self.open.lock().push(Arc::clone(socket));
    }

    pub(crate) fn remove(&self, socket: &Arc<DatagramSocket>) {
        self.open.lock().retain(|open| !Arc::ptr_eq(open, socket));
    }

    /// Ends all of them.
    pub(crate) fn end(&self) {
        let open = self.open.lock().clone();
        open.iter().for_each(|socket| socket.end());
    }

    /// Wakes the threads that wait until the deadline of a stop.
    fn wake(&self) {
        let open = self.open.lock().clone();
        open.iter().for_each(|socket| socket.notifier.set());
    }

    /// The number of a new peer, from 1.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Relaxed) + 1
    }
}

impl ShutdownListener for DatagramSockets {
    fn begun(&self) {
        self.end();
    }

    fn deadline_moved(&self) {
        self.wake();
    }
}
