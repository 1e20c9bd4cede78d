//! Sends several datagrams by one system call. Must never block.

use std::os::fd::AsFd;

use super::errors::{Failure, classify};
use super::socket::DatagramSocket;
use crate::net::sys::{self, BATCH, Outgoing};

/// What came of several sends.
pub(super) struct Sent {
    pub(super) dropped: usize,
    /// A send was told of an earlier one that came to nothing, or failed itself: the error queue has the
    /// story, and it takes its room from what is received.
    pub(super) told: bool,
}

/// sendmmsg(2) of `count` datagrams, each of which `message` tells by its number; `sent` hears of those
/// that were sent. What cannot be sent at once is dropped.
pub(super) fn send_all<'a>(
    port: &DatagramSocket,
    count: usize,
    mut message: impl FnMut(usize) -> Outgoing<'a>,
    mut sent: impl FnMut(usize),
) -> Sent {
    let mut done = 0;
    let mut again = true;
    let (mut dropped, mut told) = (0, false);
    while done < count {
        let rest = count - done;
        let result =
            sys::send_many(port.as_fd(), rest, libc::MSG_DONTWAIT, |at| message(done + at));
        let error = match result {
            Ok(number) => {
                (done..done + number).for_each(&mut sent);
                done += number;
                again = true;
                // Ended early by an error, which the call does not name.
                told |= number < rest.min(BATCH);
                continue;
            }
            Err(error) => error,
        };
        match classify(error.raw_os_error().unwrap_or(libc::EIO)) {
            Failure::Interrupted => {}
            // Said of another datagram, mostly: this one is tried once more.
            Failure::Earlier if again => {
                told = true;
                again = false;
            }
            Failure::Earlier | Failure::ThisOne => {
                told = true;
                dropped += 1;
                done += 1;
                again = true;
            }
            Failure::Blocked | Failure::Exhausted | Failure::Fatal => {
                dropped += rest;
                break;
            }
        }
    }
    Sent { dropped, told }
}
