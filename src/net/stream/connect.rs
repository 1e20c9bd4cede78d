//! The connect of a stream. Owns the order in which a target's addresses are tried, under one
//! time-out for all of them; must never leave half a handshake behind, nor call a resolver on the
//! caller's thread.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use socket2::Domain;

use super::deadline::Deadline;
use super::stream::{Stream, set_option};
use crate::net::address::{Address, Endpoint, Target, Transport, resolve};
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};
use crate::net::ledger::{Record, Role};
use crate::net::socket::{Socket, peer_credentials};
use crate::net::sys::PollFd;

/// How long one connect(2) blocks in the kernel before the call looks for signals and a close.
const PART: Duration = Duration::from_millis(100);

impl Stream {
    /// Connects to the first address of `target` that answers: connect(2). The time-out covers all
    /// addresses together.
    pub fn connect(&self, target: &Target, waiter: &mut dyn Waiter) -> Result<()> {
        let mut deadline = self.deadline(0);
        let until = deadline.at();
        // Even a call that may not wait resolves its target: a numeric address needs no resolver,
        // and for a name there is no other way.
        let until = if deadline.timeout == Some(Duration::ZERO) { None } else { until };
        let addresses = resolve::addresses(target, false, until, waiter)?;
        let mut first: Option<Error> = None;
        let last = addresses.len() - 1;
        for (number, address) in addresses.into_iter().enumerate() {
            let mut result = self.connect_to(&address, number > 0, &mut deadline, waiter);
            if let Err(Error::Os { target: at, .. } | Error::TimedOut { target: at, .. }) =
                &mut result
            {
                *at = at.replace(&address.to_string(), &target_text(target, &address));
            }
            match result {
                // The error of a socket that is in use does not depend on the address.
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
        address: &Address,
        after_failure: bool,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let step = "connect";
        let socket = self.hold(step)?;
        let failed = |error: &io::Error| Error::os(step, address, error);
        let domain = socket.options().domain().map_err(|error| failed(&error))?;
        let another = domain != address.domain();
        let bound = socket.options().local_addr().ok().and_then(|at| at.as_socket());
        // A bound socket keeps its port, which peers may know already. The kernel decides what it
        // can connect to; an IPv6 socket also reaches IPv4.
        let is_known = self.is_datagram() && bound.is_some_and(|at| at.port() != 0);
        if another && !is_known && socket.options().peer_addr().is_ok() {
            // Another family requires another socket, and this one is in use.
            return Err(Error::errno(step, address, libc::EISCONN));
        }
        if address.as_unix().is_some() {
            self.options.check_unix()?;
            if self.source.is_some() {
                return Err(Error::Value(format!(
                    "source_address: a Unix socket such as {address} has no host and port"
                )));
            }
        }
        if (after_failure || another) && !is_known {
            self.renew(&socket, address.domain()).map_err(|error| failed(&error))?;
        }
        if let Some(source) = self.source {
            let bound = socket.options().local_addr().ok().and_then(|at| at.as_socket());
            if bound.is_none_or(|at| at.port() == 0) {
                socket
                    .options()
                    .bind(&source.into())
                    .map_err(|error| Error::os("bind", Address::Ip(source), &error))?;
            }
        }
        // Non-blocking during the handshake, so that the wait can be interrupted.
        let blocking = deadline.timeout != Some(Duration::ZERO);
        socket.options().set_nonblocking(true).map_err(|error| failed(&error))?;
        let result = self.handshake(&socket, address, deadline, waiter);
        if blocking {
            socket.options().set_nonblocking(false).map_err(|error| failed(&error))?;
        }
        if self.is_closed() {
            return Err(self.closed_error(step));
        }
        let pending = || *self.pending.lock() = Some(address.clone().canonical());
        match &result {
            Ok(()) => {
                pending();
                self.note_connected(true);
            }
            Err(Error::Os { errno: libc::EINPROGRESS, .. }) => pending(),
            Err(_) => {}
        }
        if matches!(result, Err(Error::Interrupted | Error::TimedOut { .. })) {
            // A socket with half a handshake cannot be used again, so a new one replaces it.
            let _ = self.renew(&socket, address.domain());
        }
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
        if !waiter.wait(&mut [PollFd::writable(socket.as_fd())], deadline.at())? {
            return Err(Error::TimedOut { step, target: address.to_string() });
        }
        // A second connect(2) returns the outcome and clears it. If SO_ERROR were read instead, the
        // next connect on this socket would return the outcome of this one.
        socket.options().connect(&raw).map_err(|error| failed(&error))
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

    /// Puts a new socket under the same descriptor number, with all options that were set on this
    /// one.
    pub(super) fn renew(&self, socket: &Socket, domain: Domain) -> io::Result<()> {
        // A TCP stream becomes a Unix one, and the reverse, to fit the address.
        let transport = match (domain, self.transport) {
            (Domain::UNIX, _) => Transport::Unix,
            (_, Transport::Unix) => Transport::Tcp,
            (_, transport) => transport,
        };
        let fresh = Socket::open(transport, domain)?;
        self.family.store(domain.into(), Relaxed);
        self.options.apply(&fresh, transport)?;
        let errno = |error: Error| error.raw().unwrap_or(libc::EIO);
        let joined = self.options.join_groups(&fresh, domain);
        joined.map_err(|error| io::Error::from_raw_os_error(errno(error)))?;
        for (level, name, value) in &*self.set_options.lock() {
            // An option that fits only the other family must not fail the call.
            let _ = set_option(fresh.as_fd(), *level, *name, value);
        }
        if self.timeout() == Some(Duration::ZERO) {
            fresh.options().set_nonblocking(true)?;
        }
        let old = socket.options().try_clone();
        fresh.replace(socket)?;
        self.renewals.fetch_add(1, SeqCst);
        if let Ok(old) = old {
            // Wakes threads that wait on the old socket, so that they try the new one. Ends a
            // handshake in progress.
            let _ = old.shutdown(Shutdown::Both);
        }
        Ok(())
    }

    /// Opens the record of a client once it is connected. After a non-blocking connect that happens
    /// when the record is first read. `certain` means that the connection is known to be
    /// established.
    pub(super) fn note_connected(&self, certain: bool) {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let mut pending = self.pending.lock();
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
        *self.peer.lock() = Some(peer.clone());
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
            let record = match peer_credentials(&*socket) {
                Some(peer) if self.is_unix() => record.with_credentials(Some(peer)),
                _ => record.with_socket(socket.as_fd()),
            };
            let _ = self.record.set(Arc::new(record));
        }
    }
}

/// The text for a target in errors: a name is followed by the address that was tried.
fn target_text(target: &Target, address: &Address) -> String {
    if target.known().is_some() { address.to_string() } else { format!("{target} ({address})") }
}
