//! Splicing: bytes that a session has piped go from socket to socket through the kernel alone. Owns
//! when that begins and when it ends. Must never decide that a leg has ended, nor change the order
//! of what is copied and what is spliced.
//!
//! Splicing begins after a read that filled the whole buffer, and ends when little comes at a time:
//! two calls that move a few bytes cost more than a copy of them. What is in the pipe is the outbox
//! of the leg that it goes out on, and everything that holds for an outbox holds for it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;

use super::leg::Delivery;
use super::outbox::Outbox;
use super::serve::Turn;
use crate::net::service::Leg;
use crate::net::socket::Pipe;

/// Where less than this comes between two empty receive queues, bytes are copied from then on.
const SPLICE_MINIMUM: usize = 16 * 1024;

/// What one splice from a receive queue found.
enum Filled {
    Bytes,
    /// The queue is empty.
    Nothing,
    /// Nothing, for a reason that splice does not give: an end, urgent data, a kind of socket that
    /// it does not support, or a system on which it is not available.
    Unclear,
}

/// What became of the bytes in a pipe.
pub(super) enum Drained {
    /// They are sent, as far as the kernel takes them.
    Sent,
    /// splice(2) is not available: they have to be copied.
    Refused,
    /// The leg turned out to be broken.
    Broken,
}

impl Turn<'_> {
    /// Moves bytes from one leg to another through a pipe, as far as the budget and the other leg
    /// allow. Returns false where a read has to find out more.
    pub(super) fn splice(&mut self, leg: Leg, to: Leg) -> bool {
        let Some(mut pipe) = self.take_pipe(to) else {
            self.leg_mut(leg).delivery = Delivery::Copy(to);
            return false;
        };
        let mut moved = 0;
        let mut clear = true;
        loop {
            match self.drain_pipe(to, &mut pipe) {
                // The pipe is filled only when it is empty: EAGAIN of a full pipe would look like
                // an empty queue.
                Drained::Sent if pipe.held() == 0 && self.resources.budget > 0 => {}
                Drained::Sent | Drained::Broken => break,
                Drained::Refused => {
                    self.leg_mut(leg).delivery = Delivery::Copy(to);
                    if let Some(rest) = self.take_back(to, pipe) {
                        let state = self.leg_mut(to);
                        state.blocked = true;
                        state.outbox = Some(Box::new(Outbox::Ring(rest)));
                    }
                    return true;
                }
            }
            let Some(filled) = self.fill(leg, &mut pipe) else { return true };
            moved += pipe.held();
            if !matches!(filled, Filled::Bytes) {
                let state = self.leg_mut(leg);
                if moved < SPLICE_MINIMUM {
                    state.delivery = Delivery::Copy(to);
                }
                clear = matches!(filled, Filled::Nothing) && !state.drain_to_eagain;
                state.readable = !clear;
                break;
            }
        }
        if pipe.held() > 0 && self.leg(to).writing.error().is_none() {
            let state = self.leg_mut(to);
            state.blocked = true;
            state.outbox = Some(Box::new(Outbox::Pipe(pipe)));
        } else {
            self.resources.pipes.give(pipe);
        }
        clear
    }

    /// The pipe that is a leg's outbox already, or a new one; None behind bytes that are copied.
    fn take_pipe(&mut self, to: Leg) -> Option<Pipe> {
        match self.leg_mut(to).outbox.take() {
            None => self.resources.pipes.take(),
            Some(outbox) => match *outbox {
                Outbox::Pipe(pipe) => Some(pipe),
                Outbox::Ring(_) | Outbox::Staged { .. } => {
                    self.leg_mut(to).outbox = Some(outbox);
                    None
                }
            },
        }
    }

    /// Returns None where the leg turned out to be broken.
    fn fill(&mut self, leg: Leg, pipe: &mut Pipe) -> Option<Filled> {
        let most = self.resources.budget;
        loop {
            match pipe.fill(self.leg(leg).socket.as_fd(), most) {
                Ok(0) => return Some(Filled::Unclear),
                Ok(count) => {
                    self.resources.budget -= count;
                    self.received(leg, count, None);
                    return Some(Filled::Bytes);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return Some(Filled::Nothing),
                    io::ErrorKind::InvalidInput => return Some(Filled::Unclear),
                    _ if self.is_refusal(leg, &error) => {
                        self.resources.pipes.give_up();
                        return Some(Filled::Unclear);
                    }
                    _ => {
                        self.broken(leg, "recv", &error);
                        return None;
                    }
                },
            }
        }
    }

    /// Sends what is in a pipe, as far as the kernel takes it.
    pub(super) fn drain_pipe(&mut self, to: Leg, pipe: &mut Pipe) -> Drained {
        while pipe.held() > 0 && self.leg(to).writable {
            match pipe.drain(self.leg(to).socket.as_fd()) {
                // Never of a pipe with bytes in it; but if it were, the loop would not end.
                Ok(0) => {
                    self.broken(to, "send", &io::ErrorKind::WriteZero.into());
                    return Drained::Broken;
                }
                Ok(count) => {
                    // The bytes were counted when they came in.
                    let budget = self.resources.budget;
                    self.sent(to, count, None);
                    self.resources.budget = budget;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => self.leg_mut(to).writable = false,
                    _ if self.is_refusal(to, &error) => {
                        self.resources.pipes.give_up();
                        return Drained::Refused;
                    }
                    _ => {
                        self.broken(to, "send", &error);
                        return Drained::Broken;
                    }
                },
            }
        }
        Drained::Sent
    }

    /// Takes the bytes out of a pipe that cannot be drained by splice(2); None where the leg turned
    /// out to be broken.
    pub(super) fn take_back(&mut self, to: Leg, pipe: Pipe) -> Option<VecDeque<u8>> {
        match pipe.into_bytes() {
            Ok(bytes) => Some(bytes.into()),
            Err(error) => {
                self.broken(to, "send", &error);
                None
            }
        }
    }

    /// Whether an error of splice(2) is one of the call itself, which a kernel or a filter
    /// (seccomp(2)) refuses by any errno, and not one of the connection. An error of the connection
    /// is reported once, and has ended it.
    fn is_refusal(&self, leg: Leg, error: &io::Error) -> bool {
        let ended = matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::TimedOut
        );
        !ended && self.leg(leg).socket.options().peer_addr().is_ok()
    }
}
