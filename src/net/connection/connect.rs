//! A connection's second leg: how it is opened, and given up. Must never block, nor decide where it
//! leads to.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;

use super::connection::{Connection, leg_token, register};
use super::leg::Wire;
use super::resources::WorkerResources;
use super::serve::Turn;
use crate::net::address::endpoint::{Address, Endpoint, Transport};
use crate::net::address::unix_name::UnixName;
use crate::net::base::fork;
use crate::net::ledger::record::Far;
use crate::net::service::session::Leg;
use crate::net::socket::socket::Socket;

/// The leg that a session opened.
pub(super) struct UpstreamLeg {
    pub(super) wire: Wire,
    /// Its account, until it is connected and the record has it.
    account: Option<Box<Far>>,
}

impl UpstreamLeg {
    /// Opens a socket and begins to connect it: the rest is an event.
    fn begin(resources: &WorkerResources, token: u64, target: Endpoint) -> io::Result<Self> {
        let socket = Socket::outward(&target, &resources.options)?;
        if target.transport == Transport::Unix {
            // A name of the system's choosing, by which a connection is known that comes back to us. One
            // without can be served all the same.
            let _ = socket.options().bind(&UnixName::unnamed().to_raw()?);
        }
        // A Unix socket is connected at once or, with EAGAIN, not at all: a queue is full, and nothing
        // would announce that it is not any more.
        match socket.options().connect(&target.address.to_raw()?) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let local = socket.options().local_addr()?;
        let local = Address::from_raw(&local).map_or_else(|| target.clone(), Endpoint::stream);
        if local == target {
            // Where nobody listens on a port that is the system's to give, it may give just that one,
            // and the socket is connected with itself.
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        }
        let mut wire = Wire::new(socket, target.transport);
        wire.connecting = true;
        wire.readable = false;
        wire.writable = false;
        register(resources, &wire.socket, leg_token(token, Leg::Upstream))?;
        Ok(Self { wire, account: Some(Box::new(Far::new(local, target))) })
    }
}

impl Connection {
    /// Closes a far leg that is not connected. What its events still say must not be taken for the next one's.
    fn give_up_upstream(&mut self, resources: &WorkerResources) {
        let Some(far) = self.far.take() else { return };
        if fork::has_forked() {
            // A child's copy would keep it in the poller.
            let fd = far.wire.socket.as_fd().as_raw_fd();
            let _ = resources.poll.registry().deregister(&mut SourceFd(&fd));
        }
    }
}

impl Turn<'_> {
    pub(super) fn begin_connect(&mut self, target: Endpoint) {
        if self.connection.far.as_ref().is_some_and(|far| !far.wire.connecting) {
            self.connection.due().refused = Some(libc::EISCONN);
            return;
        }
        self.connection.give_up_upstream(self.resources);
        match UpstreamLeg::begin(self.resources, self.token, target) {
            Ok(far) => self.connection.far = Some(Box::new(far)),
            // Told like any other failure, in the next turn: nothing calls back from here.
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.connection.due().refused = Some(errno);
            }
        }
    }

    /// What came of the far leg's connect, now that there is an event of it.
    pub(super) fn finish_connect(&mut self) -> Result<(), i32> {
        let Some(far) = &mut self.connection.far else { return Err(libc::ENOTCONN) };
        far.wire.connecting = false;
        far.wire.failed = false;
        let failed = match far.wire.socket.options().take_error() {
            Ok(None) => {
                if let Some(account) = far.account.take() {
                    self.connection.record.open_far(account);
                }
                return Ok(());
            }
            Ok(Some(error)) | Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        // The session decides what becomes of the near leg; there is no far one.
        self.connection.give_up_upstream(self.resources);
        Err(failed)
    }

    /// Our own end of the far leg.
    pub(super) fn upstream_local(&self) -> Option<Endpoint> {
        let far = self.connection.far.as_ref()?;
        let account = far.account.as_deref().or_else(|| self.connection.record.far());
        account.map(Far::local)
    }
}
