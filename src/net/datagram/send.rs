//! The sending of several datagrams by one system call. Owns the handling of errors in the middle
//! of a batch; must never block.

use std::os::fd::AsFd;

use super::errors::{Failure, classify};
use super::socket::DatagramSocket;
use crate::net::sys::{self, BATCH, Outgoing};

/// The result of several sends.
pub(super) struct Sent {
    pub(super) dropped: usize,
    /// A send failed, or reported an error of an earlier one. The details are in the error queue,
    /// which takes space from the receive buffer until it is read.
    pub(super) error_queued: bool,
}

/// Calls sendmmsg(2) for `count` datagrams. `message` returns a datagram by its number; `on_sent`
/// is called with the number of each one that was sent. What cannot be sent at once is dropped.
pub(super) fn send_all<'a>(
    socket: &DatagramSocket,
    count: usize,
    mut message: impl FnMut(usize) -> Outgoing<'a>,
    mut on_sent: impl FnMut(usize),
) -> Sent {
    let mut done = 0;
    let mut may_retry = true;
    let (mut dropped, mut error_queued) = (0, false);
    while done < count {
        let rest = count - done;
        let result =
            sys::send_many(socket.as_fd(), rest, libc::MSG_DONTWAIT, |at| message(done + at));
        let error = match result {
            Ok(number) => {
                (done..done + number).for_each(&mut on_sent);
                done += number;
                may_retry = true;
                // The call stopped early because of an error, which it does not return.
                error_queued |= number < rest.min(BATCH);
                continue;
            }
            Err(error) => error,
        };
        match classify(error.raw_os_error().unwrap_or(libc::EIO)) {
            Failure::Interrupted => {}
            // The error is usually that of an earlier datagram, so this one is tried once more.
            Failure::Earlier if may_retry => {
                error_queued = true;
                may_retry = false;
            }
            Failure::Earlier | Failure::ThisOne => {
                error_queued = true;
                dropped += 1;
                done += 1;
                may_retry = true;
            }
            Failure::Blocked | Failure::Exhausted | Failure::Fatal => {
                dropped += rest;
                break;
            }
        }
    }
    Sent { dropped, error_queued }
}
