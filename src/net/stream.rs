//! A blocking stream: the connecting side of a socket. Owns one descriptor that calls of several
//! threads may use at once; must never read ahead of what a call returns, nor change the descriptor
//! to non-blocking unless asked.
//!
//! Every call tries first (MSG_DONTWAIT, so that the descriptor itself stays blocking) and waits only
//! where there is nothing to be had, so that data that is there costs one system call, deadline or not.

use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicU32, Ordering::Relaxed, Ordering::SeqCst,
};
use std::time::{Duration, Instant};
use std::{hint, io, thread};

use parking_lot::Mutex;
use socket2::{Domain, SockRef};

use super::endpoint::{Target, canonical, display};
use super::error::{Error, Result};
use super::fork::Origin;
use super::options::SocketOptions;
use super::resolve;
use super::socket::Socket;
use super::sys::{self, PollFd, RawTcpInfo};
use super::wake::Waiter;

/// After so many waits in a row that came to nothing, spinning is off...
const SPIN_FAILURES: u32 = 4;
/// ...but for one wait in so many, to see whether the peer has become quick again.
const SPIN_RETRY: u32 = 64;
/// A spinning call keeps its CPU for so long, which is a little more than a peer that runs on another
/// one takes to answer; then it lets others have it between its tries.
const SPIN_ALONE: Duration = Duration::from_micros(40);
/// How much `recv_until` looks at at a time.
const PEEK: usize = 4096;
/// How much a receive of known length reserves before anything has come, however much is asked.
const FIRST_RESERVE: usize = 64 * 1024;

/// Whether it pays to retry for a moment in place of giving the thread up.
///
/// Giving it up costs a Python thread up to a switch interval (5 ms) to come back beside a busy one;
/// a peer on the same machine answers in a fraction of that.
#[derive(Debug)]
struct Spin {
    limit: Duration,
    failures: AtomicU32,
    waits: AtomicU32,
}

impl Spin {
    fn run<T>(
        &self,
        deadline: Option<Instant>,
        mut attempt: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let waits = self.waits.fetch_add(1, Relaxed);
        if self.limit.is_zero()
            || (self.failures.load(Relaxed) >= SPIN_FAILURES && waits % SPIN_RETRY != 0)
        {
            return None;
        }
        let start = Instant::now();
        let yield_from = start + SPIN_ALONE;
        let until = start + self.limit;
        let until = deadline.map_or(until, |deadline| until.min(deadline));
        loop {
            if let Some(result) = attempt() {
                self.failures.store(0, Relaxed);
                return Some(result);
            }
            let now = Instant::now();
            if now >= yield_from {
                // Not answered at once: whoever is to answer may be waiting for this very CPU.
                thread::yield_now();
            } else {
                hint::spin_loop();
            }
            if now >= until {
                self.failures.fetch_add(1, Relaxed);
                return None;
            }
        }
    }
}

/// What to wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interest {
    Readable,
    Writable,
}

/// When a call gives up: its time-out, counted from when it first has to wait.
#[derive(Clone, Copy)]
pub struct Deadline {
    timeout: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, at: None }
    }

    /// Reads the clock the first time it is asked.
    fn at(&mut self) -> Option<Instant> {
        if self.at.is_none() {
            self.at = self.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        }
        self.at
    }
}

/// A client's socket.
#[derive(Debug)]
pub struct Stream {
    /// Taken by `close`; calls that are under way hold a clone, and the last one frees the number.
    socket: Mutex<Option<Arc<Socket>>>,
    closed: AtomicBool,
    /// Nanoseconds; negative is no time-out.
    timeout: AtomicI64,
    options: SocketOptions,
    /// What `setsockopt` was told, for the socket that takes this one's place in `connect`.
    told: Mutex<Vec<(i32, i32, OptionValue)>>,
    source: Option<SocketAddr>,
    peer: Mutex<Option<SocketAddr>>,
    spin: Spin,
    /// Kept for after the close, as `socket` does.
    family: AtomicI32,
    origin: Origin,
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
        timeout: Option<Duration>,
        options: SocketOptions,
        source: Option<SocketAddr>,
        spin: Duration,
    ) -> Result<Self> {
        super::fork::watch();
        let domain = source.map_or(Domain::IPV4, Domain::for_address);
        let failed = |error: io::Error| Error::os("create", "", &error);
        let socket = Socket::tcp(domain).map_err(failed)?;
        options.apply(&socket).map_err(failed)?;
        let stream = Self {
            socket: Mutex::new(Some(Arc::new(socket))),
            closed: AtomicBool::new(false),
            timeout: AtomicI64::new(-1),
            options,
            told: Mutex::new(Vec::new()),
            source,
            peer: Mutex::new(None),
            spin: Spin { limit: spin, failures: AtomicU32::new(0), waits: AtomicU32::new(0) },
            family: AtomicI32::new(domain.into()),
            origin: Origin::here(),
        };
        stream.set_timeout(timeout)?;
        Ok(stream)
    }

    /// The socket for the length of a call: EBADF once it is closed.
    fn hold(&self, step: &'static str) -> Result<Arc<Socket>> {
        self.origin.check()?;
        self.socket.lock().clone().ok_or_else(|| Error::closed(step))
    }

    /// Whether `close` or `detach` was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(SeqCst)
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
        if (was == 0) != (nanos == 0) {
            socket
                .options()
                .set_nonblocking(nanos == 0)
                .map_err(|error| Error::os("settimeout", "", &error))?;
        }
        Ok(())
    }

    /// The time-out of a call: none at all where its flags forbid to wait.
    fn deadline(&self, flags: i32) -> Deadline {
        // The error queue is no input: nothing announces it, and recv(2) never waits for it.
        let waits = flags & (libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE) == 0;
        Deadline::new(if waits { self.timeout() } else { Some(Duration::ZERO) })
    }

    /// Number of the descriptor, -1 once closed.
    pub fn fileno(&self) -> Result<RawFd> {
        self.origin.check()?;
        Ok(self.socket.lock().as_ref().map_or(-1, |socket| socket.as_fd().as_raw_fd()))
    }

    /// Connects to the first address of `target` that answers: connect(2), time-out for all of them
    /// together.
    pub fn connect(&self, target: &Target, waiter: &mut dyn Waiter) -> Result<()> {
        let mut deadline = self.deadline(0);
        let until = deadline.at();
        // A resolver is asked even by a call that may not wait: a number needs none, a name has no
        // other way.
        let until = if deadline.timeout == Some(Duration::ZERO) { None } else { until };
        let addresses = resolve::addresses(target, false, until, waiter)?;
        let mut first: Option<Error> = None;
        let last = addresses.len() - 1;
        for (number, address) in addresses.into_iter().enumerate() {
            let mut result = self.connect_to(address, number > 0, &mut deadline, waiter);
            if let Err(Error::Os { target: at, .. } | Error::TimedOut { target: at, .. }) =
                &mut result
            {
                *at = at.replace(&display(&address), &target_text(target, &address));
            }
            match result {
                // A socket that is in use says the same whatever the address.
                Err(Error::Os { errno, .. })
                    if number < last
                        && !matches!(
                            errno,
                            libc::EINPROGRESS | libc::EALREADY | libc::EISCONN | libc::EBADF
                        ) =>
                {
                    first = first.or(result.err());
                }
                Err(error @ Error::Os { .. }) => return Err(first.unwrap_or(error)),
                result => return result,
            }
        }
        Err(first.unwrap_or_else(|| Error::errno("connect", target, libc::EADDRNOTAVAIL)))
    }

    fn connect_to(
        &self,
        address: SocketAddr,
        anew: bool,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let step = "connect";
        let socket = self.hold(step)?;
        let failed = |error: &io::Error| Error::os(step, display(&address), error);
        let domain = socket.options().domain().map_err(|error| failed(&error))?;
        let another = domain != Domain::for_address(address);
        if another && socket.options().peer_addr().is_ok() {
            // Another family takes another socket, and this one is in use.
            return Err(Error::errno(step, display(&address), libc::EISCONN));
        }
        if anew || another {
            self.renew(&socket, Domain::for_address(address)).map_err(|error| failed(&error))?;
        }
        if let Some(source) = self.source {
            let bound = socket.options().local_addr().ok().and_then(|at| at.as_socket());
            if bound.is_none_or(|at| at.port() == 0) {
                socket
                    .options()
                    .bind(&source.into())
                    .map_err(|error| Error::os("bind", display(&source), &error))?;
            }
        }
        // Non-blocking for as long as the handshake takes, so that it can be waited for.
        let blocking = deadline.timeout != Some(Duration::ZERO);
        socket.options().set_nonblocking(true).map_err(|error| failed(&error))?;
        let result = self.shake_hands(&socket, address, deadline, waiter);
        if blocking {
            socket.options().set_nonblocking(false).map_err(|error| failed(&error))?;
        }
        if self.is_closed() {
            return Err(Error::closed(step));
        }
        if result.is_ok() {
            *self.peer.lock() = Some(canonical(address));
        }
        if matches!(result, Err(Error::Interrupted | Error::TimedOut { .. })) {
            // Half a handshake is no socket to go on with; a fresh one is.
            let _ = self.renew(&socket, Domain::for_address(address));
        }
        result
    }

    fn shake_hands(
        &self,
        socket: &Socket,
        address: SocketAddr,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let step = "connect";
        match socket.options().connect(&address.into()) {
            Ok(()) => return Ok(()),
            Err(error)
                if error.raw_os_error() == Some(libc::EINPROGRESS)
                    && deadline.timeout != Some(Duration::ZERO) => {}
            // EINTR, and the handshake goes on: as EINPROGRESS.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::os(step, display(&address), &error)),
        }
        if !waiter.wait(&mut [PollFd::writable(socket.as_fd())], deadline.at())? {
            return Err(Error::TimedOut { step, target: display(&address) });
        }
        // Asked again, the kernel says how it went, and takes note that it has said so: with SO_ERROR
        // in its place, the next connect of this socket would be answered with this one's end.
        socket
            .options()
            .connect(&address.into())
            .map_err(|error| Error::os(step, display(&address), &error))
    }

    /// Puts a fresh socket under the same number, with all options that this one was given.
    fn renew(&self, socket: &Socket, domain: Domain) -> io::Result<()> {
        let fresh = Socket::tcp(domain)?;
        self.family.store(domain.into(), Relaxed);
        self.options.apply(&fresh)?;
        for (level, name, value) in &*self.told.lock() {
            // One that fits only the other family is not worth failing for.
            let _ = set_option(fresh.as_fd(), *level, *name, value);
        }
        if self.timeout() == Some(Duration::ZERO) {
            fresh.options().set_nonblocking(true)?;
        }
        sys::replace(fresh.as_fd(), socket.as_fd())
    }

    /// Whom it was last connected to, for messages; a socket that was reset no longer knows.
    fn peer_text(&self) -> String {
        self.peer.lock().as_ref().map_or_else(String::new, display)
    }

    /// Tries, and waits where there is nothing to be had.
    fn attempt<T>(
        &self,
        step: &'static str,
        interest: Interest,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
        mut operation: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> Result<T> {
        let socket = self.hold(step)?;
        let fd = socket.as_fd();
        let mut once = || match operation(fd) {
            Ok(done) => Some(Ok(done)),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => None,
                // Not the end of the call: PEP 475. The waiter looks for signals.
                io::ErrorKind::Interrupted => None,
                _ => Some(Err(Error::os(step, self.peer_text(), &error))),
            },
        };
        let mut result = once();
        while result.is_none() {
            if deadline.timeout == Some(Duration::ZERO) {
                return Err(Error::errno(step, self.peer_text(), libc::EAGAIN));
            }
            let until = deadline.at();
            if interest == Interest::Readable && waiter.may_spin() {
                result = self.spin.run(until, &mut once);
                if result.is_some() {
                    break;
                }
            }
            let poll = match interest {
                Interest::Readable => PollFd::readable(fd),
                Interest::Writable => PollFd::writable(fd),
            };
            if !waiter.wait(&mut [poll], until)? {
                return Err(Error::TimedOut { step, target: self.peer_text() });
            }
            result = once();
        }
        // A close from another thread has shut the socket down to wake this one.
        if self.is_closed() {
            return Err(Error::closed(step));
        }
        result.unwrap_or_else(|| Err(Error::closed(step)))
    }

    /// recv(2). Zero means that the peer has finished (or that nothing was asked).
    pub fn recv(&self, buffer: &mut [u8], flags: i32, waiter: &mut dyn Waiter) -> Result<usize> {
        if buffer.is_empty() {
            // Nothing is asked, so that nothing need be waited for.
            return self.hold("recv").map(|_| 0);
        }
        self.recv_some("recv", buffer, flags, &mut self.deadline(flags), waiter)
    }

    fn recv_some(
        &self,
        step: &'static str,
        buffer: &mut [u8],
        flags: i32,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<usize> {
        self.attempt(step, Interest::Readable, deadline, waiter, |fd| {
            sys::recv(fd, buffer, flags | libc::MSG_DONTWAIT)
        })
    }

    /// Exactly `count` bytes; none where the peer has finished before the first of them, and
    /// `Incomplete` where it does so after it. What ends the call early carries what was taken.
    pub fn recv_exactly(&self, count: usize, waiter: &mut dyn Waiter) -> Result<Vec<u8>> {
        let taken = self.recv_all("recv_exactly", count, 0, waiter)?;
        if taken.len() == count || taken.is_empty() {
            return Ok(taken);
        }
        let wanted = format!("{count}");
        Err(Error::Incomplete { wanted, got: taken.len() }.after(taken))
    }

    /// recv(2) with MSG_WAITALL, which the kernel does not do for a call that must not block: `count`
    /// bytes, fewer where the peer finishes before.
    pub fn recv_all(
        &self,
        step: &'static str,
        count: usize,
        flags: i32,
        waiter: &mut dyn Waiter,
    ) -> Result<Vec<u8>> {
        let flags = flags & !libc::MSG_WAITALL;
        let mut deadline = self.deadline(flags);
        let mut taken = Vec::new();
        while taken.len() < count {
            let start = taken.len();
            // Grows with what has come, so that a mistaken length does not take the memory at once.
            let room = (count - start).min(start.max(FIRST_RESERVE));
            taken.resize(start + room, 0);
            let result = self.recv_some(step, &mut taken[start..], flags, &mut deadline, waiter);
            taken.truncate(start + result.as_ref().map_or(0, |&got| got));
            match result.and_then(|got| waiter.breathe().map(|()| got)) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(error.after(taken)),
            }
        }
        Ok(taken)
    }

    /// All up to and with `delimiter`, looking before taking, so that nothing behind it is taken.
    /// None where the peer has finished before the first byte; otherwise as `recv_exactly`, and
    /// `OverLimit` when the delimiter does not end within `limit` bytes.
    /// `step` is the name of the call in errors.
    pub fn recv_until(
        &self,
        step: &'static str,
        delimiter: &[u8],
        limit: usize,
        waiter: &mut dyn Waiter,
    ) -> Result<Vec<u8>> {
        let mut deadline = self.deadline(0);
        let mut taken = Vec::new();
        loop {
            let start = taken.len();
            if start >= limit {
                return Err(Error::OverLimit { limit }.after(taken));
            }
            taken.resize(start + (limit - start).min(PEEK), 0);
            let peeked =
                self.recv_some(step, &mut taken[start..], libc::MSG_PEEK, &mut deadline, waiter);
            let got = match peeked {
                Ok(got) => got,
                Err(error) => {
                    taken.truncate(start);
                    return Err(error.after(taken));
                }
            };
            taken.truncate(start + got);
            if got == 0 {
                if start == 0 {
                    return Ok(taken);
                }
                let wanted = "a message that ends with its delimiter".to_owned();
                return Err(Error::Incomplete { wanted, got: start }.after(taken));
            }
            // The delimiter may have begun in what was taken before.
            let from = start.saturating_sub(delimiter.len() - 1);
            let found = find(&taken[from..], delimiter).map(|at| from + at + delimiter.len());
            let end = found.unwrap_or(taken.len());
            taken.truncate(end);
            // What was seen is there: this takes it, and waits for nothing.
            let mut at = start;
            while at < end {
                match self.recv_some(step, &mut taken[at..], 0, &mut deadline, waiter) {
                    Ok(0) => break,
                    Ok(count) => at += count,
                    Err(error) => {
                        taken.truncate(at);
                        return Err(error.after(taken));
                    }
                }
            }
            if found.is_some() {
                return Ok(taken);
            }
            if let Err(error) = waiter.breathe() {
                return Err(error.after(taken));
            }
        }
    }

    /// send(2): as much as there is room for, at least one byte.
    pub fn send(&self, data: &[u8], flags: i32, waiter: &mut dyn Waiter) -> Result<usize> {
        self.send_some("send", data, flags, &mut self.deadline(flags), waiter)
    }

    fn send_some(
        &self,
        step: &'static str,
        data: &[u8],
        flags: i32,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<usize> {
        self.attempt(step, Interest::Writable, deadline, waiter, |fd| {
            sys::send(fd, data, flags | libc::MSG_DONTWAIT)
        })
    }

    /// All of it. `sent` tells how much was, whatever ends the call.
    pub fn sendall(
        &self,
        data: &[u8],
        flags: i32,
        sent: &mut usize,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let mut deadline = self.deadline(flags);
        // Once even for nothing, so that a closed or broken stream is told apart.
        loop {
            *sent += self.send_some("sendall", &data[*sent..], flags, &mut deadline, waiter)?;
            if *sent == data.len() {
                return Ok(());
            }
            waiter.breathe()?;
        }
    }

    /// shutdown(2).
    pub fn shutdown(&self, how: Shutdown) -> Result<()> {
        self.hold("shutdown")?.shutdown(how).map_err(|error| Error::os("shutdown", "", &error))
    }

    /// Ends it with FIN behind what was sent. Calls of other threads end with EBADF; the number is
    /// free when the last of them has left. Twice is once.
    pub fn close(&self) {
        if let Some(socket) = self.take() {
            if Arc::strong_count(&socket) > 1 {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// Ends it with RST; what is unsent is lost.
    pub fn abort(&self) {
        if let Some(socket) = self.take() {
            match Arc::try_unwrap(socket) {
                Ok(socket) => socket.abort(),
                Err(shared) => {
                    // Others still hold the number: the connection ends now all the same.
                    let _ = shared.options().set_linger(Some(Duration::ZERO));
                    let _ = shared.shutdown(Shutdown::Read);
                    let _ = sys::disconnect(shared.as_fd());
                }
            }
        }
    }

    fn take(&self) -> Option<Arc<Socket>> {
        if !self.origin.is_here() {
            // A forked child's copy of the number is left alone, like all that it inherits.
            return None;
        }
        self.closed.store(true, SeqCst);
        self.socket.lock().take()
    }

    /// Gives the number away, open; -1 where it is closed. EBUSY while another thread's call uses it.
    pub fn detach(&self) -> Result<RawFd> {
        self.origin.check()?;
        let mut slot = self.socket.lock();
        let Some(socket) = slot.take() else { return Ok(-1) };
        match Arc::try_unwrap(socket) {
            Ok(socket) => {
                self.closed.store(true, SeqCst);
                Ok(socket.into_number())
            }
            Err(shared) => {
                *slot = Some(shared);
                Err(Error::errno("detach", "", libc::EBUSY))
            }
        }
    }

    fn address(
        &self,
        step: &'static str,
        ask: impl FnOnce(&SockRef<'_>) -> io::Result<socket2::SockAddr>,
    ) -> Result<SocketAddr> {
        let socket = self.hold(step)?;
        let address = ask(&socket.options()).map_err(|error| Error::os(step, "", &error))?;
        address.as_socket().ok_or_else(|| Error::errno(step, "", libc::EAFNOSUPPORT))
    }

    /// getsockname(2).
    pub fn local_address(&self) -> Result<SocketAddr> {
        self.address("getsockname", |socket| socket.local_addr())
    }

    /// getpeername(2).
    pub fn peer_address(&self) -> Result<SocketAddr> {
        self.address("getpeername", |socket| socket.peer_addr())
    }

    /// Both addresses as users read them, where it is connected.
    #[must_use]
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((canonical(self.local_address().ok()?), canonical(self.peer_address().ok()?)))
    }

    /// Address family: AF_INET or AF_INET6, also after the close.
    #[must_use]
    pub fn family(&self) -> i32 {
        self.family.load(Relaxed)
    }

    /// TCP_INFO, tcp(7), and the name of the congestion control.
    pub fn tcp_info(&self) -> Result<(RawTcpInfo, String)> {
        let socket = self.hold("tcp_info")?;
        let failed = |error: io::Error| Error::os("tcp_info", "", &error);
        let info = sys::tcp_info(socket.as_fd()).map_err(failed)?;
        // TCP_CA_NAME_MAX
        let mut name = [0; 16];
        let length =
            sys::getsockopt(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_CONGESTION, &mut name)
                .map_err(failed)?;
        let name = name[..length].split(|&byte| byte == 0).next().unwrap_or_default();
        Ok((info, String::from_utf8_lossy(name).into_owned()))
    }

    /// getsockopt(2): up to `length` bytes.
    pub fn getsockopt(&self, level: i32, name: i32, length: usize) -> Result<Vec<u8>> {
        let socket = self.hold("getsockopt")?;
        let mut value = vec![0; length];
        let length = sys::getsockopt(socket.as_fd(), level, name, &mut value)
            .map_err(|error| Error::os("getsockopt", "", &error))?;
        value.truncate(length);
        Ok(value)
    }

    /// setsockopt(2).
    pub fn setsockopt(&self, level: i32, name: i32, value: OptionValue) -> Result<()> {
        let socket = self.hold("setsockopt")?;
        set_option(socket.as_fd(), level, name, &value)
            .map_err(|error| Error::os("setsockopt", "", &error))?;
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
        if !self.origin.is_here() {
            if let Some(socket) = self.socket.get_mut().take() {
                std::mem::forget(socket);
            }
        }
    }
}

fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &OptionValue) -> io::Result<()> {
    match value {
        OptionValue::Bytes(bytes) => sys::setsockopt(fd, level, name, bytes),
        OptionValue::Length(length) => sys::setsockopt_length(fd, level, name, *length),
    }
}

/// A name is shown with the address that was tried.
fn target_text(target: &Target, address: &SocketAddr) -> String {
    if target.numeric().is_some() {
        display(address)
    } else {
        format!("{target} ({})", display(address))
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if let [byte] = needle {
        return haystack.iter().position(|at| at == byte);
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}
