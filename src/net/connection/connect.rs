//! Connecting the upstream leg of a connection. Owns when one is opened and when it is given up. Must never
//! block, nor decide where it leads.

use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;

use super::connection::Connection;
use super::leg::{Input, LegState};
use super::resources::WorkerResources;
use super::serve::Turn;
use super::upstream::UpstreamLeg;
use crate::net::address::{Endpoint, Transport};
use crate::net::base::fork;
use crate::net::ledger::Far;
use crate::net::socket::Socket;

impl Connection {
    /// Makes one end of a socket pair the upstream leg. It is not read before the session resumes it.
    pub(crate) fn put_inner(&mut self, socket: Socket) {
        let mut state = LegState::new(socket, Transport::Unix);
        state.input = Input::Paused;
        self.upstream =
            Some(Box::new(UpstreamLeg { state, account: None, inner: true, left_unread: false }));
    }

    /// Whether the upstream leg is one end of a socket pair.
    pub(super) fn has_inner(&self) -> bool {
        self.upstream.as_ref().is_some_and(|upstream| upstream.inner)
    }

    /// Closes an upstream leg that is not connected. Its events must not be taken for those of
    /// the next one.
    fn give_up_upstream(&mut self, resources: &WorkerResources) {
        let Some(upstream) = self.upstream.take() else { return };
        if fork::has_forked() {
            // A forked child's copy would keep it in the poller.
            let fd = upstream.state.socket.as_fd().as_raw_fd();
            let _ = resources.poll.registry().deregister(&mut SourceFd(&fd));
        }
    }
}

impl Turn<'_> {
    pub(super) fn begin_connect(&mut self, target: Endpoint) {
        if self.connection.upstream.as_ref().is_some_and(|upstream| !upstream.state.connecting) {
            self.connection.due().refused = Some(libc::EISCONN);
            return;
        }
        self.connection.give_up_upstream(self.resources);
        match UpstreamLeg::begin(self.resources, self.token, target) {
            Ok(upstream) => self.connection.upstream = Some(Box::new(upstream)),
            // Reported in the next turn, like any other failure: `Io` never calls back into the session.
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.connection.due().refused = Some(errno);
            }
        }
    }

    /// The outcome of the upstream leg's connect, after an event of it.
    pub(super) fn finish_connect(&mut self) -> Result<(), i32> {
        let Some(upstream) = &mut self.connection.upstream else { return Err(libc::ENOTCONN) };
        upstream.state.connecting = false;
        upstream.state.failed = false;
        let failed = match upstream.state.socket.options().take_error() {
            Ok(None) => {
                if let Some(account) = upstream.account.take() {
                    self.connection.record.open_far(account);
                }
                return Ok(());
            }
            Ok(Some(error)) | Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        // The session decides what becomes of the client leg; there is no other.
        self.connection.give_up_upstream(self.resources);
        Err(failed)
    }

    /// Our own end of the upstream leg.
    pub(super) fn upstream_local(&self) -> Option<Endpoint> {
        let upstream = self.connection.upstream.as_ref()?;
        let account = upstream.account.as_deref().or_else(|| self.connection.record.far());
        account.map(Far::local)
    }
}
