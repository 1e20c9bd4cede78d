//! How a stream connects: every address of a target in turn, the time-out for all of them together.
//! Must never leave half a handshake behind, nor ask a resolver on the caller's thread.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use socket2::Domain;

use super::{Deadline, Stream, set_option};
use crate::net::endpoint::{Endpoint, Target, canonical, display};
use crate::net::error::{Error, Result};
use crate::net::record::{Record, Role};
use crate::net::resolve;
use crate::net::socket::Socket;
use crate::net::sys::{self, PollFd};
use crate::net::wake::Waiter;

impl Stream {
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
            return Err(self.closed_error(step));
        }
        match &result {
            Ok(()) => {
                *self.pending.lock() = Some(canonical(address));
                self.note_connected(true);
            }
            Err(Error::Os { errno: libc::EINPROGRESS, .. }) => {
                *self.pending.lock() = Some(canonical(address));
            }
            Err(_) => {}
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
            // Begun by an earlier call that did not wait; a blocking one waits for it.
            Err(error)
                if error.raw_os_error() == Some(libc::EALREADY) && deadline.timeout.is_none() => {}
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
    pub(super) fn renew(&self, socket: &Socket, domain: Domain) -> io::Result<()> {
        let fresh = Socket::open(self.transport, domain)?;
        self.family.store(domain.into(), Relaxed);
        self.options.apply(&fresh, self.transport)?;
        for (level, name, value) in &*self.told.lock() {
            // One that fits only the other family is not worth failing for.
            let _ = set_option(fresh.as_fd(), *level, *name, value);
        }
        if self.timeout() == Some(Duration::ZERO) {
            fresh.options().set_nonblocking(true)?;
        }
        sys::replace(fresh.as_fd(), socket.as_fd())
    }

    /// Opens the account of a client, once it is connected: of one that did not wait for it, when
    /// that is first asked for. `certain` where it is known to be.
    pub(super) fn note_connected(&self, certain: bool) {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let mut pending = self.pending.lock();
        let peer = match *pending {
            Some(peer) if certain || self.peer_address().is_ok() => peer,
            // Connected by its double, perhaps.
            None if self.is_doubled() && self.record.get().is_none() => {
                let Ok(peer) = self.peer_address() else { return };
                canonical(peer)
            }
            _ => return,
        };
        *pending = None;
        *self.peer.lock() = Some(peer);
        if self.record.get().is_some() {
            return;
        }
        // Fails where the peer has reset already; what there was to account for is over then.
        if let (Ok(local), Ok(socket)) = (self.local_address(), self.hold("connect")) {
            let ends = [local, peer].map(|at| Endpoint::new(self.transport, at));
            let id = NUMBER.fetch_add(1, Relaxed);
            let record =
                Record::new(id, Role::Client, ends[0], ends[1]).with_socket(socket.as_fd());
            let _ = self.record.set(Arc::new(record));
        }
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
