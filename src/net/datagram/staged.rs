//! The way of datagrams through the stages of their peers. Owns the limits that hold behind the
//! stages; must never wait, nor call a service.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::admission::Admission;
use super::peer_stages::PeerStages;
use super::send::{Sent, send_all};
use crate::net::base::panic_text;
use crate::net::ledger::ClosedBy;
use crate::net::service::SessionError;
use crate::net::stage::{Direction, StageError};
use crate::net::sys::Outgoing;

impl Admission {
    /// Whether a peer has stages.
    pub(super) fn is_staged(&self, index: u32) -> bool {
        self.peers.get(index).stages.is_some()
    }

    /// Gives a datagram to the stages of a peer. What they hold too much is dropped, and counted.
    /// False if the peer's record is closed after an error.
    pub(super) fn push_staged(&mut self, index: u32, direction: Direction, data: &[u8]) -> bool {
        let now = Instant::now();
        match self.with_stages(index, |stages| stages.push(now, direction, data)) {
            Some(true) => true,
            Some(false) => {
                self.context.ledger.count_dropped(1);
                true
            }
            None => false,
        }
    }

    /// Gives a received datagram to the stages of its peer. `to` is its destination, as
    /// `sys::destination` returns it. False if the peer's record is closed after an error.
    pub(super) fn receive_staged(
        &mut self,
        index: u32,
        data: &[u8],
        to: Option<(IpAddr, IpAddr)>,
        cut: bool,
    ) -> bool {
        let entry = self.peers.get_mut(index);
        entry.add_credit(data.len());
        if let Some(stages) = &mut entry.stages {
            stages.to = to;
            stages.has_cut |= cut;
        }
        self.push_staged(index, Direction::Inbound, data)
    }

    /// When the thread must act next without a datagram.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        let idle = self.peers.idle_at();
        self.peers.next_due().map_or(idle, |due| idle.map_or(Some(due), |idle| Some(due.min(idle))))
    }

    /// Calls the stages of a peer whose time has come. Returns its index; None if there is none.
    pub(super) fn turn_staged(&mut self, now: Instant) -> Option<u32> {
        while let Some(index) = self.peers.due_at(now) {
            if self.with_stages(index, |stages| stages.turn(now).map(|()| true)).is_some() {
                return Some(index);
            }
        }
        None
    }

    /// Gives a peer the faults that the server has now. False if its record is closed after an
    /// error.
    pub(super) fn update_faults(&mut self, index: u32) -> bool {
        let updated = self.peers.update_faults(index, Instant::now());
        self.peers.settle(index);
        updated.inspect_err(|SessionError(error)| self.fail(index, error.clone())).is_ok()
    }

    /// Puts the next datagram that the stages of a peer have passed to the service into `data`.
    /// False if there is none.
    pub(super) fn take_staged(&mut self, index: u32, data: &mut Vec<u8>) -> bool {
        let stages = &mut self.peers.get_mut(index).stages;
        stages.as_mut().is_some_and(|stages| stages.take(Direction::Inbound, data))
    }

    /// Sends what the stages of a peer have passed to it. What cannot be sent at once is dropped,
    /// and counted. A peer outside the loopback is sent no more bytes than it has sent, also where a
    /// fault doubles a datagram.
    ///
    /// True if a send has put something into the error queue.
    pub(super) fn send_staged(&mut self, index: u32) -> bool {
        let mut error_queued = false;
        let mut data = Vec::new();
        let remote = &self.peers.get(index).key.remote;
        let host = remote.as_ip().map(|remote| remote.ip());
        let is_group = host.is_some_and(|host| self.context.options.is_joined(host));
        let name = self.socket.name(remote);
        loop {
            let entry = self.peers.get_mut(index);
            let Some(stages) = &mut entry.stages else { break };
            if !stages.take(Direction::Outbound, &mut data) {
                break;
            }
            if !entry.is_loopback && !is_group && data.len() > entry.credit {
                self.context.ledger.count_dropped(1);
                continue;
            }
            let message = |_| Outgoing { data: &data, to: &name, control: &entry.route };
            let sent = |_| entry.record.count_sent(&data);
            let Sent { dropped, error_queued: queued } = send_all(&self.socket, 1, message, sent);
            if dropped == 0 {
                entry.take_credit(data.len());
            }
            error_queued |= queued;
            self.context.ledger.count_dropped(dropped as u64);
        }
        self.peers.settle(index);
        error_queued
    }

    /// Calls a function with the stages of a peer, which has some. None if the peer's record is
    /// closed after an error or a panic.
    fn with_stages(
        &mut self,
        index: u32,
        call: impl FnOnce(&mut PeerStages) -> Result<bool, StageError>,
    ) -> Option<bool> {
        let stages = self.peers.get_mut(index).stages.as_mut()?;
        let error = match catch_unwind(AssertUnwindSafe(|| call(stages))) {
            Ok(Ok(result)) => {
                self.peers.settle(index);
                return Some(result);
            }
            Ok(Err(SessionError(error))) => error,
            Err(panic) => panic_text(&*panic),
        };
        self.fail(index, error);
        None
    }

    fn fail(&mut self, index: u32, error: String) {
        self.context.count_error();
        self.peers.close(index, ClosedBy::Error, Some(error), false);
    }
}
