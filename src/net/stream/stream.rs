//! A blocking stream, in either role: a client's socket, or a connection that a server gave to a
//! thread of its caller's. Owns one descriptor that calls of several threads may use at once; must
//! never read ahead of what a call returns, nor change the descriptor to non-blocking unless asked.
//!
//! A client may be one of UDP, whose messages have borders: `datagram` is what only that can do.
//! `connect` is how a client connects, `transfer` how bytes are moved, `spin` how a wait begins, and
//! `owner` what a connection tells its server.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicU8, AtomicU32, Ordering::Relaxed, Ordering::SeqCst,
};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use socket2::{Domain, SockRef};

use super::deadline::Deadline;
use super::owner::{DeferredClose, Outer, Owned};
use super::spin::Spin;
use crate::net::address::{Address, Transport};
use crate::net::base::{Mutex, Origin};
use crate::net::error::{Error, Result};
use crate::net::ledger::{ClosedBy, Record};
use crate::net::socket::{Socket, SocketOptions, TcpInfo};
use crate::net::sys;

/// What was seen of a stream's end, as bits: it decides who ended it.
pub(crate) mod seen {
    /// The peer has finished.
    pub(crate) const END: u8 = 1;
    /// The peer has reset it.
    pub(crate) const RESET: u8 = 2;
    /// Our side does not read any more, so that an end says nothing of the peer.
    pub(crate) const READS_ENDED: u8 = 4;
    /// Its number was duplicated: closing ours alone would not end the connection.
    pub(crate) const DUPLICATED: u8 = 8;
    /// SO_LINGER was set: a close may wait for the peer.
    pub(crate) const LINGERS: u8 = 16;
    /// The server resets it: no FIN may get out before.
    pub(crate) const FORCED: u8 = 32;
    /// SO_RCVLOWAT was set: a receive that may wait waits for so much.
    pub(crate) const LOWAT: u8 = 64;
}

/// One end of a connection.
#[derive(Debug)]
pub struct Stream {
    /// Taken by `close`; calls that are under way hold a clone, and the last one frees the number.
    pub(crate) socket: Mutex<Option<Arc<Socket>>>,
    pub(crate) closed: AtomicBool,
    /// Nanoseconds; negative is no time-out.
    pub(crate) timeout: AtomicI64,
    pub(crate) transport: Transport,
    pub(crate) options: SocketOptions,
    /// What `setsockopt` was told, for the socket that takes this one's place in `connect`.
    pub(crate) told: Mutex<Vec<(i32, i32, OptionValue)>>,
    pub(crate) source: Option<SocketAddr>,
    pub(crate) peer: Mutex<Option<Address>>,
    /// Where a `connect` leads that was not waited for, until it is known to have got there.
    pub(crate) pending: Mutex<Option<Address>>,
    pub(crate) spin: Spin,
    /// How often another socket was put under its number.
    pub(crate) renewals: AtomicU32,
    /// Kept for after the close, as `socket` does.
    pub(crate) family: AtomicI32,
    pub(crate) origin: Origin,
    /// Bits of `seen`.
    pub(crate) seen: AtomicU8,
    /// Its account, from when it is connected.
    pub(crate) record: OnceLock<Arc<Record>>,
    /// What it owes to the server that accepted it; None for a client.
    pub(crate) owned: Option<Owned>,
}

/// The socket for the length of a call.
pub(crate) struct Held<'a> {
    pub(crate) socket: Option<Arc<Socket>>,
    pub(crate) owned: Option<&'a Owned>,
}

impl Deref for Held<'_> {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        self.socket.as_ref().expect("taken by drop only")
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.socket = None;
        if let Some(owned) = self.owned {
            owned.call_ended();
        }
    }
}

/// What setsockopt(2) is given.
#[derive(Clone, Debug)]
pub enum OptionValue {
    /// Bytes, as the kernel reads them.
    Bytes(Vec<u8>),
    /// No value, only a length.
    Length(u32),
}

impl Stream {
    /// Opens a socket and connects it to nothing: socket(2). `spin` of zero never spins.
    pub fn new(
        transport: Transport,
        timeout: Option<Duration>,
        options: SocketOptions,
        source: Option<SocketAddr>,
        spin: Duration,
    ) -> Result<Self> {
        crate::net::base::watch();
        let domain = if transport == Transport::Unix {
            options.check_unix()?;
            Domain::UNIX
        } else {
            source.map_or(Domain::IPV4, Domain::for_address)
        };
        let failed = |error: io::Error| Error::os("create", "", &error);
        let socket = Socket::open(transport, domain).map_err(failed)?;
        options.apply(&socket, transport).map_err(failed)?;
        if let Some(source) = source.filter(|_| transport == Transport::Udp) {
            // It may be heard from without ever connecting.
            Self::bind_source(&socket, source)?;
        }
        let stream = Self {
            socket: Mutex::new(Some(Arc::new(socket))),
            closed: AtomicBool::new(false),
            timeout: AtomicI64::new(-1),
            transport,
            options,
            told: Mutex::new(Vec::new()),
            source,
            peer: Mutex::new(None),
            pending: Mutex::new(None),
            spin: Spin::new(spin),
            renewals: AtomicU32::new(0),
            family: AtomicI32::new(domain.into()),
            origin: Origin::here(),
            seen: AtomicU8::new(0),
            record: OnceLock::new(),
            owned: None,
        };
        stream.set_timeout(timeout)?;
        Ok(stream)
    }

    /// A connection that a server accepted. It never spins: its peer is a client that owes nothing,
    /// and other handlers want the CPU.
    pub(crate) fn accepted(
        socket: Socket,
        family: Domain,
        options: SocketOptions,
        record: Arc<Record>,
        owned: Owned,
    ) -> Self {
        let origin = owned.origin;
        let remote = record.remote().address;
        Self {
            socket: Mutex::new(Some(Arc::new(socket))),
            closed: AtomicBool::new(false),
            timeout: AtomicI64::new(-1),
            transport: record.transport(),
            options,
            told: Mutex::new(Vec::new()),
            source: None,
            peer: Mutex::new(Some(remote)),
            pending: Mutex::new(None),
            spin: Spin::new(Duration::ZERO),
            renewals: AtomicU32::new(0),
            family: AtomicI32::new(family.into()),
            origin,
            seen: AtomicU8::new(0),
            record: OnceLock::from(record),
            owned: Some(owned),
        }
    }

    /// The socket for the length of a call: EBADF once it is closed.
    pub(crate) fn hold(&self, step: &'static str) -> Result<Held<'_>> {
        self.origin.check()?;
        let socket = self.socket.lock().clone();
        if socket.is_none() {
            return Err(self.closed_error(step));
        }
        Ok(Held { socket, owned: self.owned.as_ref() })
    }

    /// The outer connection, where this is one end of a socket pair.
    pub(super) fn outer(&self) -> Option<&dyn Outer> {
        self.owned.as_ref()?.outer.as_deref()
    }

    /// EBADF, saying who closed it.
    pub(crate) fn closed_error(&self, step: &'static str) -> Error {
        let by_server = self.owned.as_ref().is_some_and(Owned::ended_by_stop);
        Error::closed(
            step,
            match (&self.owned, by_server) {
                (None, _) => "the client is closed",
                (Some(_), false) => "the connection is closed",
                (Some(_), true) => "the server has stopped, which closed the connection",
            },
        )
    }

    pub(crate) fn saw(&self, bit: u8) {
        self.seen.fetch_or(bit, SeqCst);
    }

    pub(crate) fn unsee(&self, bit: u8) {
        self.seen.fetch_and(!bit, SeqCst);
    }

    pub(crate) fn has_seen(&self, bit: u8) -> bool {
        self.seen.load(SeqCst) & bit != 0
    }

    /// A receive found the end.
    pub(crate) fn saw_end(&self) {
        // One that our own side made says nothing of the peer.
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

    /// Its account: a connection's from the start, a client's from when it is connected.
    #[must_use]
    pub fn record(&self) -> Option<&Arc<Record>> {
        if self.record.get().is_none() && self.origin.is_here() {
            self.note_connected(false);
        }
        self.record.get()
    }

    /// Whether `close` or `detach` was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
    }

    /// The process that made it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Whether this is the process that made it.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.origin.is_here()
    }

    /// The time-out of every call; None waits for ever, zero never.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        u64::try_from(self.timeout.load(Relaxed)).ok().map(Duration::from_nanos)
    }

    /// Sets it. The descriptor becomes non-blocking at zero, and blocking at anything else.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<()> {
        let nanos =
            timeout.map_or(-1, |timeout| i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX));
        let socket = self.hold("settimeout")?;
        let was = self.timeout.swap(nanos, Relaxed);
        // A duplicate has the same flag, and sets it for a time-out of its own.
        if (was == 0) != (nanos == 0) || self.has_seen(seen::DUPLICATED) {
            socket
                .options()
                .set_nonblocking(nanos == 0)
                .map_err(|error| Error::os("settimeout", "", &error))?;
        }
        Ok(())
    }

    /// The time-out of a call: none at all where its flags forbid to wait.
    pub(crate) fn deadline(&self, flags: i32) -> Deadline {
        // The error queue is no input: nothing announces it, and recv(2) never waits for it.
        let waits = flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE) == 0;
        Deadline::new(if waits { self.timeout() } else { Some(Duration::ZERO) })
    }

    /// Number of the descriptor, -1 once closed.
    pub fn fileno(&self) -> Result<RawFd> {
        self.origin.check()?;
        Ok(self.socket.lock().as_ref().map_or(-1, |socket| socket.as_fd().as_raw_fd()))
    }

    /// Whom it was last connected to, for messages; a socket that was reset no longer knows.
    pub(crate) fn peer_text(&self) -> String {
        match &*self.peer.lock() {
            // Most clients of a Unix socket have no name; the server's says where it was.
            Some(Address::Unix(name)) if name.is_unnamed() => {
                self.record.get().map_or_else(String::new, |record| record.local().to_string())
            }
            peer => peer.as_ref().map_or_else(String::new, Address::to_string),
        }
    }

    /// shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        let socket = self.hold("shutdown")?;
        if how != Shutdown::Write {
            self.saw(seen::READS_ENDED);
        }
        socket.shutdown(how).map_err(|error| Error::os("shutdown", self.peer_text(), &error))
    }

    /// Ends it with FIN behind what was sent. Calls of other threads end with EBADF; the number is
    /// free when the last of them has left. Twice is once.
    ///
    /// A handler's connection whose peer may still be sending is ended by a worker: by what this
    /// returns, which is to be dropped where a thread may be started.
    pub fn close(&self) -> Option<DeferredClose> {
        self.end(self.verdict(), None)
    }

    /// Who ended it, where nobody says so.
    pub(crate) fn verdict(&self) -> ClosedBy {
        if self.has_seen(seen::RESET) {
            ClosedBy::Reset
        } else if self.has_seen(seen::END) {
            ClosedBy::Peer
        } else if self.owned.as_ref().is_some_and(Owned::is_draining) {
            ClosedBy::Stop
        } else {
            ClosedBy::Local
        }
    }

    pub(crate) fn end(&self, by: ClosedBy, error: Option<String>) -> Option<DeferredClose> {
        let socket = match self.part(self.take()?, by, error) {
            Ok(farewell) => return Some(farewell),
            Err(socket) => socket,
        };
        let duplicated = self.owned.is_some() && self.has_seen(seen::DUPLICATED);
        let shared = duplicated || Arc::strong_count(&socket) > 1;
        if shared && !self.has_seen(seen::FORCED) {
            let _ = socket.shutdown(Shutdown::Both);
        }
        drop(socket);
        self.leave();
        None
    }

    /// Closes the account of a socket that nobody can come by any more. Where its last words might be
    /// lost by a close, it goes into a farewell.
    pub(crate) fn part(
        &self,
        socket: Arc<Socket>,
        by: ClosedBy,
        error: Option<String>,
    ) -> std::result::Result<DeferredClose, Arc<Socket>> {
        // The books first, so that whoever sees the end finds it written.
        let Some((owned, record, until)) = self.lingers(&socket) else {
            self.settle(by, error, false);
            return Err(socket);
        };
        // Nobody else has it, or it would not linger.
        let socket = Arc::try_unwrap(socket)?;
        Ok(owned.owner.linger(socket, record, until, by, error))
    }

    /// Ends it with RST; what is unsent is lost.
    pub fn abort(&self) {
        if let Some(socket) = self.take() {
            self.settle(ClosedBy::Local, None, false);
            if let Some(owned) = &self.owned {
                owned.owner.reset();
            }
            match Arc::try_unwrap(socket) {
                Ok(socket) if !self.has_seen(seen::DUPLICATED) => socket.abort(),
                Ok(socket) => socket.reset(),
                // Others still hold the number: the connection ends now all the same.
                Err(shared) => shared.reset(),
            }
            self.leave();
        }
    }

    /// Closes the account, once.
    pub(crate) fn settle(&self, by: ClosedBy, error: Option<String>, forced: bool) {
        if let Some(owned) = &self.owned {
            owned.owner.settle(by, error, forced);
        } else if let Some(record) = self.record.get() {
            record.close(by, error, record.last_tcp_info(None));
        }
    }

    /// Tells the server that the descriptor is gone.
    pub(crate) fn leave(&self) {
        if let (Some(owned), Some(record)) = (&self.owned, self.record.get()) {
            owned.owner.socket_closed(&record.remote());
        }
    }

    pub(crate) fn take(&self) -> Option<Arc<Socket>> {
        if !self.origin.is_here() {
            // A forked child's copy of the number is left alone, like all that it inherits.
            return None;
        }
        // Its last chance to have been connected.
        let _ = self.record();
        self.closed.store(true, SeqCst);
        self.socket.lock().take()
    }

    /// Gives the number away, open; -1 where it is closed. EBUSY while another thread's call uses it.
    pub fn detach(&self) -> Result<RawFd> {
        self.origin.check()?;
        let _ = self.record();
        let mut slot = self.socket.lock();
        let Some(socket) = slot.take() else { return Ok(-1) };
        match Arc::try_unwrap(socket) {
            Ok(socket) => {
                self.closed.store(true, SeqCst);
                drop(slot);
                self.settle(ClosedBy::Detached, None, false);
                self.leave();
                Ok(socket.into_number())
            }
            Err(shared) => {
                *slot = Some(shared);
                Err(Error::errno("detach", self.peer_text(), libc::EBUSY))
            }
        }
    }

    /// A second number for the same connection: fcntl(F_DUPFD_CLOEXEC). A server's connection still
    /// ends for both when it is closed here.
    pub fn duplicate(&self) -> Result<OwnedFd> {
        let socket = self.hold("to_socket")?;
        let duplicate = socket.as_fd().try_clone_to_owned();
        self.saw(seen::DUPLICATED);
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

    /// getsockname(2).
    pub fn local_address(&self) -> Result<Address> {
        if let (Some(_), Some(record)) = (self.outer(), self.record.get()) {
            return self.hold("getsockname").map(|_| record.local().address);
        }
        self.address("getsockname", |socket| socket.local_addr())
    }

    /// getpeername(2).
    pub fn peer_address(&self) -> Result<Address> {
        if let (Some(_), Some(record)) = (self.outer(), self.record.get()) {
            return self.hold("getpeername").map(|_| record.remote().address);
        }
        self.address("getpeername", |socket| socket.peer_addr())
    }

    /// Address family: AF_INET, AF_INET6 or AF_UNIX, also after the close.
    #[must_use]
    pub fn family(&self) -> i32 {
        self.family.load(Relaxed)
    }

    /// Protocol: that of TCP or UDP, or 0 of a Unix socket, which has but one.
    #[must_use]
    pub fn protocol(&self) -> i32 {
        match self.transport() {
            Transport::Tcp => libc::IPPROTO_TCP,
            Transport::Udp => libc::IPPROTO_UDP,
            Transport::Unix => 0,
        }
    }

    /// Whether it is a Unix socket.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.family() == libc::AF_UNIX
    }

    /// What the kernel knows of it: TCP_INFO and TCP_CONGESTION, tcp(7). EOPNOTSUPP of a Unix socket.
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

    /// getsockopt(2): up to `length` bytes.
    pub fn getsockopt(&self, level: i32, name: i32, length: usize) -> Result<Vec<u8>> {
        let socket = self.hold("getsockopt")?;
        let mut value = vec![0; length];
        let mut length = 0;
        let mut ask = |number| {
            length = sys::getsockopt(number, level, name, &mut value)?;
            Ok(())
        };
        match self.outer().filter(|_| is_of_outer(level, name)) {
            Some(outer) => outer.with_socket(&mut ask),
            None => ask(socket.as_fd().as_raw_fd()),
        }
        .map_err(|error| Error::os("getsockopt", "", &error))?;
        value.truncate(length);
        Ok(value)
    }

    /// Whether a close may block: only where SO_LINGER was set.
    #[must_use]
    pub fn may_linger(&self) -> bool {
        self.has_seen(seen::LINGERS) || self.options.linger.is_some()
    }

    /// setsockopt(2).
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
        if socket.options().peer_addr().is_err() {
            // Not connected yet: `connect` may have to open another socket in this one's place.
            let mut told = self.told.lock();
            told.retain(|&(other, of, _)| (other, of) != (level, name));
            told.push((level, name, value));
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.origin.is_here() {
            self.close();
        } else {
            // In a forked child all of this is a copy: the number is the parent's to end, and so are
            // the books.
            std::mem::forget(self.socket.get_mut().take());
            std::mem::forget(self.owned.take());
        }
    }
}

/// Whether an option of an inner stream is one of the outer socket: those of IP and TCP are, and of the
/// others keepalive.
fn is_of_outer(level: i32, name: i32) -> bool {
    level != libc::SOL_SOCKET || name == libc::SO_KEEPALIVE
}

pub(crate) fn set_option(
    fd: impl AsRawFd,
    level: i32,
    name: i32,
    value: &OptionValue,
) -> io::Result<()> {
    match value {
        OptionValue::Bytes(bytes) => sys::setsockopt(fd, level, name, bytes),
        OptionValue::Length(length) => sys::setsockopt_length(fd, level, name, *length),
    }
}
