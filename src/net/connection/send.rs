//! How bytes go from the session, or from an outbox, to a socket. Owns the one call that sends and
//! the counting of what was sent. Must never send more than the turn's budget allows.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

use super::outbox::Outbox;
use super::serve::Turn;
use super::splice::Drained;
use crate::net::service::Leg;
use crate::net::sys;

impl Turn<'_> {
    /// The one place that sends: as much of `data` as the kernel and the budget take. Returns None
    /// where the leg turned out to be broken.
    pub(super) fn send(&mut self, leg: Leg, data: &[u8]) -> Option<usize> {
        let mut taken = 0;
        while taken < data.len() && self.resources.budget > 0 {
            let state = self.leg_mut(leg);
            match sys::send(state.socket.as_fd(), &data[taken..], 0) {
                Ok(count) => {
                    taken += count;
                    self.sent(leg, count, Some(&data[taken - count..taken]));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => {
                        state.writable = false;
                        break;
                    }
                    _ => {
                        self.broken(leg, "send", &error);
                        return None;
                    }
                },
            }
        }
        Some(taken)
    }

    /// Sends what is in an outbox, as far as the kernel and the budget allow.
    pub(super) fn flush(&mut self, leg: Leg) {
        let Some(mut outbox) = self.leg_mut(leg).outbox.take() else { return };
        let whole = match &mut *outbox {
            Outbox::Ring(ring) => self.flush_ring(leg, ring),
            Outbox::Pipe(pipe) => match self.drain_pipe(leg, pipe) {
                Drained::Sent => true,
                Drained::Broken => false,
                Drained::Refused => {
                    let Outbox::Pipe(pipe) = *outbox else { unreachable!("it was a pipe above") };
                    let Some(mut rest) = self.take_back(leg, pipe) else { return };
                    let whole = self.flush_ring(leg, &mut rest);
                    outbox = Box::new(Outbox::Ring(rest));
                    whole
                }
            },
            Outbox::Staged { .. } => unreachable!("a leg with stages is never writable"),
        };
        if !whole {
            return;
        }
        // Nothing can be kept behind a pipe, whose bytes go first.
        let low = if outbox.ring_mut().is_some() { self.resources.low_water() } else { 0 };
        let state = self.leg_mut(leg);
        if outbox.len() <= low {
            state.blocked = false;
        }
        if outbox.len() == 0 {
            self.resources.give_buffer(outbox);
        } else {
            state.outbox = Some(outbox);
        }
    }

    /// Returns false where the leg turned out to be broken.
    fn flush_ring(&mut self, leg: Leg, ring: &mut VecDeque<u8>) -> bool {
        while !ring.is_empty() && self.leg(leg).writable && self.resources.budget > 0 {
            // A ring has its bytes in two runs; the second comes first in the next round.
            let Some(count) = self.send(leg, ring.as_slices().0) else { return false };
            ring.drain(..count);
        }
        true
    }

    /// Counts what was sent; `data` is None for bytes that went through a pipe of the kernel's.
    pub(super) fn sent(&mut self, leg: Leg, count: usize, data: Option<&[u8]>) {
        self.resources.budget = self.resources.budget.saturating_sub(count);
        match leg {
            Leg::Client => match data {
                Some(data) => self.connection.record.count_sent(data),
                None => self.connection.record.count_sent_unseen(count),
            },
            Leg::Upstream => {
                self.connection.awaits_answer = true;
                self.connection.record.count_far_sent(count, data);
            }
        }
        self.progress();
    }
}
