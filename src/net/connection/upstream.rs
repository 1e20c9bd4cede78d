//! The upstream leg of a connection: the socket of a target that a session connects to, or a
//! worker's end of a socket pair. Must never block, nor decide where it leads.

use std::io;

use super::leg::LegState;
use super::resources::WorkerResources;
use crate::net::address::{Address, Endpoint, Transport, UnixName};
use crate::net::ledger::Far;
use crate::net::service::Leg;
use crate::net::socket::{Socket, hops};

/// The leg that a session opened.
pub(super) struct UpstreamLeg {
    pub(super) state: LegState,
    /// Its account, until it is connected and the record has it.
    pub(super) account: Option<Box<Far>>,
    /// Whether it is a worker's end of a socket pair, whose other end a handler has.
    pub(super) inner: bool,
    /// The handler has closed that end before it had read everything.
    pub(super) left_unread: bool,
    /// While it is being connected: earlier attempts with other targets, which go on.
    pub(super) rivals: Vec<Rival>,
    /// There were several attempts: an event of the leg may be that of another socket.
    pub(super) has_raced: bool,
}

/// A connect in progress that may still become the leg.
pub(super) struct Rival {
    pub(super) socket: Socket,
    pub(super) account: Option<Box<Far>>,
}

/// How far a connect in progress has come. A failure is reported once.
pub(super) fn outcome(socket: &Socket) -> Option<Result<(), i32>> {
    match socket.options().take_error() {
        Ok(Some(error)) | Err(error) => Some(Err(error.raw_os_error().unwrap_or(libc::EIO))),
        Ok(None) => socket.options().peer_addr().is_ok().then_some(Ok(())),
    }
}

impl UpstreamLeg {
    /// Our side and the target of each connect in progress, oldest first.
    pub(super) fn attempts(&self) -> Vec<(Endpoint, Endpoint)> {
        let rivals = self.rivals.iter().map(|rival| &rival.account);
        let accounts = rivals.chain(self.state.connecting.then_some(&self.account));
        accounts.flatten().map(|account| (account.local(), account.remote())).collect()
    }

    /// The leg of a socket, which has no account.
    pub(super) fn of(state: LegState) -> Self {
        Self {
            state,
            account: None,
            inner: false,
            left_unread: false,
            rivals: Vec::new(),
            has_raced: false,
        }
    }

    /// Opens a socket and begins to connect it. An event reports the outcome. `hops` is the number
    /// of forwarders that the connection has passed, with this one.
    pub(super) fn begin(
        resources: &WorkerResources,
        token: u64,
        target: Endpoint,
        hops: u8,
    ) -> io::Result<Self> {
        let socket = Socket::outward(&target, &resources.options)?;
        if target.transport == Transport::Unix {
            // A name by which a connection that comes back is recognised. One that the system
            // chooses, or none, can be served all the same.
            let bind = |name: UnixName| socket.options().bind(&name.to_raw()?);
            let _ = bind(hops::name(hops)).or_else(|_| bind(UnixName::unnamed()));
        } else {
            hops::mark(&socket, target.address.domain(), hops);
        }
        // A Unix socket is connected at once or, with EAGAIN, not at all: the listener's queue is
        // full, and no event would announce room in it.
        match socket.options().connect(&target.address.to_raw()?) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        if socket.is_connected_to_itself(&target.address) {
            // With FIN, the port would be in TIME-WAIT, and the target could not bind it for a
            // minute.
            socket.abort();
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        }
        let local = socket.options().local_addr()?;
        let local = Address::from_raw(&local).map_or_else(|| target.clone(), Endpoint::stream);
        let mut state = LegState::new(socket, target.transport);
        state.connecting = true;
        state.readable = false;
        state.writable = false;
        state.register(resources, token, Leg::Upstream)?;
        let account = Some(Box::new(Far::new(local, target)));
        Ok(Self { account, ..Self::of(state) })
    }
}
