//! A blocking stream, in either role. It is a client's socket, or a connection that a server gave
//! to a thread of its caller. Owns one descriptor, which several threads may use at once; must
//! never read ahead of what a call returns, nor make the descriptor non-blocking unless asked.
//!
//! A client may use UDP, which preserves message boundaries: `datagram` has the calls for that.
//! `connect` connects, `transfer` receives and sends, `wait` waits, `spin` is the start of a wait,
//! and `owner` is the link to a server.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicU16, AtomicU32, Ordering::Relaxed, Ordering::SeqCst,
};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use socket2::{Domain, SockRef};

use super::deadline::Deadline;
use super::option::{MOST_FILTER, OptionValue, TIMEOUTS, is_of_outer, set_option};
use super::owner::{DeferredClose, Outer, Owned, Staging};
use super::preface::Preface;
use super::slot::{Slot, StreamSocket};
use super::spin::Spin;
use crate::net::address::{Address, ConnectSource, Transport};
use crate::net::base::{Origin, Waiter};
use crate::net::error::{Error, Result};
use crate::net::ledger::{ClosedBy, Record, SocketClose};
use crate::net::socket::{Socket, SocketOptions, TcpInfo, close_resets};
use crate::net::sys;

/// What calls have seen of a stream's end, as bits. They decide who ended it.
pub(crate) mod seen {
    /// The peer has finished.
    pub(crate) const END: u16 = 1;
    /// The peer has reset the connection.
    pub(crate) const RESET: u16 = 2;
    /// This side has shut down reading, so that an end says nothing about the peer.
    pub(crate) const READS_ENDED: u16 = 4;
    /// The descriptor was duplicated: closing one number does not end the connection.
    pub(crate) const DUPLICATED: u16 = 8;
    /// SO_LINGER was set: a close may block.
    pub(crate) const LINGERS: u16 = 16;
    /// The server resets the connection: no FIN may be sent before.
    pub(crate) const FORCED: u16 = 32;
    /// SO_RCVLOWAT was set: a blocking receive waits for that many bytes.
    pub(crate) const LOWAT: u16 = 64;
    /// SO_RCVTIMEO or SO_SNDTIMEO was set: a time-out of the kernel's own.
    pub(crate) const TIMEO: u16 = 128;
    /// SO_PEEK_OFF was set: a peek does not begin where a receive does.
    pub(crate) const PEEK_OFF: u16 = 256;
    /// TLS was begun.
    pub(crate) const TLS: u16 = 512;
}

/// One end of a connection.
#[derive(Debug)]
pub struct Stream {
    slot: Slot,
    pub(crate) closed: AtomicBool,
    /// In nanoseconds. Negative means no time-out.
    pub(crate) timeout: AtomicI64,
    pub(crate) transport: Transport,
    pub(crate) options: SocketOptions,
    /// How a client connects. None for an accepted stream.
    pub(super) connecting: Option<Box<Connecting>>,
    pub(crate) spin: Spin,
    /// Whether the last receive had to wait, so that the next one probably has to as well.
    pub(super) last_receive_waited: AtomicBool,
    /// How often another socket has replaced this one.
    pub(crate) renewals: AtomicU32,
    /// Kept so that it is known after the close.
    pub(crate) family: AtomicI32,
    /// Bits of `seen`.
    pub(crate) seen: AtomicU16,
    /// Its record, set once the stream is connected.
    pub(crate) record: OnceLock<Arc<Record>>,
    /// The link to the server that accepted the stream, or to the worker of a client with stages
    /// once it is connected. Belongs to the process of that one: see `owned()`.
    pub(super) owned: OnceLock<Owned>,
}

/// How a client connects.
#[derive(Debug)]
pub(super) struct Connecting {
    /// The address to connect from.
    pub(super) source: Option<ConnectSource>,
    /// For how long `connect` tries again after a failure.
    pub(super) retry: Option<Duration>,
    /// What puts stages into the connection.
    pub(super) staging: Option<Arc<dyn Staging>>,
    /// The header that comes before its first byte.
    pub(super) preface: Option<Preface>,
}

/// The socket during one call.
pub(crate) struct Held<'a> {
    pub(crate) socket: Option<Arc<StreamSocket>>,
    pub(crate) owned: Option<&'a Owned>,
}

impl Deref for Held<'_> {
    type Target = StreamSocket;

    fn deref(&self) -> &StreamSocket {
        self.socket.as_ref().expect("taken by drop only")
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.socket = None;
        if let Some(owned) = self.owned {
            let _ = CALLS.try_with(|calls| calls.borrow_mut().pop());
            owned.call_ended();
        }
    }
}

thread_local! {
    /// The accepted streams whose calls this thread is in, the innermost last. There may be
    /// several: a signal handler runs within a call that waits.
    static CALLS: RefCell<Vec<*const Stream>> = const { RefCell::new(Vec::new()) };
}

/// Whether the calling thread is in a call of this stream.
pub(crate) fn is_in_call(stream: *const Stream) -> bool {
    CALLS.try_with(|calls| calls.borrow().contains(&stream)).unwrap_or(false)
}

impl Stream {
    /// Opens an unconnected socket: socket(2). A `spin` of zero disables spinning. Blocks while the
    /// name of a UDP socket's source is resolved.
    pub fn new(
        transport: Transport,
        timeout: Option<Duration>,
        options: SocketOptions,
        source: Option<ConnectSource>,
        spin: Duration,
        retry: Option<Duration>,
        waiter: &mut dyn Waiter,
    ) -> Result<Self> {
        crate::net::base::watch();
        // A UDP socket can receive without a connect, so it is bound now. For TCP the target
        // decides.
        let bound = match source.as_ref().filter(|_| transport == Transport::Udp) {
            Some(source) => source.addresses(None, waiter)?.first(),
            None => None,
        };
        let domain = if transport.is_unix() {
            options.check_unix()?;
            Domain::UNIX
        } else {
            bound.map_or(Domain::IPV4, Domain::for_address)
        };
        let failed = |error: io::Error| Error::os("create", "", &error);
        let socket = Socket::open(transport, domain).map_err(failed)?;
        options.apply(&socket, transport).map_err(failed)?;
        if let Some(bound) = bound {
            Self::bind_source(&socket, bound)?;
        }
        if transport == Transport::UnixDatagram {
            Self::bind_to_any_name(&socket).map_err(failed)?;
        }
        options.check_multicast(transport)?;
        options.join_groups(&socket, domain)?;
        let slot = Slot::new(socket, Origin::here(), None);
        let mut stream = Self::with(slot, transport, domain, options);
        stream.connecting =
            Some(Box::new(Connecting { source, retry, staging: None, preface: None }));
        stream.spin = Spin::new(spin);
        stream.set_timeout(timeout)?;
        Ok(stream)
    }

    /// A stream without a socket, which is closed from the start. Opens nothing.
    #[must_use]
    pub fn closed() -> Self {
        let options = SocketOptions::default();
        let stream = Self::with(Slot::empty(), Transport::Tcp, Domain::IPV4, options);
        stream.closed.store(true, SeqCst);
        stream
    }

    /// Makes the stream of an accepted connection. It does not spin: a client may take any time,
    /// and other handlers need the CPU.
    pub(crate) fn accepted(
        socket: Socket,
        family: Domain,
        options: SocketOptions,
        record: Arc<Record>,
        owned: Owned,
    ) -> Self {
        let slot = Slot::new(socket, owned.origin, Some(record.remote().address));
        let mut stream = Self::with(slot, record.transport(), family, options);
        stream.record = OnceLock::from(record);
        stream.owned = OnceLock::from(owned);
        stream
    }

    /// A stream that has not been used. It does not spin, and does not know how to connect.
    fn with(slot: Slot, transport: Transport, domain: Domain, options: SocketOptions) -> Self {
        Self {
            slot,
            closed: AtomicBool::new(false),
            timeout: AtomicI64::new(-1),
            transport,
            options,
            connecting: None,
            spin: Spin::new(Duration::ZERO),
            last_receive_waited: AtomicBool::new(false),
            renewals: AtomicU32::new(0),
            family: AtomicI32::new(domain.into()),
            seen: AtomicU16::new(0),
            record: OnceLock::new(),
            owned: OnceLock::new(),
        }
    }

    /// What this process has of the stream. A forked child uses an inherited stream as it would use
    /// an inherited socket.
    pub(super) fn slot(&self) -> &Slot {
        self.slot.here()
    }

    /// The link to the server. None in a forked child, which does not have the server's threads:
    /// the ledger, the limits and a stop concern the parent only.
    pub(super) fn owned(&self) -> Option<&Owned> {
        self.owned.get().filter(|_| self.is_here())
    }

    /// Whether it has a server in this process.
    fn has_server(&self) -> bool {
        self.is_accepted() && self.is_here()
    }

    /// The socket during one call. EBADF once the stream is closed.
    pub(crate) fn hold(&self, step: &'static str) -> Result<Held<'_>> {
        let socket = self.slot().socket.lock().clone();
        if socket.is_none() {
            return Err(self.closed_error(step));
        }
        let owned = self.owned();
        if owned.is_some() {
            let _ = CALLS.try_with(|calls| calls.borrow_mut().push(ptr::from_ref(self)));
        }
        Ok(Held { socket, owned })
    }

    /// Whether this is one end of a socket pair, and its connection is another socket's.
    pub(crate) fn is_inner(&self) -> bool {
        self.owned.get().is_some_and(|owned| owned.outer().is_some())
    }

    /// The outer connection, where this is one end of a socket pair.
    pub(super) fn outer(&self) -> Option<&dyn Outer> {
        self.owned()?.outer()
    }

    /// The record, where this is one end of a socket pair, whose own addresses say nothing.
    fn outer_record(&self) -> Option<&Arc<Record>> {
        self.owned.get()?.outer()?;
        self.record.get()
    }

    /// EBADF, saying who closed it.
    pub(crate) fn closed_error(&self, step: &'static str) -> Error {
        let by_server = self.owned().is_some_and(Owned::ended_by_stop);
        Error::closed(
            step,
            match (self.is_accepted(), by_server) {
                (false, _) => "the client is closed",
                (true, false) => "the connection is closed",
                (true, true) => "the server has stopped, which closed the connection",
            },
        )
    }

    pub(crate) fn saw(&self, bit: u16) {
        self.seen.fetch_or(bit, SeqCst);
    }

    pub(crate) fn unsee(&self, bit: u16) {
        self.seen.fetch_and(!bit, SeqCst);
    }

    pub(crate) fn has_seen(&self, bit: u16) -> bool {
        self.seen.load(SeqCst) & bit != 0
    }

    /// Notes that a receive returned the end.
    pub(crate) fn saw_end(&self) {
        // An end after this side's own shutdown says nothing about the peer.
        if !self.has_seen(seen::READS_ENDED) {
            self.saw(seen::END);
        }
    }

    pub(crate) fn saw_error(&self, error: &io::Error) {
        if matches!(error.raw_os_error(), Some(libc::ECONNRESET | libc::EPIPE | libc::ECONNREFUSED))
        {
            self.saw(seen::RESET);
        }
    }

    /// Its record: from the start for an accepted stream, from the connection on for a client. In a
    /// forked child it stays as it was at the fork.
    #[must_use]
    pub fn record(&self) -> Option<&Arc<Record>> {
        if self.record.get().is_none() && self.is_here() {
            self.note_connected(false, None);
        }
        self.record.get()
    }

    /// Whether `close` or `detach` was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// The process that made the stream.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.slot.origin
    }

    /// Whether the calling process made the stream.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.slot.origin.is_here()
    }

    /// The time-out of every call. None waits without limit, zero does not wait.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        u64::try_from(self.timeout.load(Relaxed)).ok().map(Duration::from_nanos)
    }

    /// Sets the time-out. Zero makes the descriptor non-blocking, any other value blocking.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<()> {
        let nanos =
            timeout.map_or(-1, |timeout| i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX));
        let socket = self.hold("settimeout")?;
        let was = self.timeout.swap(nanos, Relaxed);
        // A duplicate shares the flag, and changes it for a time-out of its own.
        if (was == 0) != (nanos == 0) || self.has_seen(seen::DUPLICATED) {
            socket
                .options()
                .set_nonblocking(nanos == 0)
                .map_err(|error| Error::os("settimeout", "", &error))?;
        }
        Ok(())
    }

    /// The deadline of a call. Flags that forbid waiting make it zero.
    pub(crate) fn deadline(&self, flags: i32) -> Deadline {
        // The error queue is not input: poll does not wait for it, and neither does recv(2).
        let waits = flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE) == 0;
        Deadline::new(if waits { self.timeout() } else { Some(Duration::ZERO) })
    }

    /// The deadline of a receive.
    pub(crate) fn receive_deadline(&self, flags: i32) -> Deadline {
        // Urgent data is never waited for, recv(2): EAGAIN says that its byte has not arrived yet,
        // and poll(2) reports the input before it.
        let flags = if flags & libc::MSG_OOB == 0 { flags } else { libc::MSG_DONTWAIT };
        self.or_option(self.deadline(flags), |socket| socket.read_timeout())
    }

    /// The deadline of a send.
    pub(crate) fn send_deadline(&self, flags: i32) -> Deadline {
        self.or_option(self.deadline(flags), |socket| socket.write_timeout())
    }

    /// The deadline by the socket's own option, if there is no other.
    fn or_option(
        &self,
        deadline: Deadline,
        ask: impl FnOnce(&SockRef<'_>) -> io::Result<Option<Duration>>,
    ) -> Deadline {
        // A duplicate may have set it.
        if deadline.timeout.is_some() || !self.has_seen(seen::TIMEO | seen::DUPLICATED) {
            return deadline;
        }
        let socket = self.slot().socket.lock().clone();
        let timeout = socket.and_then(|socket| ask(&socket.options()).ok().flatten());
        Deadline { timeout, at: None, is_option: timeout.is_some() }
    }

    /// The number of the descriptor. -1 once closed.
    #[must_use]
    pub fn fileno(&self) -> RawFd {
        self.slot().fileno()
    }

    /// The last connected peer, for messages. A socket that was reset no longer knows its peer.
    pub(crate) fn peer_text(&self) -> String {
        match &*self.slot().peer.lock() {
            // Most clients of a Unix socket have no name. The address of the server helps more.
            Some(Address::Unix(name)) if name.is_unnamed() => {
                self.record.get().map_or_else(String::new, |record| record.local().to_string())
            }
            peer => peer.as_ref().map_or_else(String::new, Address::to_string),
        }
    }

    /// Calls shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        let socket = self.hold("shutdown")?;
        if how != Shutdown::Write {
            self.saw(seen::READS_ENDED);
        }
        socket.shutdown(how).map_err(|error| Error::os("shutdown", self.peer_text(), &error))
    }

    /// Closes the stream, with FIN after the data. Calls of other threads end with EBADF; the
    /// descriptor is freed when the last of them returns. A second close has no effect.
    ///
    /// The connection of a handler whose peer may still be sending lingers on a worker. That begins
    /// with the drop of the value returned, which may start a thread.
    pub fn close(&self) -> Option<DeferredClose> {
        self.end(self.closed_by(), None)
    }

    /// The same without waiting for the peer, whatever SO_LINGER says.
    pub fn close_unawaited(&self) -> Option<DeferredClose> {
        self.end_as(self.closed_by(), None, false)
    }

    /// What ended the stream, if no caller has given a reason.
    pub(crate) fn closed_by(&self) -> ClosedBy {
        if self.has_seen(seen::RESET) {
            ClosedBy::Reset
        } else if self.has_seen(seen::END) {
            ClosedBy::Peer
        } else if self.draining() {
            ClosedBy::Stop
        } else {
            ClosedBy::Local
        }
    }

    pub(crate) fn end(&self, by: ClosedBy, error: Option<String>) -> Option<DeferredClose> {
        self.end_as(by, error, true)
    }

    /// The same. `may_wait` is whether the caller waits as long as SO_LINGER says.
    fn end_as(&self, by: ClosedBy, error: Option<String>, may_wait: bool) -> Option<DeferredClose> {
        let socket = self.take()?;
        if self.leave_outer(&socket) {
            self.settle(by, error.clone(), SocketClose::Reset(socket.as_fd()));
        }
        let socket = match self.settle_or_linger(socket, by, error) {
            Ok(deferred) => return Some(deferred),
            Err(socket) => socket,
        };
        let duplicated = self.has_server() && self.has_seen(seen::DUPLICATED);
        // In a forked child, a shutdown would end the connection of the parent.
        let shared = duplicated || self.is_here() && Arc::strong_count(&socket) > 1;
        if shared && !self.has_seen(seen::FORCED) {
            if close_resets(&socket.as_fd()) {
                // A FIN ahead of the reset would be an orderly end.
                socket.reset();
            } else {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
        match Arc::try_unwrap(socket) {
            Ok(socket) if may_wait && self.has_chosen_linger() => socket.close(),
            // A duplicate goes on as it was, with its SO_LINGER.
            Ok(socket) if !self.has_server() => socket.close_apart(),
            // A server waits for no close, whatever a listener or a duplicate has set.
            socket => drop(socket),
        }
        self.notify_closed();
        None
    }

    /// Tells the outer connection of a close that leaves no other descriptor to it. Returns whether
    /// SO_LINGER makes that close a reset, of which the pair knows nothing.
    fn leave_outer(&self, socket: &StreamSocket) -> bool {
        let Some(owned) = self.owned().filter(|owned| owned.outer().is_some()) else {
            return false;
        };
        if socket.is_shared() {
            return false;
        }
        owned.owner.abandon();
        close_resets(&socket.as_fd())
    }

    /// Whether a close by the program waits as SO_LINGER says: on a client, or where the program
    /// has set it by this stream.
    fn has_chosen_linger(&self) -> bool {
        !self.has_server() || self.has_seen(seen::LINGERS) || self.options.linger.is_some()
    }

    /// Closes the record of a socket that no call can reach any more. If a close might lose unsent
    /// data, returns the lingering close.
    pub(crate) fn settle_or_linger(
        &self,
        socket: Arc<StreamSocket>,
        by: ClosedBy,
        error: Option<String>,
    ) -> std::result::Result<DeferredClose, Arc<StreamSocket>> {
        // The record is closed before the socket, so that a peer that sees the end finds the record
        // complete.
        let Some((owned, record, until)) = self.linger_until(&socket) else {
            // Another copy of the descriptor goes on with the connection.
            let is_shared = !self.has_server() && socket.is_shared();
            let close = if is_shared { SocketClose::None } else { self.plain_close(&socket) };
            self.settle(by, error, close);
            return Err(socket);
        };
        // A lingering socket has no other user.
        let socket = Arc::try_unwrap(socket)?.into_socket();
        Ok(owned.owner.linger(socket, record, until, by, error))
    }

    /// Resets the connection. Unsent data is lost.
    pub fn abort(&self) {
        if let Some(socket) = self.take() {
            if let Some(owned) = self.owned() {
                owned.owner.abandon();
            }
            self.settle(ClosedBy::Local, None, SocketClose::Reset(socket.as_fd()));
            match Arc::try_unwrap(socket) {
                Ok(socket) if !self.has_seen(seen::DUPLICATED) => socket.into_socket().abort(),
                Ok(socket) => socket.reset(),
                // Other calls still hold the socket. The connection ends at once all the same.
                Err(shared) => shared.reset(),
            }
            self.notify_closed();
        }
    }

    /// Closes the record. Only the first call has an effect.
    pub(crate) fn settle(&self, by: ClosedBy, error: Option<String>, close: SocketClose<'_>) {
        if let Some(owned) = self.owned() {
            owned.owner.settle(by, error, close);
        } else if let Some(record) = self.record.get().filter(|_| self.is_here()) {
            let tcp_info = record.last_tcp_info(None);
            record.note_close(close, by, tcp_info.as_ref());
            record.close(by, error, tcp_info);
        }
    }

    /// A close that is a reset only where SO_LINGER or unread data makes it one. The option costs a
    /// system call, and is asked for where it may have been set.
    pub(super) fn plain_close<'a>(&self, socket: &'a Socket) -> SocketClose<'a> {
        let close = SocketClose::Plain { socket: socket.as_fd(), resets: false };
        let may_be_set = self.has_seen(seen::LINGERS | seen::DUPLICATED);
        if may_be_set || self.options.linger.is_some() { close.with_linger() } else { close }
    }

    /// Notifies the server that the descriptor is closed.
    pub(crate) fn notify_closed(&self) {
        if let Some(owned) = self.owned() {
            owned.owner.socket_closed();
        }
    }

    pub(crate) fn take(&self) -> Option<Arc<StreamSocket>> {
        // Opens the record of a client whose connect has completed by now.
        let _ = self.record();
        self.closed.store(true, SeqCst);
        let slot = self.slot();
        if let Some(flag) = &*slot.racing.lock() {
            flag.set();
        }
        slot.take()
    }

    /// Gives up the descriptor without closing it. -1 if it is closed. EBUSY while another thread's
    /// call uses it.
    pub fn detach(&self) -> Result<RawFd> {
        let _ = self.record();
        match self.slot().take_idle() {
            Ok(socket) => {
                self.closed.store(true, SeqCst);
                self.settle(ClosedBy::Detached, None, SocketClose::None);
                self.notify_closed();
                Ok(socket.into_socket().into_number())
            }
            Err(false) => Ok(-1),
            Err(true) => Err(Error::errno("detach", self.peer_text(), libc::EBUSY)),
        }
    }

    /// Duplicates the descriptor: fcntl(2), F_DUPFD_CLOEXEC. Closing a server's connection here
    /// ends it for the duplicate as well.
    pub fn duplicate(&self) -> Result<OwnedFd> {
        let socket = self.hold("to_socket")?;
        let duplicate = socket.as_fd().try_clone_to_owned();
        self.saw(seen::DUPLICATED);
        if !self.has_server() {
            socket.share();
        }
        duplicate.map_err(|error| Error::os("to_socket", self.peer_text(), &error))
    }

    pub(crate) fn address(
        &self,
        step: &'static str,
        ask: impl FnOnce(&SockRef<'_>) -> io::Result<socket2::SockAddr>,
    ) -> Result<Address> {
        let socket = self.hold(step)?;
        let address = ask(&socket.options()).map_err(|error| Error::os(step, "", &error))?;
        Address::from_raw(&address).ok_or_else(|| Error::errno(step, "", libc::EAFNOSUPPORT))
    }

    /// Calls getsockname(2).
    pub fn local_address(&self) -> Result<Address> {
        if let Some(record) = self.outer_record() {
            return self.hold("getsockname").map(|_| record.local().address);
        }
        self.address("getsockname", |socket| socket.local_addr())
    }

    /// Calls getpeername(2).
    pub fn peer_address(&self) -> Result<Address> {
        if let Some(record) = self.outer_record() {
            return self.hold("getpeername").map(|_| record.remote().address);
        }
        self.address("getpeername", |socket| socket.peer_addr())
    }

    /// The address family: AF_INET, AF_INET6 or AF_UNIX. Also known after the close.
    #[must_use]
    pub fn family(&self) -> i32 {
        self.family.load(Relaxed)
    }

    /// The protocol number of TCP or UDP. 0 for a Unix socket.
    #[must_use]
    pub fn protocol(&self) -> i32 {
        match self.transport() {
            Transport::Tcp => libc::IPPROTO_TCP,
            Transport::Udp => libc::IPPROTO_UDP,
            Transport::Unix | Transport::UnixDatagram => 0,
        }
    }

    /// Whether this is a Unix socket.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.family() == libc::AF_UNIX
    }

    /// TCP_INFO and TCP_CONGESTION of the socket, tcp(7). EOPNOTSUPP on a Unix socket.
    pub fn tcp_info(&self) -> Result<TcpInfo> {
        let socket = self.hold("tcp_info")?;
        if self.is_unix() {
            return Err(Error::Os {
                step: "tcp_info",
                target: self.peer_text(),
                errno: libc::EOPNOTSUPP,
                hint: "a Unix socket has no TCP".to_owned(),
            });
        }
        let failed = |error: io::Error| Error::os("tcp_info", "", &error);
        let Some(outer) = self.outer() else {
            return TcpInfo::of(socket.as_fd(), None).map_err(failed);
        };
        let mut info = None;
        let asked = outer.with_socket(&mut |number| {
            info = Some(TcpInfo::of(number, None)?);
            Ok(())
        });
        asked.map_err(failed)?;
        Ok(info.expect("set where there was no error"))
    }

    /// Calls getsockopt(2). Returns up to `length` bytes.
    pub fn getsockopt(&self, level: i32, name: i32, length: usize) -> Result<Vec<u8>> {
        let mut value = vec![0; length];
        let length = self.ask_option(level, name, &mut value)?;
        value.truncate(length);
        Ok(value)
    }

    /// Calls getsockopt(2) for an option whose value is an int. Of SO_GET_FILTER, that is the
    /// number of instructions.
    pub fn getsockopt_int(&self, level: i32, name: i32) -> Result<i32> {
        if (level, name) == (libc::SOL_SOCKET, libc::SO_GET_FILTER) {
            let count = self.ask_option(level, name, &mut [])?;
            return Ok(i32::try_from(count).unwrap_or(i32::MAX));
        }
        let mut value = [0; size_of::<i32>()];
        self.ask_option(level, name, &mut value)?;
        Ok(i32::from_ne_bytes(value))
    }

    fn ask_option(&self, level: i32, name: i32, value: &mut [u8]) -> Result<usize> {
        let socket = self.hold("getsockopt")?;
        let mut length = 0;
        let mut ask = |number| {
            length = sys::getsockopt(number, level, name, value)?;
            Ok(())
        };
        match self.outer().filter(|_| is_of_outer(level, name)) {
            Some(outer) => outer.with_socket(&mut ask),
            None => ask(socket.as_fd().as_raw_fd()),
        }
        .map_err(|error| Error::os("getsockopt", "", &error))?;
        Ok(length)
    }

    /// Whether a close may block, which requires SO_LINGER.
    #[must_use]
    pub fn may_linger(&self) -> bool {
        // A duplicate may have set it as well.
        let waits =
            |socket: &Arc<StreamSocket>| socket.linger().is_some_and(|time| !time.is_zero());
        self.has_chosen_linger() && self.slot().socket.lock().as_ref().is_some_and(waits)
    }

    /// Calls setsockopt(2).
    pub fn setsockopt(&self, level: i32, name: i32, value: OptionValue) -> Result<()> {
        let socket = self.hold("setsockopt")?;
        match self.outer().filter(|_| is_of_outer(level, name)) {
            Some(outer) => outer.with_socket(&mut |number| set_option(number, level, name, &value)),
            None => set_option(socket.as_fd(), level, name, &value),
        }
        .map_err(|error| Error::os("setsockopt", "", &error))?;
        if (level, name) == (libc::SOL_SOCKET, libc::SO_LINGER) {
            self.saw(seen::LINGERS);
        }
        if (level, name) == (libc::SOL_SOCKET, libc::SO_RCVLOWAT) {
            self.saw(seen::LOWAT);
        }
        if (level, name) == (libc::SOL_SOCKET, libc::SO_PEEK_OFF) {
            self.saw(seen::PEEK_OFF);
        }
        if level == libc::SOL_SOCKET && TIMEOUTS.contains(&name) {
            self.saw(seen::TIMEO);
        }
        if socket.options().peer_addr().is_err() {
            // Not connected yet. `connect` may have to replace the socket. By then the memory of a
            // filter may be gone.
            let is_filter = (level, name) == (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
            let value = match is_filter {
                true => OptionValue::Filter(self.getsockopt(level, name, MOST_FILTER)?),
                false => value,
            };
            let mut options = self.slot().set_options.lock();
            options.retain(|&(other, of, _)| (other, of) != (level, name));
            options.push((level, name, value));
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_here() {
            // The last reference may be dropped anywhere, and nothing waits for it.
            self.close_unawaited();
        } else {
            // In a forked child the descriptor is a copy, and the rest belongs to the parent.
            self.slot.leave();
            std::mem::forget(self.owned.take());
        }
    }
}
