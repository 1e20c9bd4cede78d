//! The connect of a stream. Owns its steps for one address, and what is tried again after a
//! failure, under one time-out for everything; must never leave half a handshake behind, nor call a
//! resolver on the caller's thread. `race` connects to several addresses at once.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use socket2::Domain;

use super::deadline::Deadline;
use super::option::set_option;
use super::stream::{Stream, seen};
use crate::net::address::{
    Address, ConnectSource, Endpoint, SourceAddresses, Target, Transport, resolve,
};
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};
use crate::net::ledger::{Record, Role};
use crate::net::socket::{Socket, peer_credentials};
use crate::net::sys::PollFd;

/// How long one connect(2) blocks in the kernel before the call looks for signals and a close.
const PART: Duration = Duration::from_millis(100);
/// The pauses between the attempts of a connect that is repeated, each twice as long as the one
/// before.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// The time that each of these attempts has at least.
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(1);

impl Stream {
    /// Connects to an address of `target` that answers: connect(2). The time-out covers all
    /// addresses together. With `retry`, tries again until that time is over.
    pub fn connect(&self, target: &Target, waiter: &mut dyn Waiter) -> Result<()> {
        self.check_staging(target)?;
        self.note_host(target);
        let timeout = self.timeout();
        let retry = self.connecting.as_ref().and_then(|connecting| connecting.retry);
        match retry.filter(|_| timeout != Some(Duration::ZERO)) {
            Some(retry) => self.connect_again(target, timeout, retry, waiter),
            None => self.connect_once(target, self.deadline(0), waiter),
        }
    }

    /// Connects as soon as there is a server, within `retry`.
    fn connect_again(
        &self,
        target: &Target,
        timeout: Option<Duration>,
        retry: Duration,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let began = Instant::now();
        let end = began.checked_add(retry);
        let mut pause = SHORTEST_PAUSE;
        loop {
            // The kernel repeats a lost SYN after 1 s, 2 s, 4 s and so on. A new attempt repeats it
            // sooner, but an attempt must have time for a distant peer.
            let most = began.elapsed().max(SHORTEST_ATTEMPT);
            let most = timeout.map_or(most, |timeout| timeout.min(most));
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let most = left.map_or(most, |left| left.min(most)).max(Duration::from_nanos(1));
            let error = match self.connect_once(target, Deadline::new(Some(most)), waiter) {
                Err(error) if is_temporary(&error) && !self.is_closed() => error,
                result => return result,
            };
            let until = Instant::now() + pause;
            if end.is_some_and(|end| end <= until) {
                return Err(error);
            }
            waiter.wait(&mut [], Some(until))?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn connect_once(
        &self,
        target: &Target,
        mut deadline: Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let until = deadline.at();
        // Even a call that may not wait resolves its target: a numeric address needs no resolver,
        // and for a name there is no other way.
        let until = if deadline.timeout == Some(Duration::ZERO) { None } else { until };
        let addresses = resolve::interleaved(&resolve::addresses(target, false, until, waiter)?);
        let source = match self.source() {
            Some(_) if target.as_unix().is_some() => {
                return Err(Error::Value(format!(
                    "source_address: a Unix socket such as {target} has no host and port"
                )));
            }
            Some(source) => Some(source.addresses(until, waiter)?),
            None => None,
        };
        let to = Candidates { target, addresses, source };
        if to.addresses.len() > 1 && self.may_race(&to, &deadline) {
            if let Some(result) = self.race(&to, &mut deadline, waiter) {
                return result;
            }
        }
        self.connect_in_turn(&to, &mut deadline, waiter)
    }

    pub(super) fn source(&self) -> Option<&ConnectSource> {
        self.connecting.as_ref()?.source.as_ref()
    }

    /// Tries one address after the other. Each has its share of the time that is left.
    fn connect_in_turn(
        &self,
        to: &Candidates<'_>,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let mut first: Option<Error> = None;
        let last = to.addresses.len().saturating_sub(1);
        for (number, address) in to.addresses.iter().enumerate() {
            let mut share = deadline.share(last - number);
            let result = self.connect_to(to, address, number > 0, &mut share, waiter);
            match result.map_err(|error| to.name(error, address)) {
                // The error of a socket that is in use does not depend on the address.
                Err(Error::Os { errno, .. })
                    if number < last
                        && !matches!(
                            errno,
                            libc::EINPROGRESS | libc::EALREADY | libc::EISCONN | libc::EBADF
                        ) =>
                {
                    first = first.or(Some(Error::errno("connect", to.text(address), errno)));
                }
                Err(error @ (Error::Resolve { .. } | Error::TimedOut { .. })) if number < last => {
                    first = first.or(Some(error));
                }
                Err(error @ (Error::Os { .. } | Error::Resolve { .. })) => {
                    return Err(first.unwrap_or(error));
                }
                result => return result,
            }
        }
        Err(first.unwrap_or_else(|| Error::errno("connect", to.target, libc::EADDRNOTAVAIL)))
    }

    fn connect_to(
        &self,
        to: &Candidates<'_>,
        address: &Address,
        after_failure: bool,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let step = "connect";
        let socket = self.hold(step)?;
        let failed = |error: &io::Error| Error::os(step, address, error);
        let has_any_port = self.fit(&socket, to, address, after_failure)?;
        to.bind(&socket, address)?;
        // Non-blocking during the handshake, so that the wait can be interrupted.
        let blocking = deadline.timeout != Some(Duration::ZERO);
        socket.options().set_nonblocking(true).map_err(|error| failed(&error))?;
        let mut result = self.handshake(&socket, address, deadline, waiter);
        if has_any_port && socket.is_connected_to_itself(address) {
            result = self.leave_itself(to, &socket, address, deadline, waiter);
        }
        if blocking {
            socket.options().set_nonblocking(false).map_err(|error| failed(&error))?;
        }
        if self.is_closed() {
            return Err(self.closed_error(step));
        }
        match &result {
            Ok(()) => return self.connected_to(address, deadline, waiter),
            Err(Error::Os { errno: libc::EINPROGRESS, .. }) => {
                *self.slot().pending.lock() = Some(address.clone().canonical());
            }
            Err(Error::Interrupted | Error::TimedOut { .. }) => {
                // A socket with half a handshake cannot be used again, so a new one replaces it.
                let _ = self.renew(&socket, address.domain());
            }
            Err(_) => {}
        }
        result
    }

    /// Replaces the socket by another one if it cannot be connected to the address, or has failed
    /// before. Returns whether the system chooses its port.
    fn fit(
        &self,
        socket: &Socket,
        to: &Candidates<'_>,
        address: &Address,
        after_failure: bool,
    ) -> Result<bool> {
        let step = "connect";
        let failed = |error: io::Error| Error::os(step, address, &error);
        let domain = socket.options().domain().map_err(failed)?;
        let another = domain != address.domain();
        let bound = bound_port(socket);
        // A bound socket keeps its port, which peers may know already. The kernel decides what it
        // can connect to; an IPv6 socket also reaches IPv4. A port of the system's choice at any
        // address is not worth keeping for the other family.
        let is_movable = another && self.source().is_some_and(|at| at.is_any() && at.port() == 0);
        let is_known = self.is_datagram() && bound != 0 && !is_movable;
        if another && !is_known && socket.options().peer_addr().is_ok() {
            // Another family requires another socket, and this one is in use.
            return Err(Error::errno(step, address, libc::EISCONN));
        }
        if self.transport == Transport::UnixDatagram && address.as_unix().is_none() {
            return Err(Error::errno(step, address, libc::EAFNOSUPPORT));
        }
        if address.as_unix().is_some() {
            self.options.check_unix()?;
        }
        let is_renewed = (after_failure || another) && !is_known;
        if is_renewed {
            self.renew(socket, address.domain()).map_err(failed)?;
        }
        // Otherwise the caller may want it so. (A TCP socket tells the port of its last connect.)
        let is_kept = !is_renewed && self.is_datagram() && bound != 0;
        Ok(to.port() == 0 && !is_kept && !self.has_seen(seen::DUPLICATED))
    }

    /// Opens the record of a client that is connected, and puts its stages into the connection.
    pub(super) fn connected_to(
        &self,
        address: &Address,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        self.send_preface(address)?;
        *self.slot().pending.lock() = Some(address.clone().canonical());
        self.put_stages(address, deadline, waiter)
    }

    /// Gives up a connection of the socket to itself: there is no server. With FIN, its port would
    /// be in TIME-WAIT, and the server could not bind it for a minute.
    fn leave_itself(
        &self,
        to: &Candidates<'_>,
        socket: &Socket,
        address: &Address,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let step = "connect";
        let failed = |error: io::Error| Error::os(step, address, &error);
        if !self.is_datagram() {
            socket.reset();
            self.renew(socket, address.domain()).map_err(failed)?;
            return Err(Error::errno(step, address, libc::ECONNREFUSED));
        }
        // Datagrams need no server to be sent. The next socket gets another port, because this one
        // is open until then.
        let holder = socket.options().try_clone().map_err(failed)?;
        self.renew(socket, address.domain()).map_err(failed)?;
        to.bind(socket, address)?;
        let result = self.handshake(socket, address, deadline, waiter);
        drop(holder);
        result
    }

    fn handshake(
        &self,
        socket: &Socket,
        address: &Address,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let step = "connect";
        let failed = |error: &io::Error| Error::os(step, address, error);
        let raw = address.to_raw().map_err(|error| failed(&error))?;
        match socket.options().connect(&raw) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && self.is_unix() => {
                return self.wait_for_queue(socket, address, deadline, waiter);
            }
            Err(error)
                if error.raw_os_error() == Some(libc::EINPROGRESS)
                    && deadline.timeout != Some(Duration::ZERO) => {}
            // An earlier non-blocking call began the handshake. A blocking call waits for it.
            Err(error)
                if error.raw_os_error() == Some(libc::EALREADY) && deadline.timeout.is_none() => {}
            // After EINTR the handshake continues, as with EINPROGRESS.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(&error)),
        }
        loop {
            if !waiter.wait(&mut [PollFd::writable(socket.as_fd())], deadline.at())? {
                return Err(Error::TimedOut { step, target: address.to_string() });
            }
            // A second connect(2) returns the outcome and clears it. If SO_ERROR were read instead,
            // the next connect on this socket would return the outcome of this one.
            match socket.options().connect(&raw) {
                // There is none yet: a signal handler has forked, and this is the child.
                Err(error) if error.raw_os_error() == Some(libc::EALREADY) => {}
                result => return result.map_err(|error| failed(&error)),
            }
        }
    }

    /// Connects to a Unix listener whose queue is full. No descriptor reports free space in the
    /// queue, so connect(2) itself blocks, in short parts, with a check for signals and a close
    /// between them.
    fn wait_for_queue(
        &self,
        socket: &Socket,
        address: &Address,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let step = "connect";
        let failed = |error: &io::Error| Error::os(step, address, error);
        if deadline.timeout == Some(Duration::ZERO) {
            return Err(Error::errno(step, address, libc::EAGAIN));
        }
        let raw = address.to_raw().map_err(|error| failed(&error))?;
        let options = socket.options();
        let before = options.write_timeout().map_err(|error| failed(&error))?;
        let result = loop {
            let until = deadline.at();
            let now = Instant::now();
            if until.is_some_and(|until| until <= now) {
                break Err(Error::TimedOut { step, target: address.to_string() });
            }
            // The system rounds to microseconds, and zero would mean no time-out.
            let part =
                until.map_or(PART, |until| PART.min(until - now)).max(Duration::from_millis(1));
            let mut connected = Err(io::Error::from_raw_os_error(libc::EAGAIN));
            // SO_SNDTIMEO limits a blocking connect(2), socket(7).
            options.set_write_timeout(Some(part)).map_err(|error| failed(&error))?;
            options.set_nonblocking(false).map_err(|error| failed(&error))?;
            waiter.release(&mut || connected = socket.options().connect(&raw));
            match connected {
                Ok(()) => break Ok(()),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EINTR) => {}
                    _ => break Err(failed(&error)),
                },
            }
            if self.is_closed() {
                break Err(self.closed_error(step));
            }
            // Looks for signals.
            if let Err(error) = waiter.wait(&mut [], Some(now)) {
                break Err(error);
            }
        };
        let _ = options.set_write_timeout(before);
        result
    }

    /// A new socket with all options that were set on this stream's.
    pub(super) fn fresh(&self, domain: Domain) -> io::Result<Socket> {
        // A TCP stream becomes a Unix one, and the reverse, to fit the address.
        let transport = match (domain, self.transport) {
            (_, Transport::UnixDatagram) => Transport::UnixDatagram,
            (Domain::UNIX, _) => Transport::Unix,
            (_, Transport::Unix) => Transport::Tcp,
            (_, transport) => transport,
        };
        let fresh = Socket::open(transport, domain)?;
        self.options.apply(&fresh, transport)?;
        if transport == Transport::UnixDatagram {
            Self::bind_to_any_name(&fresh)?;
        }
        for (level, name, value) in &*self.slot().set_options.lock() {
            // An option that fits only the other family must not fail the call.
            let _ = set_option(fresh.as_fd(), *level, *name, value);
        }
        Ok(fresh)
    }

    /// Puts a new socket under the same descriptor number, with all options that were set on this
    /// one.
    pub(super) fn renew(&self, socket: &Socket, domain: Domain) -> io::Result<()> {
        let fresh = self.fresh(domain)?;
        if self.timeout() == Some(Duration::ZERO) {
            fresh.options().set_nonblocking(true)?;
        }
        self.install(fresh, socket, domain)
    }

    /// Puts a socket under the same descriptor number.
    pub(super) fn install(&self, fresh: Socket, socket: &Socket, domain: Domain) -> io::Result<()> {
        self.family.store(domain.into(), Relaxed);
        let old = socket.options().try_clone();
        fresh.replace(socket)?;
        self.renewals.fetch_add(1, SeqCst);
        // In a forked child, the parent may use the old one.
        if let Some(old) = old.ok().filter(|_| self.is_here()) {
            // Wakes threads that wait on the old socket, so that they try the new one. Ends a
            // handshake in progress.
            let _ = old.shutdown(Shutdown::Both);
        }
        Ok(())
    }

    /// Opens the record of a client once it is connected. After a non-blocking connect that happens
    /// when the record is first read. `certain` means that the connection is known to be
    /// established. `moved` is the socket of the connection, where that is no longer the stream's.
    pub(super) fn note_connected(&self, certain: bool, moved: Option<&Socket>) {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let mut pending = self.slot().pending.lock();
        let peer = match &*pending {
            Some(peer) if certain || self.peer_address().is_ok() => peer.clone(),
            // A duplicate of the descriptor may have been connected.
            None if self.is_duplicated() && self.record.get().is_none() => {
                let Ok(peer) = self.peer_address() else { return };
                peer.canonical()
            }
            _ => return,
        };
        *pending = None;
        // A connect to the unspecified address reaches a specific one.
        let peer = match peer.as_ip() {
            Some(ip) if ip.ip().is_unspecified() => {
                self.peer_address().map_or(peer, Address::canonical)
            }
            _ => peer,
        };
        *self.slot().peer.lock() = Some(peer.clone());
        if self.record.get().is_some() {
            return;
        }
        // Fails if the peer has already reset. There is nothing left to record then.
        if let (Ok(local), Ok(socket)) = (self.local_address(), self.hold("connect")) {
            let transport = self.transport();
            let ends = [local, peer].map(|at| Endpoint { transport, address: at.canonical() });
            let [local, peer] = ends;
            let id = NUMBER.fetch_add(1, Relaxed);
            let record = Record::new(id, Role::Client, local, peer);
            let socket = moved.unwrap_or(&**socket);
            let record = match peer_credentials(socket) {
                Some(peer) if transport == Transport::Unix => record.with_credentials(Some(peer)),
                _ => record.with_socket(socket.as_fd()),
            };
            let _ = self.record.set(Arc::new(record));
        }
    }
}

/// The addresses of one connect.
pub(super) struct Candidates<'a> {
    pub(super) target: &'a Target,
    /// In the order in which they are tried.
    pub(super) addresses: Vec<Address>,
    /// The addresses to connect from.
    pub(super) source: Option<SourceAddresses>,
}

impl Candidates<'_> {
    /// The port to connect from; 0 if the system chooses it.
    pub(super) fn port(&self) -> u16 {
        self.source.as_ref().and_then(SourceAddresses::first).map_or(0, |source| source.port())
    }

    /// Binds a socket that will connect to `address` to the source, unless it is bound.
    pub(super) fn bind(&self, socket: &Socket, address: &Address) -> Result<()> {
        let (Some(source), Some(to)) = (&self.source, address.as_ip()) else { return Ok(()) };
        if bound_port(socket) != 0 {
            return Ok(());
        }
        let source = source.fitting(to)?;
        let failed = |error: io::Error| Error::os("bind", Address::Ip(source), &error);
        socket.options().bind(&source.into()).map_err(failed)
    }

    /// The text for an address in errors: a name is followed by the address that was tried.
    pub(super) fn text(&self, address: &Address) -> String {
        match self.target.known() {
            Some(_) => address.to_string(),
            None => format!("{} ({address})", self.target),
        }
    }

    /// An error of the address, with the name in its text.
    pub(super) fn name(&self, mut error: Error, address: &Address) -> Error {
        if let Error::Os { target: at, .. } | Error::TimedOut { target: at, .. } = &mut error {
            *at = at.replace(&address.to_string(), &self.text(address));
        }
        error
    }
}

/// The port that a socket is bound to; 0 if it is not.
fn bound_port(socket: &Socket) -> u16 {
    let local = socket.options().local_addr().ok().and_then(|at| at.as_socket());
    local.map_or(0, |local| local.port())
}

/// Whether a connect that failed in this way may succeed a moment later: a server may be about to
/// start, or a network, or the name be about to be known.
fn is_temporary(error: &Error) -> bool {
    match error {
        Error::TimedOut { .. } | Error::Resolve { .. } => true,
        Error::Os { step: "connect", errno, .. } => matches!(
            *errno,
            libc::ECONNREFUSED
                | libc::ECONNRESET
                | libc::ECONNABORTED
                | libc::ENOENT
                | libc::EAGAIN
                | libc::ETIMEDOUT
                | libc::ENETUNREACH
                | libc::ENETDOWN
                | libc::EHOSTUNREACH
                | libc::EHOSTDOWN
        ),
        _ => false,
    }
}
