//! One UDP socket of a server. Owns how its thread waits for datagrams and learns of the end; must
//! never receive or send one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::amplification::PortClaim;
use crate::net::address::{Address, UnixName, canonical, reachable};
use crate::net::base::{EventFd, Mutex, Waiter, poll_or_sleep, poll_own};
use crate::net::control::ShutdownListener;
use crate::net::error::{Error, Result};
use crate::net::socket::{Listener, Sharing};
use crate::net::sys::{self, Name, PollFd};
use crate::net::worker::shut_down;

/// The largest UDP payload, reached over IPv6 (RFC 768: the length field has 16 bits and counts the
/// 8 bytes of the header). Over IPv4 the limit is 20 bytes less, and the system enforces it.
pub(super) const MOST_DATAGRAM: usize = 65_527;

/// The least space that a datagram takes in a receive buffer: the kernel's own structure for it
/// alone is larger.
pub(super) const LEAST_IN_QUEUE: usize = 256;

/// How long `stop_blocking` waits at most.
const WAKE_UP: Duration = Duration::from_secs(1);
/// Interval between the datagrams that it sends.
const WAKE_UP_TURN: Duration = Duration::from_millis(20);

/// A socket that receives datagrams.
pub(crate) struct DatagramSocket {
    socket: Listener,
    pub(super) local: Address,
    ended: AtomicBool,
    /// Whether its thread waits inside the receive call, which only a shutdown of the socket ends.
    blocks: AtomicBool,
    /// Present while a thread that blocks is asked to poll from then on.
    change: Mutex<Option<Change>>,
    /// Whether there is one, for the thread, which takes no lock to find out.
    changing: AtomicBool,
    /// Set when the server ends, when the deadline of its stop moves closer, and when a thread that
    /// waits for room can continue.
    pub(crate) notifier: Arc<EventFd>,
    /// Tells other processes that a server answers here.
    _claim: Option<PortClaim>,
}

impl DatagramSocket {
    pub(crate) fn new(socket: Listener, local: &Address) -> io::Result<Self> {
        let notifier = Arc::new(EventFd::new()?);
        let claim = local.as_ip().and_then(PortClaim::new);
        Ok(Self {
            socket,
            local: local.clone(),
            ended: AtomicBool::new(false),
            blocks: AtomicBool::new(false),
            change: Mutex::new(None),
            changing: AtomicBool::new(false),
            notifier,
            _claim: claim,
        })
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
        self.local.as_ip().is_some_and(|local| local.is_ipv4())
    }

    /// Whether the socket is bound to all addresses of this machine.
    pub(super) fn is_wildcard(&self) -> bool {
        self.local.as_ip().is_some_and(|local| local.ip().is_unspecified())
    }

    /// Whether it is a Unix socket.
    pub(super) fn is_unix(&self) -> bool {
        self.local.as_unix().is_some()
    }

    /// The sender of a datagram; None if there is none, which marks the end: the socket was shut
    /// down. The sender of a Unix datagram may have no name.
    pub(super) fn sender(&self, from: &Name, data: &[u8]) -> Option<Address> {
        if !self.is_unix() {
            return from.address().map(|from| Address::Ip(canonical(from)));
        }
        let name = UnixName::of_kernel(from.unix());
        // An empty datagram of a sender without a name looks like the end.
        let may_be_end = data.is_empty() && name.is_unnamed();
        (!may_be_end || !self.is_shut()).then_some(Address::Unix(name))
    }

    fn is_shut(&self) -> bool {
        let mut fds = [PollFd::shutdown(self.as_fd())];
        let _ = sys::poll(&mut fds, Some(Instant::now()));
        self.has_ended() || fds[0].is_shut()
    }

    /// Marks the end and wakes the threads that wait for a datagram. What was received before can
    /// still be read.
    ///
    /// False if the program has closed a descriptor, so that a thread may not be woken.
    pub(crate) fn end(&self) -> bool {
        self.ended.store(true, SeqCst);
        let is_woken = self.notifier.set();
        // On Linux this also wakes a receive on a socket without a peer, although it returns
        // ENOTCONN.
        self.socket.shut() && is_woken
    }

    /// Whether the server has handed the socket on, and with it what is in its queue.
    pub(super) fn is_handed_over(&self) -> bool {
        self.socket.sharing().is_handed_over()
    }

    /// Lets the socket's thread wait inside the receive call, if it may: only on a socket that
    /// `end` can wake, because no one else uses it.
    ///
    /// A Unix socket is polled: a datagram to itself, which would end the wait, would find its
    /// queue full.
    pub(super) fn allow_blocking(&self) {
        if self.is_unix() {
            return;
        }
        self.blocks.store(true, SeqCst);
        // After the store, so that a change of the users that comes now finds it.
        if self.socket.sharing().has_others() {
            self.blocks.store(false, SeqCst);
        }
    }

    /// Whether the socket's thread waits inside the receive call.
    pub(super) fn blocks(&self) -> bool {
        self.blocks.load(Relaxed)
    }

    /// The flags for the next receive of the socket's thread, in whose `blocking` it notes whether it
    /// waits inside the call: once it has noticed that it must not, it polls.
    pub(super) fn receive_flags(&self, blocking: &mut bool) -> i32 {
        if *blocking && !self.blocks() {
            *blocking = false;
            if let Some(change) = &mut *self.change.lock() {
                change.is_known = true;
                change.done.set();
            }
        }
        if *blocking { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT }
    }

    /// Whether a datagram from this sender was sent by `stop_blocking`.
    pub(super) fn is_wake_up(&self, from: &Address) -> bool {
        if !self.changing.load(Relaxed) {
            return false;
        }
        let mut change = self.change.lock();
        let Some(change) = change.as_mut().filter(|change| change.from == from.as_ip()) else {
            return false;
        };
        change.seen += 1;
        change.done.set();
        true
    }

    /// Makes the socket's thread wait in poll(2) from now on, because others use the socket too: a
    /// shutdown, which is what ends a blocking receive, would reach them as well. Returns when the
    /// thread has noticed.
    ///
    /// A receive that blocks is ended by a datagram to the socket itself, which the thread ignores.
    /// The thread may be busy, or a filter may drop the datagram: that ends the wait after a
    /// second. After an error, the thread waits as before.
    pub(crate) fn stop_blocking(&self, waiter: &mut dyn Waiter) -> Result<()> {
        if !self.blocks.load(SeqCst) {
            return Ok(());
        }
        let failed = |error: io::Error| Error::os("hand_over", &self.local, &error);
        let done = Arc::new(EventFd::new().map_err(failed)?);
        *self.change.lock() = Some(Change::new(&done));
        self.changing.store(true, SeqCst);
        self.blocks.store(false, SeqCst);
        // For a thread that waits for something else than a datagram.
        self.notifier.set();
        let result = self.wake(&done, waiter);
        self.changing.store(false, SeqCst);
        *self.change.lock() = None;
        if result.is_err() {
            // The thread may still wait in the receive call.
            self.blocks.store(true, SeqCst);
        }
        result
    }

    fn wake(&self, done: &EventFd, waiter: &mut dyn Waiter) -> Result<()> {
        let failed = |error: io::Error| Error::os("hand_over", &self.local, &error);
        let end = Instant::now() + WAKE_UP;
        let (mut sender, mut sent) = (None, 0);
        loop {
            let turn = end.min(Instant::now() + WAKE_UP_TURN);
            let _ = waiter.wait(&mut [done.polled()], Some(turn))?;
            done.clear();
            let (is_known, seen) = self.change.lock().as_ref().map_or((true, sent), Change::state);
            let is_late = end <= Instant::now();
            // None of what was sent must be left to those who get the socket.
            if self.has_ended() || is_known && (seen >= sent || is_late) {
                return Ok(());
            }
            if is_late {
                return Err(Error::TimedOut { step: "hand_over", target: self.local.to_string() });
            }
            if sender.is_none() {
                let Some(local) = self.local.as_ip() else { return Ok(()) };
                let socket = wake_up_sender(local).map_err(failed)?;
                let from = socket.local_addr().map_err(failed)?;
                if let Some(change) = &mut *self.change.lock() {
                    change.from = Some(canonical(from));
                }
                sender = Some(socket);
            }
            if let Some(sender) = &sender {
                // An error, as of a filter: tried again until the end.
                sent += usize::from(!is_known && sender.send(&[]).is_ok());
            }
        }
    }

    /// An address in the form of the socket's family.
    pub(super) fn name(&self, remote: &Address) -> Name {
        match remote {
            Address::Ip(SocketAddr::V4(v4)) if !self.is_ipv4() => {
                let mapped = IpAddr::V6(v4.ip().to_ipv6_mapped());
                Name::new(SocketAddr::new(mapped, v4.port()))
            }
            Address::Ip(remote) => Name::new(*remote),
            Address::Unix(name) => Name::of_unix(name.bytes()),
        }
    }

    /// Waits for a datagram, the notifier, or the deadline. True if the error queue is not empty: a
    /// receive may not report that, and the next wait would return at once, so the caller reads the
    /// queue first. An error if another of its owners has shut the socket down.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> io::Result<bool> {
        let mut fds = [self.notifier.polled(), PollFd::arrival(self.as_fd())];
        let polled = poll_own(&mut fds, deadline)?;
        if polled && fds[0].ready() && !self.has_ended() {
            // Set for room in the pool, which this wait does not need.
            self.notifier.clear();
        }
        if polled && fds[1].is_shut() && !self.has_ended() {
            return Err(shut_down());
        }
        Ok(polled && fds[1].failed())
    }

    /// Waits for the notifier or the deadline only.
    pub(super) fn wait_for_notifier(&self, deadline: Option<Instant>) {
        poll_or_sleep(&mut [self.notifier.polled()], deadline);
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

/// A request to the thread of a socket to block no more.
struct Change {
    /// Set when one of the fields below has changed.
    done: Arc<EventFd>,
    /// The sender of the datagrams that wake the thread.
    from: Option<SocketAddr>,
    /// How many of these the thread has received.
    seen: usize,
    is_known: bool,
}

impl Change {
    fn new(done: &Arc<EventFd>) -> Self {
        Self { done: Arc::clone(done), from: None, seen: 0, is_known: false }
    }

    fn state(&self) -> (bool, usize) {
        (self.is_known, self.seen)
    }
}

/// A socket that sends to `local`, from an address that others of this machine can send from at
/// most.
fn wake_up_sender(local: SocketAddr) -> io::Result<UdpSocket> {
    // If the socket does not serve IPv4, and there is no IPv6, nothing reaches it at all.
    let to = reachable(local, true);
    let any: IpAddr =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
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

    /// Makes the thread of the socket with these users wait in poll(2).
    pub(crate) fn stop_blocking(
        &self,
        sharing: &Arc<Sharing>,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let open = self.open.lock().clone();
        open.iter()
            .filter(|socket| Arc::ptr_eq(socket.socket.sharing(), sharing))
            .try_for_each(|socket| socket.stop_blocking(waiter))
    }

    /// Ends all of them. False if a thread may not be woken.
    pub(crate) fn end(&self) -> bool {
        let open = self.open.lock().clone();
        // Each of them: `all` would stop at the first.
        open.iter().filter(|socket| !socket.end()).count() == 0
    }

    /// Wakes the threads that wait until the deadline of a stop.
    fn wake(&self) -> bool {
        let open = self.open.lock().clone();
        open.iter().filter(|socket| !socket.notifier.set()).count() == 0
    }

    /// The number of a new peer, from 1.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Relaxed) + 1
    }
}

impl ShutdownListener for DatagramSockets {
    fn begun(&self) -> bool {
        self.end()
    }

    fn deadline_moved(&self) -> bool {
        self.wake()
    }
}
