//! The peers that one UDP socket has admitted, under the limits of its server. Owns the rules by
//! which a record of a peer opens or closes; must never send a datagram, nor wait.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::amplification;
use super::amplification::{SenderPolicy, is_loopback};
use super::peer_table::{Key, Peers};
use super::socket::DatagramSocket;
use crate::net::address::{Address, canonical};
use crate::net::control::{Overflow, ServerContext};
use crate::net::error::strerror;
use crate::net::ledger::{ClosedBy, Refusal};
use crate::net::sys;

/// After this many datagrams from a peer, its address is checked again: the server of another
/// process may have bound the port since.
const RECHECK_AFTER: u64 = 1024;

/// The admitted peers of a socket.
pub(super) struct Admission {
    pub(super) context: Arc<ServerContext>,
    pub(super) socket: Arc<DatagramSocket>,
    pub(super) peers: Peers,
    pub(super) policy: SenderPolicy,
    /// Whether every sender is heard. The caller's own code decides what it answers; a service in
    /// Rust hears only those that it may answer.
    hears_all: bool,
    /// The most records that this socket may have open, a share of the server's limit. Only its own
    /// records can be closed for a new one.
    share: usize,
}

impl Admission {
    /// A record closes after `idle` without a datagram.
    pub(super) fn new(
        context: Arc<ServerContext>,
        socket: Arc<DatagramSocket>,
        idle: Option<Duration>,
        share: usize,
    ) -> Self {
        let peers = Peers::new(Arc::clone(&context), idle);
        Self { context, socket, peers, policy: SenderPolicy::new(), hears_all: false, share }
    }

    /// The same for the caller's own code, which hears every sender.
    pub(super) fn hearing_all(self) -> Self {
        Self { hears_all: true, ..self }
    }

    /// The index of the sender's record, opened if there is none. None if the sender is not heard,
    /// which is counted. `to` is the destination, as `sys::destination` returns it.
    /// `settle` is called before a record closes, to send the replies that wait for that peer.
    pub(super) fn find_or_admit(
        &mut self,
        remote: Address,
        to: Option<(IpAddr, IpAddr)>,
        settle: &mut dyn FnMut(&Peers),
    ) -> Option<u32> {
        if let Some(reason) = self.context.access.refusal(Some(&remote)) {
            self.context.ledger.count_refused(reason);
            return None;
        }
        if to.is_some_and(|to| !amplification::was_unicast(to)) && !self.hears_all {
            self.context.ledger.count_suspect();
            return None;
        }
        let key = Key::new(remote, to);
        let remote = key.remote.as_ip();
        if let Some(index) = self.peers.find_and_touch(&key) {
            let received = self.peers.get(index).record.received().messages;
            if received % RECHECK_AFTER != 0 || self.hears_all || !self.is_server(remote) {
                return Some(index);
            }
            settle(&self.peers);
            self.peers.close(index, ClosedBy::Service, None, false);
            self.context.ledger.count_suspect();
            return None;
        }
        let may_hear = self.hears_all
            || !remote.is_some_and(amplification::is_suspect) && !self.is_server(remote);
        if !may_hear {
            self.context.ledger.count_suspect();
            return None;
        }
        self.admit(key, settle)
    }

    /// Opens a record. None if the limits do not allow another one, which is counted.
    pub(super) fn admit(&mut self, key: Key, settle: &mut dyn FnMut(&Peers)) -> Option<u32> {
        if !self.context.admission.enter_host(key.remote.as_ip()) {
            self.context.ledger.count_refused(Refusal::PerHost);
            return None;
        }
        let waits = self.context.limits.overflow == Overflow::Wait;
        while (waits && self.peers.count() >= self.share) || !self.context.admission.enter() {
            let Some(oldest) = self.peers.oldest().filter(|_| waits) else {
                if let Some(host) = key.remote.as_ip() {
                    self.context.admission.leave_host(host);
                }
                self.context.ledger.count_refused(Refusal::Connections);
                return None;
            };
            settle(&self.peers);
            self.peers.close(oldest, ClosedBy::Limit("connections"), None, false);
        }
        // The kernel guarantees the name of a Unix socket's peer.
        let is_trusted = key.remote.as_ip().is_none_or(is_loopback);
        Some(self.peers.open(key, &self.socket, is_trusted))
    }

    fn is_server(&mut self, remote: Option<SocketAddr>) -> bool {
        remote.is_some_and(|remote| self.policy.is_server(remote))
    }

    /// Closes the records of peers at whose address a UDP server has started since.
    pub(super) fn close_servers(&mut self) {
        if !self.policy.has_changed() {
            return;
        }
        for index in self.peers.indices() {
            let remote = self.peers.get(index).key.remote.as_ip();
            if self.is_server(remote) {
                self.peers.close(index, ClosedBy::Service, None, false);
            }
        }
    }

    /// Reads the ICMP errors for datagrams sent before, and closes the records of the peers whose
    /// port is closed.
    pub(super) fn read_error_queue(&mut self) {
        if self.socket.is_unix() {
            // There is no error queue: the call would receive a datagram.
            return;
        }
        while let Some((address, errno)) = sys::take_refusal(self.socket.as_fd()) {
            if errno == libc::ECONNREFUSED {
                if let Some(index) = self.peers.find_by_remote(&canonical(address).into()) {
                    self.peers.close(index, ClosedBy::Reset, Some(strerror(errno)), false);
                }
            }
        }
    }
}
