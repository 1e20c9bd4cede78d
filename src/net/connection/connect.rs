//! Connecting the upstream leg of a connection. Owns when one is opened and when it is given up.
//! Must never block, nor decide where it leads.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;

use super::connection::Connection;
use super::leg::{Input, LegState};
use super::resources::WorkerResources;
use super::serve::Turn;
use super::upstream::{Rival, UpstreamLeg, outcome};
use crate::net::address::{Endpoint, Transport};
use crate::net::base::fork;
use crate::net::control::forward_loops::MOST_HOPS;
use crate::net::error::strerror;
use crate::net::ledger::{Far, FarEvent};
use crate::net::socket::{Socket, hops};

impl Connection {
    /// Makes one end of a socket pair the upstream leg. It is not read before the session resumes
    /// it.
    pub(crate) fn put_inner(&mut self, socket: Socket) {
        let mut state = LegState::new(socket, Transport::Unix);
        state.input = Input::Paused;
        self.upstream = Some(Box::new(UpstreamLeg { inner: true, ..UpstreamLeg::of(state) }));
    }

    /// Whether the upstream leg is one end of a socket pair.
    pub(crate) fn has_inner(&self) -> bool {
        self.upstream.as_ref().is_some_and(|upstream| upstream.inner)
    }

    /// Closes an upstream leg that is not connected. Its events must not be taken for those of
    /// the next one.
    fn give_up_upstream(&mut self, resources: &WorkerResources) {
        let Some(upstream) = self.upstream.take() else { return };
        let UpstreamLeg { state, rivals, .. } = *upstream;
        give_up(state.socket, resources);
        rivals.into_iter().for_each(|rival| give_up(rival.socket, resources));
    }
}

/// What a trace has of a connect that has failed.
fn failed(target: &Endpoint, errno: i32) -> FarEvent {
    FarEvent::Failed(format!("{target}: {}", strerror(errno)).into())
}

/// What a trace has of the end of a connect.
fn outcome_of(account: &Far, result: Result<(), i32>) -> FarEvent {
    match result {
        Ok(()) => FarEvent::Connected(Box::new(account.local())),
        Err(errno) => failed(&account.remote(), errno),
    }
}

/// Closes a socket that is not connected, or that is not needed any more.
fn give_up(socket: Socket, resources: &WorkerResources) {
    if fork::has_forked() {
        // A forked child's copy would keep it in the poller.
        let fd = socket.as_fd().as_raw_fd();
        let _ = resources.poll.registry().deregister(&mut SourceFd(&fd));
    }
}

impl Turn<'_> {
    pub(super) fn begin_connect(&mut self, target: Endpoint) {
        if self.connection.upstream.as_ref().is_some_and(|upstream| !upstream.state.connecting) {
            self.connection.due().refused = Some(libc::EISCONN);
            return;
        }
        self.connection.give_up_upstream(self.resources);
        match self.open_upstream(target) {
            Ok(upstream) => self.connection.upstream = Some(Box::new(upstream)),
            // Reported in the next turn, like any other failure: `Io` never calls back into the
            // session.
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.connection.due().refused = Some(errno);
            }
        }
    }

    /// Begins a connect that carries the number of forwarders which the connection has passed.
    /// ELOOP if they are too many.
    fn open_upstream(&mut self, target: Endpoint) -> io::Result<UpstreamLeg> {
        let Connection { client, record, hops, .. } = &mut *self.connection;
        // The kernel tells it once.
        let passed = *hops.get_or_insert_with(|| {
            let local = record.local().address;
            hops::of_stream(&client.socket, &local, &record.socket_peer().address)
        });
        let traced = record.is_traced().then(|| target.clone());
        record.note_connect(|| FarEvent::Connect(Box::new(target.clone())));
        let begun = if passed < MOST_HOPS {
            UpstreamLeg::begin(self.resources, self.token, target, passed + 1)
        } else {
            Err(io::Error::from_raw_os_error(libc::ELOOP))
        };
        if let (Err(error), Some(target)) = (&begun, traced) {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            record.note_connect(|| failed(&target, errno));
        }
        begun
    }

    /// As `begin_connect`, but a connect that is in progress goes on beside this one.
    pub(super) fn begin_another_connect(&mut self, target: Endpoint) {
        let may_race = |upstream: &mut Box<UpstreamLeg>| {
            upstream.state.connecting && !upstream.state.unix && target.transport == Transport::Tcp
        };
        let Some(before) = self.connection.upstream.take_if(may_race) else {
            return self.begin_connect(target);
        };
        match self.open_upstream(target) {
            Ok(mut upstream) => {
                let UpstreamLeg { state, account, mut rivals, .. } = *before;
                rivals.push(Rival { socket: state.socket, account });
                upstream.rivals = rivals;
                upstream.has_raced = true;
                self.connection.upstream = Some(Box::new(upstream));
            }
            Err(error) => {
                self.connection.upstream = Some(before);
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                self.connection.due().refused = Some(errno);
            }
        }
    }

    /// The outcome of a connect, after an event of one of several sockets that were being
    /// connected. None if all are still on their way. The first that is connected becomes the leg.
    fn finish_race(&mut self) -> Option<Result<(), i32>> {
        let upstream = self.connection.upstream.as_deref_mut()?;
        let UpstreamLeg { state, account, rivals, .. } = upstream;
        // The event may have been that of any of them.
        state.readable = false;
        state.writable = false;
        state.drain_to_eagain = false;
        state.failed = false;
        let sockets = rivals.iter().map(|rival| &rival.socket).chain([&state.socket]);
        let mut outcomes = sockets.map(outcome).enumerate();
        let (at, result) = outcomes.find_map(|(at, outcome)| Some((at, outcome?)))?;
        drop(outcomes);
        if let Some(rival) = rivals.get_mut(at) {
            std::mem::swap(&mut rival.socket, &mut state.socket);
            std::mem::swap(&mut rival.account, account);
        }
        if let Some(account) = account {
            self.connection.record.note_connect(|| outcome_of(account, result));
        }
        match (result, rivals.pop()) {
            (Ok(()), last) => {
                state.connecting = false;
                state.readable = true;
                state.writable = true;
                for rival in last.into_iter().chain(std::mem::take(rivals)) {
                    give_up(rival.socket, self.resources);
                }
                if let Some(account) = account.take() {
                    self.connection.record.open_far(account);
                }
            }
            (Err(_), Some(other)) => {
                // The others may have outcomes too, which no event tells again.
                state.writable = true;
                *account = other.account;
                give_up(std::mem::replace(&mut state.socket, other.socket), self.resources);
            }
            (Err(_), None) => self.connection.give_up_upstream(self.resources),
        }
        Some(result)
    }

    /// The outcome of the upstream leg's connect, after an event of it. None while several connects
    /// are in progress, and none has an outcome.
    pub(super) fn finish_connect(&mut self) -> Option<Result<(), i32>> {
        let Some(upstream) = &mut self.connection.upstream else {
            return Some(Err(libc::ENOTCONN));
        };
        if upstream.has_raced {
            return self.finish_race();
        }
        upstream.state.connecting = false;
        upstream.state.failed = false;
        let failed = match upstream.state.socket.options().take_error() {
            Ok(None) => {
                if let Some(account) = upstream.account.take() {
                    self.connection.record.note_connect(|| outcome_of(&account, Ok(())));
                    self.connection.record.open_far(account);
                }
                return Some(Ok(()));
            }
            Ok(Some(error)) | Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
        };
        if let Some(account) = &upstream.account {
            self.connection.record.note_connect(|| outcome_of(account, Err(failed)));
        }
        // The session decides what becomes of the client leg; there is no other.
        self.connection.give_up_upstream(self.resources);
        Some(Err(failed))
    }

    /// Our own end of the upstream leg.
    pub(super) fn upstream_local(&self) -> Option<Endpoint> {
        let upstream = self.connection.upstream.as_ref()?;
        let account = upstream.account.as_deref().or_else(|| self.connection.record.far());
        account.map(Far::local)
    }
}
