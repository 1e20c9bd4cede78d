//! Datagrams for calls of `accept`. Owns the wait of such a call, with the thread that closes the
//! socket when the server ends; must never receive a datagram that no call has asked for.

use std::io::{self, IoSliceMut};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::admission::Admission;
use super::errors::{Failure, classify};
use super::handoff::{Arrival, Handoff, Staged};
use super::socket::{DatagramSocket, DatagramSockets};
use crate::net::address::Address;
use crate::net::base::{EventFd, Waiter, poll_own};
use crate::net::control::ServerContext;
use crate::net::error::{Error, Result};
use crate::net::sys::{self, Name, PollFd, Received};
use crate::net::worker::{ACCEPT_BACKOFF, shut_down};

/// Room for the control messages of one datagram.
const CONTROL: usize = 128;

impl Handoff {
    /// Waits for the next datagram and copies as much of it as fits into `buffer`. Returns the
    /// length, the sender, and the address that it was sent to; None once the server ends.
    pub(crate) fn receive(
        &self,
        buffer: &mut [u8],
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Option<(usize, Address, Address)>> {
        let Some(socket) = self.socket() else { return Ok(None) };
        let mut call =
            Call { handoff: self, socket: &socket, deadline, waiter, control: [0; CONTROL] };
        loop {
            if socket.has_ended() {
                return Ok(None);
            }
            let received = match self.arrived.take(&socket) {
                Some(Staged { data, arrival }) => {
                    let length = data.len().min(buffer.len());
                    buffer[..length].copy_from_slice(&data[..length]);
                    Some((length, arrival))
                }
                None => call.attempt(buffer)?,
            };
            if let Some((length, arrival)) = received {
                return Ok(Some((length, arrival.key.remote, arrival.to)));
            }
        }
    }
}

/// A call of `accept`.
struct Call<'a> {
    handoff: &'a Handoff,
    socket: &'a DatagramSocket,
    deadline: Option<Instant>,
    waiter: &'a mut dyn Waiter,
    control: [u8; CONTROL],
}

impl Call<'_> {
    /// Receives a datagram. Otherwise waits until there may be another one.
    fn attempt(&mut self, buffer: &mut [u8]) -> Result<Option<(usize, Arrival)>> {
        let Self { handoff, socket, control, .. } = self;
        let mut from = Name::room();
        let received = sys::recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(buffer)],
            control,
            &mut from,
            libc::MSG_DONTWAIT,
        );
        let (bytes, length, flags) = match received {
            Ok(received) => received,
            Err(error) => return self.wait_after(&error).map(|()| None),
        };
        let received = Received {
            data: &buffer[..bytes],
            from: &from,
            control: &control[..length],
            cut: flags & libc::MSG_TRUNC != 0,
        };
        let mut keep = |staged| handoff.arrived.push(socket, staged);
        match handoff.record_received(&received, &mut keep) {
            // Removed faults have passed on earlier ones of this peer meanwhile.
            Some(arrival) if handoff.arrived.is_any() => {
                let data = received.data.to_vec();
                handoff.arrived.push(socket, Staged { data, arrival });
                Ok(None)
            }
            Some(arrival) => Ok(Some((bytes, arrival))),
            None => {
                self.waiter.breathe()?;
                handoff.context.origin.check()?;
                Ok(None)
            }
        }
    }

    /// Waits, after an error of a receive, until another one may succeed.
    fn wait_after(&mut self, error: &io::Error) -> Result<()> {
        let Self { handoff, socket, deadline, .. } = *self;
        let (context, step) = (&handoff.context, "accept");
        let target = || socket.local.to_string();
        let mut fds = [PollFd::arrival(socket.as_fd()), socket.notifier.polled()];
        let until = match classify(error.raw_os_error().unwrap_or(libc::EIO)) {
            Failure::Fatal => {
                context.fail(error);
                return Err(Error::os(step, target(), error));
            }
            Failure::Earlier => {
                handoff.with(Admission::read_error_queue);
                return Ok(());
            }
            Failure::Blocked | Failure::Interrupted => deadline,
            Failure::Exhausted | Failure::ThisOne => {
                context.ledger.count_accept_error();
                fds[0] = PollFd::unused();
                let rest = Instant::now() + ACCEPT_BACKOFF;
                Some(deadline.map_or(rest, |deadline| deadline.min(rest)))
            }
        };
        let ready = context.wait_for(&mut fds, until, self.waiter)?;
        if fds[0].is_shut() && !socket.has_ended() {
            context.fail(&shut_down());
        }
        if fds[0].failed() {
            // A receive may not report the error, and the next wait would return at once.
            handoff.with(Admission::read_error_queue);
        }
        if !ready && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Error::TimedOut { step, target: target() });
        }
        Ok(())
    }
}

/// Starts the thread that closes the socket when the server ends. Until then callers receive from
/// it.
pub(super) fn start(
    context: &Arc<ServerContext>,
    sockets: &Arc<DatagramSockets>,
    socket: DatagramSocket,
    notifier: Arc<EventFd>,
) -> io::Result<Arc<Handoff>> {
    let (handoff, socket) = Handoff::open(context, sockets, socket, Arc::clone(&notifier));
    let body = Arc::clone(&handoff);
    let wait = move || wait_for_end(&body, &socket, &notifier);
    let started = context.spawn("rsock-accept".to_owned(), wait);
    started.inspect_err(|_| handoff.close(false))?;
    Ok(handoff)
}

/// Waits for the end of the server. `DatagramSocket::end` wakes the callers that wait for a
/// datagram.
fn wait_for_end(handoff: &Arc<Handoff>, socket: &DatagramSocket, notifier: &EventFd) {
    while !socket.has_ended() {
        let mut fds = [notifier.polled(), PollFd::shutdown(socket.as_fd())];
        let polled = match poll_own(&mut fds, handoff.next_turn()) {
            Ok(polled) => polled,
            Err(error) => {
                handoff.context.fail(&error);
                break;
            }
        };
        notifier.clear();
        if polled && fds[1].failed() {
            // The poll would return at once again.
            handoff.with(Admission::read_error_queue);
        }
        if polled && fds[1].is_shut() && !socket.has_ended() {
            // By another of its owners. No call of `accept` may be there to notice it.
            handoff.context.fail(&shut_down());
        }
        handoff.turn(&mut |staged| handoff.arrived.push(socket, staged));
        handoff.close_idle();
    }
    // What the caller has sent is still delivered. What has arrived is discarded, as in the kernel.
    handoff.drain(&[notifier], |handoff| {
        handoff.turn(&mut drop);
        handoff.with(|admission| admission.peers.owe()).unwrap_or(false)
    });
    handoff.close(handoff.context.shutdown.is_hard());
}
