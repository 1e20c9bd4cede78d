//! One UDP socket of a server. Owns how its thread waits for datagrams and learns of the end; must
//! never receive or send one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::amplification::PortClaim;
use super::fault_changes::FaultChanges;
use crate::net::address::{Address, UnixName, canonical, reachable};
use crate::net::base::{EventFd, Mutex, Waiter, poll_or_sleep, poll_own};
use crate::net::control::ShutdownListener;
use crate::net::error::{Error, Result};
use crate::net::socket::{Listener, Sharing};
use crate::net::stage::faults::FaultSet;
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
/// How many it sends at once at most. It begins with one.
const MOST_WAKE_UPS: usize = 8;

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
    /// Those of all sockets on the port: the system chooses which of them gets a datagram.
    wake_ups: Arc<WakeUps>,
    /// Set when the server ends, when the deadline of its stop moves closer, and when a thread that
    /// waits for room can continue.
    pub(crate) notifier: Arc<EventFd>,
    /// Tells other processes that a server answers here.
    _claim: Option<PortClaim>,
}

impl DatagramSocket {
    pub(super) fn new(
        socket: Listener,
        local: &Address,
        sockets: &DatagramSockets,
    ) -> io::Result<Self> {
        let notifier = Arc::new(EventFd::new()?);
        let claim = local.as_ip().and_then(PortClaim::new);
        Ok(Self {
            socket,
            local: local.clone(),
            ended: AtomicBool::new(false),
            blocks: AtomicBool::new(false),
            change: Mutex::new(None),
            changing: AtomicBool::new(false),
            wake_ups: Arc::clone(&sockets.wake_ups),
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
    /// queue full. So is one that has faults: what a fault holds has its time.
    pub(super) fn allow_blocking(&self, faults: &FaultSet, changes: &FaultChanges) {
        if self.is_unix() {
            return;
        }
        self.blocks.store(true, SeqCst);
        // After the store, so that a change of the users or of the faults that comes now finds it.
        if self.socket.sharing().has_others()
            || !faults.is_empty()
            || changes.is_pending()
            || self.changing.load(SeqCst)
        {
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
        if if *blocking { !self.blocks() } else { self.changing.load(Relaxed) } {
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
        self.wake_ups.is_one(from)
    }

    /// Makes the socket's thread wait in poll(2) from now on, because others use the socket too: a
    /// shutdown, which is what ends a blocking receive, would reach them as well. Returns when the
    /// thread has noticed.
    ///
    /// A receive that blocks is ended by a datagram to the socket itself, which the thread ignores.
    /// The thread may be busy, or a filter may drop the datagram: that ends the wait after a
    /// second. After an error, the thread waits as before.
    ///
    /// `step` is the caller's own, for errors.
    pub(crate) fn stop_blocking(&self, step: &'static str, waiter: &mut dyn Waiter) -> Result<()> {
        if !self.blocks.load(SeqCst) {
            return Ok(());
        }
        let failed = |error: io::Error| Error::os(step, &self.local, &error);
        let done = Arc::new(EventFd::new().map_err(failed)?);
        *self.change.lock() = Some(Change::new(&done));
        self.changing.store(true, SeqCst);
        self.blocks.store(false, SeqCst);
        // For a thread that waits for something else than a datagram.
        self.notifier.set();
        let mut senders = Vec::new();
        let result = self.wake(step, &done, &mut senders, waiter);
        self.wake_ups.forget(&senders);
        self.changing.store(false, SeqCst);
        *self.change.lock() = None;
        if result.is_err() {
            // The thread may still wait in the receive call.
            self.blocks.store(true, SeqCst);
        }
        result
    }

    /// Sends from sockets that it adds to `senders`, each time from another one: of several sockets
    /// on the port, the system chooses one by the sender.
    fn wake(
        &self,
        step: &'static str,
        done: &Arc<EventFd>,
        senders: &mut Vec<UdpSocket>,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let failed = |error: io::Error| Error::os(step, &self.local, &error);
        let end = Instant::now() + WAKE_UP;
        let mut turns = 0;
        loop {
            let turn = end.min(Instant::now() + WAKE_UP_TURN);
            let _ = waiter.wait(&mut [done.polled()], Some(turn))?;
            done.clear();
            let is_known = self.change.lock().as_ref().is_none_or(|change| change.is_known);
            let is_late = end <= Instant::now();
            // None of what was sent must be left to those who get the socket.
            if self.has_ended() || is_known && (is_late || self.wake_ups.all_seen(senders)) {
                return Ok(());
            }
            if is_late {
                return Err(Error::TimedOut { step, target: self.local.to_string() });
            }
            if is_known {
                continue;
            }
            let Some(local) = self.local.as_ip() else { return Ok(()) };
            turns += 1;
            for _ in 0..turns.min(MOST_WAKE_UPS) {
                let sender = wake_up_sender(local).map_err(failed)?;
                self.wake_ups.expect(&sender, done);
                // An error, as of a filter: tried again until the end.
                if sender.send(&[]).is_ok() {
                    senders.push(sender);
                } else {
                    self.wake_ups.forget(&[sender]);
                }
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

    /// The same while the server ends: the notifier is set when the deadline of the stop has moved.
    /// An error if the program has closed it.
    pub(super) fn wait_in_drain(&self, until: Instant) -> io::Result<()> {
        let polled = poll_own(&mut [self.notifier.polled()], Some(until));
        self.notifier.clear();
        polled.map(drop)
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
    /// Set when the thread knows of it.
    done: Arc<EventFd>,
    is_known: bool,
}

impl Change {
    fn new(done: &Arc<EventFd>) -> Self {
        Self { done: Arc::clone(done), is_known: false }
    }
}

/// The datagrams that wake the threads of one server's sockets.
#[derive(Default)]
struct WakeUps {
    expected: Mutex<Vec<WakeUp>>,
    /// Whether there are some, for the threads, which take no lock to find out.
    any: AtomicBool,
}

struct WakeUp {
    from: SocketAddr,
    is_seen: bool,
    /// Set when it is seen.
    done: Arc<EventFd>,
}

/// The address of a sender as its receivers see it.
fn address_of(sender: &UdpSocket) -> Option<SocketAddr> {
    sender.local_addr().ok().map(canonical)
}

impl WakeUps {
    fn expect(&self, sender: &UdpSocket, done: &Arc<EventFd>) {
        if let Some(from) = address_of(sender) {
            let done = Arc::clone(done);
            self.expected.lock().push(WakeUp { from, is_seen: false, done });
            self.any.store(true, SeqCst);
        }
    }

    fn is_one(&self, from: &Address) -> bool {
        if !self.any.load(Relaxed) {
            return false;
        }
        let mut expected = self.expected.lock();
        let Some(found) = expected.iter_mut().find(|one| Some(one.from) == from.as_ip()) else {
            return false;
        };
        found.is_seen = true;
        found.done.set();
        true
    }

    fn all_seen(&self, senders: &[UdpSocket]) -> bool {
        let expected = self.expected.lock();
        let is_seen = |from| expected.iter().any(|one| one.from == from && one.is_seen);
        senders.iter().filter_map(address_of).all(is_seen)
    }

    fn forget(&self, senders: &[UdpSocket]) {
        let gone: Vec<_> = senders.iter().filter_map(address_of).collect();
        let mut expected = self.expected.lock();
        expected.retain(|one| !gone.contains(&one.from));
        self.any.store(!expected.is_empty(), SeqCst);
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
    wake_ups: Arc<WakeUps>,
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
            .try_for_each(|socket| socket.stop_blocking("hand_over", waiter))
    }

    /// Makes the threads of all sockets wait in poll(2), so that they notice a change of the faults.
    pub(crate) fn stop_all_blocking(&self, waiter: &mut dyn Waiter) -> Result<()> {
        let open = self.open.lock().clone();
        open.iter().try_for_each(|socket| socket.stop_blocking("fault", waiter))
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
}

impl ShutdownListener for DatagramSockets {
    fn begun(&self) -> bool {
        self.end()
    }

    fn deadline_moved(&self) -> bool {
        self.wake()
    }
}
