//! Who has been let in by one port: the peers with accounts, and the rules that let nobody else in. Must never
//! send anything, nor wait.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::amplification;
use super::amplification::{SenderPolicy, is_loopback};
use super::peer_table::{Key, Peers};
use super::socket::{DatagramSocket, DatagramSockets};
use crate::net::address::canonical;
use crate::net::control::{Overflow, ServerContext};
use crate::net::error::strerror;
use crate::net::ledger::ClosedBy;
use crate::net::sys;

/// A peer is looked at anew after so many datagrams: another process's server may have got its port.
const LOOK_AGAIN: u64 = 1024;

/// The peers of a port.
pub(super) struct Admission {
    pub(super) context: Arc<ServerContext>,
    pub(super) port: Arc<DatagramSocket>,
    pub(super) peers: Peers,
    pub(super) policy: SenderPolicy,
    /// The accounts it may have, of those of the server: only its own can it close for a new one.
    share: usize,
}

impl Admission {
    /// `idle` is after which silence an account is closed.
    pub(super) fn new(
        context: Arc<ServerContext>,
        sockets: Arc<DatagramSockets>,
        port: Arc<DatagramSocket>,
        idle: Option<Duration>,
        share: usize,
    ) -> Self {
        let peers = Peers::new(Arc::clone(&context), sockets, idle);
        Self { context, port, peers, policy: SenderPolicy::new(), share }
    }

    /// The account of whoever sent a datagram; None where it gets no answer, which is counted. `to` is
    /// where it was sent to, as `sys::destination` tells it. Before an account is closed `settle` is
    /// called, for what is owed.
    pub(super) fn meet(
        &mut self,
        remote: SocketAddr,
        to: Option<(IpAddr, IpAddr)>,
        settle: &mut dyn FnMut(&Peers),
    ) -> Option<u32> {
        if to.is_some_and(|to| !amplification::was_for_us(to)) {
            self.context.ledger.count_suspect();
            return None;
        }
        let key = Key { remote, local: to.map(|(_, own)| own) };
        if let Some(index) = self.peers.find(&key) {
            let heard = self.peers.get(index).record.received().messages;
            if heard % LOOK_AGAIN != 0 || !self.policy.is_server(remote) {
                return Some(index);
            }
            settle(&self.peers);
            self.peers.close(index, ClosedBy::Service, None, false);
            self.context.ledger.count_suspect();
            return None;
        }
        if amplification::is_suspect(remote) || self.policy.is_server(remote) {
            self.context.ledger.count_suspect();
            return None;
        }
        self.admit(key, settle)
    }

    /// Opens an account; None where the limits have no place for one, which is counted.
    pub(super) fn admit(&mut self, key: Key, settle: &mut dyn FnMut(&Peers)) -> Option<u32> {
        if !self.context.admission.enter_host(Some(key.remote)) {
            self.context.ledger.count_refused();
            return None;
        }
        let waits = self.context.limits.overflow == Overflow::Wait;
        while (waits && self.peers.count() >= self.share) || !self.context.admission.enter() {
            let Some(oldest) = self.peers.oldest().filter(|_| waits) else {
                self.context.admission.leave_host(key.remote);
                self.context.ledger.count_refused();
                return None;
            };
            settle(&self.peers);
            self.peers.close(oldest, ClosedBy::Limit("connections"), None, false);
        }
        Some(self.peers.open(key, &self.port, is_loopback(key.remote)))
    }

    /// If a server has come to the address of a peer, that is no client any more.
    pub(super) fn close_servers(&mut self) {
        if !self.policy.has_changed() {
            return;
        }
        for index in self.peers.indices() {
            if self.policy.is_server(self.peers.get(index).key.remote) {
                self.peers.close(index, ClosedBy::Service, None, false);
            }
        }
    }

    /// Reads what ICMP said of datagrams that were sent before, and closes the accounts of those that
    /// nobody is there for.
    pub(super) fn hear_refusals(&mut self) {
        while let Some((address, errno)) = sys::take_refusal(self.port.as_fd()) {
            if errno == libc::ECONNREFUSED {
                if let Some(index) = self.peers.of(canonical(address)) {
                    self.peers.close(index, ClosedBy::Reset, Some(strerror(errno)), false);
                }
            }
        }
    }
}
