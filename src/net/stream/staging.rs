//! The stages of a client: its connection goes to a worker, and the client keeps one end of a socket
//! pair. Owns the step from one to the other; must never leave a client connected without its
//! stages.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Weak};

use super::option::{is_of_outer, set_option};
use super::owner::{InnerEnd, Staging};
use super::slot::StreamSocket;
use super::stream::Stream;
use crate::net::address::Address;
use crate::net::error::{Error, Result};
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
    pub(super) fn check_staging(&self) -> Result<()> {
        if self.staging().is_none() {
            return Ok(());
        }
        if self.timeout().is_some_and(|timeout| timeout.is_zero()) {
            return Err(Error::Value(
                "connect: a client with faults has to wait for its connection; set the time-out \
                 to 0 after it"
                    .to_owned(),
            ));
        }
        self.origin().check()
    }

    /// Gives the connection of this client to its stages, if it has any. Where that fails, the
    /// connection is reset, and the client may connect again.
    pub(super) fn put_stages(&self, address: &Address) -> Result<()> {
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
        })
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
        // A client connects once: a second connect finds a connected socket.
        let _ = self.owned.set(place.take(outer, record, inner));
        Ok(())
    }
}
