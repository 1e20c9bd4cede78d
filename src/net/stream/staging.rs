//! The stages of a client: its connection goes to a worker, and the client keeps one end of a socket
//! pair. Owns the step from one to the other; must never leave a client connected without its
//! stages.

use std::fmt::Display;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::deadline::Deadline;
use super::option::{is_of_outer, set_option};
use super::owner::{InnerEnd, OuterEnd, Owned, Staging};
use super::slot::StreamSocket;
use super::stream::Stream;
use super::wait::Interest;
use crate::net::address::{Address, Target};
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};
use crate::net::ledger::{ClosedBy, SocketClose};
use crate::net::socket::Socket;

impl Stream {
    /// Has the connections of a client that is not connected go through stages.
    pub(crate) fn set_staging(&mut self, staging: Arc<dyn Staging>) {
        if let Some(connecting) = &mut self.connecting {
            connecting.staging = Some(staging);
        }
    }

    fn staging(&self) -> Option<&Arc<dyn Staging>> {
        self.connecting.as_ref()?.staging.as_ref()
    }

    /// Refuses a connect that could not put the connection behind its stages: one that does not
    /// wait returns before there is a connection, and in a forked child the client belongs to the
    /// parent.
    pub(super) fn check_staging(&self, target: &Target) -> Result<()> {
        let waits = self.timeout() != Some(Duration::ZERO);
        if self.has_preface() && !waits {
            return Err(Error::Value(
                "connect: a client with proxy_protocol has to wait for its connection; set the \
                 time-out to 0 after it"
                    .to_owned(),
            ));
        }
        let Some(staging) = self.staging() else { return Ok(()) };
        if !waits {
            return Err(Error::Value(
                "connect: a client with faults or TLS has to wait for its connection; set the \
                 time-out to 0 after it"
                    .to_owned(),
            ));
        }
        self.origin().check()?;
        staging.prepare(target)
    }

    /// Gives the connection of this client to its stages, if it has any. Where that fails, the
    /// connection is reset, and the client may connect again.
    pub(super) fn put_stages(
        &self,
        address: &Address,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let Some(staging) = self.staging() else {
            self.note_connected(true, None);
            return Ok(());
        };
        let done = self.hand_over(&**staging);
        done.map_err(|error| {
            if let Ok(socket) = self.hold("connect") {
                if self.renew(&socket, address.domain()).is_err() {
                    socket.reset();
                }
            }
            Error::os("connect", address, &error)
        })?;
        let opened = self.wait_for_opening("connect", address, deadline, waiter);
        if opened.is_err() && self.is_here() {
            // Its record is that of this connection: it is not used for another one.
            self.abort();
        }
        opened
    }

    /// Waits until the stages are ready, such as for the end of a handshake.
    pub(super) fn wait_for_opening(
        &self,
        step: &'static str,
        address: impl Display,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let Some(outer) = self.outer() else { return Ok(()) };
        let Some(flag) = outer.opening() else { return Ok(()) };
        let waiting = self.begin_wait(Interest::Readable);
        let waited = waiter.wait(&mut [flag.polled()], deadline.at());
        drop(waiting);
        if self.is_here() {
            outer.forget_opening();
        }
        if !waited? {
            return Err(Error::TimedOut { step, target: address.to_string() });
        }
        self.origin().check()?;
        if self.is_closed() {
            return Err(self.closed_error(step));
        }
        if outer.is_open() {
            // What has ended it since then is for the next call.
            return Ok(());
        }
        match outer.end() {
            Some(OuterEnd::Tls(kind)) => {
                let text = outer.tls_error().unwrap_or_default().to_owned();
                Err(Error::Tls { step, target: address.to_string(), text, kind })
            }
            Some(OuterEnd::Failed(errno)) => Err(Error::errno(step, address, errno)),
            Some(OuterEnd::Limit(name)) => Err(self.over_limit(&*self.hold(step)?, step, name)),
            _ => Err(Error::errno(step, address, libc::ECONNRESET)),
        }
    }

    fn hand_over(&self, staging: &dyn Staging) -> io::Result<()> {
        let closed = |_| io::Error::from_raw_os_error(libc::EBADF);
        let held = self.hold("connect").map_err(closed)?;
        let (inner, place) = staging.reserve()?;
        for (level, name, value) in &*self.slot().set_options.lock() {
            if !is_of_outer(*level, *name) {
                // The outer socket has it already; the pair may lack it.
                let _ = set_option(inner.as_fd(), *level, *name, value);
            }
        }
        let outer = Socket::new(held.as_fd().try_clone_to_owned()?);
        outer.options().set_nonblocking(true)?;
        self.note_connected(true, Some(&outer));
        // None if the peer has reset the connection meanwhile, which the next call finds.
        let Some(record) = self.record.get() else {
            return outer.options().set_nonblocking(false);
        };
        inner.replace(&held)?;
        self.renewals.fetch_add(1, SeqCst);
        let socket = Arc::clone(held.socket.as_ref().expect("held"));
        let inner: Weak<dyn InnerEnd> = Arc::<StreamSocket>::downgrade(&socket);
        drop(socket);
        self.put_owned(place.take(outer, record, inner));
        Ok(())
    }

    /// Links a client with the worker that has taken its connection.
    pub(super) fn put_owned(&self, owned: Owned) {
        // A client connects once: a second connect finds a connected socket.
        let _ = self.owned.set(owned);
        if self.is_closed() {
            // That close may have found no worker to tell.
            self.settle(ClosedBy::Local, None, SocketClose::ResetByWorker);
        }
    }
}
