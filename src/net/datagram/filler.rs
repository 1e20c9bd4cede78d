//! Datagrams for the pool of handler threads. Owns the thread that fills the pool's queue; must
//! never call a handler.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::admission::Admission;
use super::errors::{Failure, classify};
use super::handoff::{Arrival, Handoff, Staged};
use super::socket::{DatagramSocket, DatagramSockets, LEAST_IN_QUEUE};
use crate::net::base::EventFd;
use crate::net::control::ServerContext;
use crate::net::handoff::{Answers, Datagram, Job, ThreadPool};
use crate::net::sys::{self, BATCH, Inbound};
use crate::net::worker::{ACCEPT_BACKOFF, shut_down};

/// How many datagrams wait for a thread of the pool. Others wait in the kernel's buffer.
const QUEUE: usize = 64;

/// Starts the thread that hands datagrams to the pool.
pub(super) fn start(
    context: &Arc<ServerContext>,
    sockets: &Arc<DatagramSockets>,
    socket: DatagramSocket,
    notifier: Arc<EventFd>,
    pool: &Arc<ThreadPool>,
) -> io::Result<Arc<Handoff>> {
    let inbound = Inbound::new(context.limits.datagram, socket.tells_destination())?;
    let timer = Arc::clone(&socket.notifier);
    let (handoff, socket) = Handoff::open(context, sockets, socket, timer);
    let pool = Arc::clone(pool);
    let filler = Filler { handoff: Arc::clone(&handoff), pool, socket, inbound };
    let started = context.spawn("rsock-worker-0".to_owned(), move || filler.run(&notifier));
    started.inspect_err(|_| handoff.close(false))?;
    Ok(handoff)
}

/// Fills the pool's queue until the server ends, then waits for the handlers.
struct Filler {
    handoff: Arc<Handoff>,
    pool: Arc<ThreadPool>,
    socket: Arc<DatagramSocket>,
    inbound: Inbound,
}

impl Filler {
    fn run(mut self, notifier: &EventFd) {
        let context = Arc::clone(&self.handoff.context);
        if let Err(error) = self.fill_until_end() {
            context.fail(&error);
        }
        self.pool.handed_out.begin_drain();
        if !context.shutdown.is_hard() && !self.socket.is_handed_over() {
            // What is in the kernel's queue now is still handed out, and is no more than the
            // receive buffer holds. Later datagrams are not.
            let mut left = sys::queued(self.socket.as_fd()) / LEAST_IN_QUEUE;
            while left > 0 && Instant::now() < context.shutdown.deadline() {
                let Ok(Some(count)) = self.hand_out(left, libc::MSG_DONTWAIT) else { break };
                left -= count.min(left);
            }
        }
        if context.faults.is_used() {
            let flags = [notifier, &self.socket.notifier];
            let (handoff, pool) = (&self.handoff, &self.pool);
            handoff.drain(&flags, |handoff| {
                turn(handoff, pool);
                let is_owed = handoff.with(|admission| admission.peers.are_owed());
                // A handler that works may still answer.
                is_owed.unwrap_or(false) || !pool.handed_out.exempt().1
            });
        }
        self.pool.drain(notifier);
        self.handoff.close(context.shutdown.is_hard());
    }

    fn fill_until_end(&mut self) -> io::Result<()> {
        let mut blocks = self.allow_blocking();
        while !self.socket.has_ended() {
            if self.handoff.changes.is_pending() {
                turn(&self.handoff, &self.pool);
                blocks |= self.allow_blocking();
            }
            let flags = self.socket.receive_flags(&mut blocks);
            let room = QUEUE.saturating_sub(self.pool.queued());
            if room == 0 {
                self.pool.ask_for_room(&self.socket.notifier);
                // A thread that took a job before this request did not set the flag.
                if self.pool.queued() >= QUEUE {
                    self.socket.wait_for_notifier(self.handoff.next_turn());
                } else {
                    self.pool.forget_room();
                }
            } else if self.hand_out(room.min(BATCH), flags)?.is_none()
                // Also on a socket that blocks: another of its owners may have made it
                // non-blocking.
                && self.socket.wait(self.handoff.next_turn())?
            {
                self.handoff.with(Admission::read_error_queue);
            }
            turn(&self.handoff, &self.pool);
            self.handoff.close_idle();
        }
        Ok(())
    }

    /// Lets the thread wait inside the receive call, if nothing else has to end that wait. Returns
    /// whether it does.
    fn allow_blocking(&self) -> bool {
        let context = &self.handoff.context;
        if context.limits.idle.is_none() {
            self.socket.allow_blocking(&context.faults, &self.handoff.changes);
        }
        self.socket.blocks()
    }

    /// Receives a batch and hands it out. None if nothing was received.
    fn hand_out(&mut self, most: usize, flags: i32) -> io::Result<Option<usize>> {
        let Self { handoff, pool, socket, inbound } = self;
        let error = match inbound.receive(socket.as_fd(), most, flags) {
            Ok(count) => {
                for slot in 0..count {
                    let received = inbound.get(slot);
                    match socket.sender(received.from, received.data) {
                        None if !socket.has_ended() => return Err(shut_down()),
                        Some(from) if socket.is_wake_up(&from) => continue,
                        _ => {}
                    }
                    let mut ready = Vec::new();
                    let mut keep = |staged| ready.push(staged);
                    if let Some(arrival) = handoff.record_received(&received, &mut keep) {
                        push(handoff, pool, Staged { data: received.data.to_vec(), arrival });
                    }
                    ready.into_iter().for_each(|staged| push(handoff, pool, staged));
                }
                return Ok(Some(count));
            }
            Err(error) => error,
        };
        match classify(error.raw_os_error().unwrap_or(libc::EIO)) {
            Failure::Fatal => return Err(error),
            Failure::Exhausted | Failure::ThisOne => {
                handoff.context.ledger.count_accept_error();
                socket.wait_for_notifier(Some(Instant::now() + ACCEPT_BACKOFF));
            }
            Failure::Earlier => {
                handoff.with(Admission::read_error_queue);
            }
            Failure::Blocked | Failure::Interrupted => {}
        }
        Ok(None)
    }
}

/// Calls the stages that are due, and gives what they pass on to the pool.
fn turn(handoff: &Arc<Handoff>, pool: &ThreadPool) {
    let mut ready = Vec::new();
    handoff.turn(&mut |staged| ready.push(staged));
    ready.into_iter().for_each(|staged| push(handoff, pool, staged));
}

/// Gives a datagram to a thread of the pool.
fn push(handoff: &Arc<Handoff>, pool: &ThreadPool, staged: Staged) {
    let Staged { data, arrival: Arrival { key: peer, to, record } } = staged;
    let job = pool.handed_out.add(Weak::new());
    let datagram = Datagram {
        answers: Arc::clone(handoff) as Arc<dyn Answers>,
        context: Arc::clone(&handoff.context),
        handed_out: Arc::clone(&pool.handed_out),
        job,
        data,
        from: peer.remote,
        own: peer.local,
        to,
        record,
    };
    if handoff.context.ordered {
        pool.push_in_turn(job, datagram);
    } else {
        pool.push(job, Job::Datagram(datagram));
    }
}
