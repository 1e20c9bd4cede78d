//! A pipe of the engine in bulk: bytes go from socket to socket through the kernel alone. Owns when
//! that begins and when it ends; must never be what finds out that a leg has ended, nor mix up the
//! order of what is copied and what is spliced.
//!
//! It begins after a read that filled the whole buffer, and ends when little comes at a time: then two
//! calls that move a few bytes cost more than copying them. What is in the pipe is the outbox of the
//! leg that it goes out on, so all that holds for an outbox holds for it.

use std::io;
use std::os::fd::AsFd;

use super::outbox::Outbox;
use super::serve::Turn;
use crate::net::service::session::Leg;
use crate::net::socket::splice_pipe::Pipe;

/// Less than this between two empty receive queues is copied from then on.
const WORTH_IT: usize = 16 * 1024;

/// What one look at a receive queue found.
enum Came {
    Bytes,
    /// The queue is empty.
    Nothing,
    /// Nothing for now, says splice, but not why: an end, urgent data, or a kind of socket it does not
    /// know.
    Unclear,
}

impl Turn<'_> {
    /// Moves bytes from one leg to another by a pipe, as far as they, the budget and the other side
    /// go. False where it could do nothing, and a read has to tell why.
    pub(super) fn splice(&mut self, leg: Leg, to: Leg) -> bool {
        let Some(mut pipe) = self.take_pipe(to) else {
            self.wire_mut(leg).bulk = false;
            return false;
        };
        let mut moved = 0;
        let mut clear = true;
        // The pipe is empty whenever it is filled: into a full one nothing goes either, and that would
        // look like an empty queue.
        while self.drain_pipe(to, &mut pipe) && pipe.held() == 0 && self.resources.budget > 0 {
            let Some(came) = self.fill(leg, &mut pipe) else { return true };
            moved += pipe.held();
            if !matches!(came, Came::Bytes) {
                let wire = self.wire_mut(leg);
                wire.bulk = moved >= WORTH_IT;
                clear = matches!(came, Came::Nothing) && !wire.drain_to_eagain;
                wire.readable = !clear;
                break;
            }
        }
        if pipe.held() > 0 && self.wire(to).send_error.is_none() {
            let wire = self.wire_mut(to);
            wire.blocked = true;
            wire.outbox = Some(Box::new(Outbox::Pipe(pipe)));
        } else {
            self.resources.pipes.give(pipe);
        }
        clear
    }

    /// The pipe that is a leg's outbox already, or a fresh one; None behind bytes that are copied.
    fn take_pipe(&mut self, to: Leg) -> Option<Pipe> {
        match self.wire_mut(to).outbox.take() {
            None => self.resources.pipes.take(),
            Some(outbox) => match *outbox {
                Outbox::Pipe(pipe) => Some(pipe),
                Outbox::Ring(_) => {
                    self.wire_mut(to).outbox = Some(outbox);
                    None
                }
            },
        }
    }

    /// None where the leg turned out to be broken.
    fn fill(&mut self, leg: Leg, pipe: &mut Pipe) -> Option<Came> {
        let most = self.resources.budget;
        loop {
            match pipe.fill(self.wire(leg).socket.as_fd(), most) {
                Ok(0) => return Some(Came::Unclear),
                Ok(count) => {
                    self.resources.budget -= count;
                    self.received(leg, count, None);
                    return Some(Came::Bytes);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return Some(Came::Nothing),
                    io::ErrorKind::InvalidInput => return Some(Came::Unclear),
                    _ => {
                        self.broken(leg, "recv", &error);
                        return None;
                    }
                },
            }
        }
    }

    /// Sends what is in a pipe, as far as the kernel takes it. False where the leg turned out to be broken.
    pub(super) fn drain_pipe(&mut self, to: Leg, pipe: &mut Pipe) -> bool {
        while pipe.held() > 0 && self.wire(to).writable {
            match pipe.drain(self.wire(to).socket.as_fd()) {
                // It never says so of a pipe with bytes in it; if it did, it would for ever.
                Ok(0) => {
                    self.broken(to, "send", &io::ErrorKind::WriteZero.into());
                    return false;
                }
                Ok(count) => {
                    // It counted when it came in.
                    let budget = self.resources.budget;
                    self.sent(to, count, None);
                    self.resources.budget = budget;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => self.wire_mut(to).writable = false,
                    _ => {
                        self.broken(to, "send", &error);
                        return false;
                    }
                },
            }
        }
        true
    }
}
