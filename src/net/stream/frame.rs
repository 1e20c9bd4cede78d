//! Messages with their length in front. Owns the header, with the order in which threads send; must
//! never mix the frames of two threads, nor receive a byte of the frame after.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use super::deadline::Deadline;
use super::stream::Stream;
use super::turn::{Claim, TurnGuard};
use super::wait::Interest;
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};
use crate::net::sys;

/// How long a thread waits for its turn before it looks for signals and a close.
const PART: Duration = Duration::from_millis(100);

/// The header of a frame: an integer with the number of bytes after it.
#[derive(Clone, Copy, Debug)]
pub struct FrameHeader {
    /// 1, 2, 4 or 8 bytes.
    pub size: usize,
    /// Whether the least significant byte comes first.
    pub little: bool,
    /// Whether its first bit is a sign.
    pub signed: bool,
}

impl FrameHeader {
    /// The bytes of a header for `length` bytes; None where it has no room for the number.
    #[must_use]
    pub fn encode(self, length: usize) -> Option<Vec<u8>> {
        let bits = 8 * self.size - usize::from(self.signed);
        let length =
            u64::try_from(length).ok().filter(|&length| bits >= 64 || length >> bits == 0)?;
        Some(if self.little {
            length.to_le_bytes()[..self.size].to_vec()
        } else {
            length.to_be_bytes()[8 - self.size..].to_vec()
        })
    }

    /// The number in the bytes of a header. Negative only if the header has a sign.
    fn decode(self, bytes: &[u8]) -> i128 {
        let in_order: Vec<u8> =
            if self.little { bytes.iter().rev().copied().collect() } else { bytes.to_vec() };
        let number = in_order.iter().fold(0, |number, &byte| number << 8 | i128::from(byte));
        let sign = 1 << (8 * self.size - 1);
        if self.signed && number >= sign { number - 2 * sign } else { number }
    }
}

impl Stream {
    /// Receives one frame; its data is behind the first `header.size` bytes. None if the peer
    /// finishes before the first byte of a frame. An error carries the bytes that were taken, with
    /// those of the header.
    pub fn recv_frame(
        &self,
        header: FrameHeader,
        limit: usize,
        waiter: &mut dyn Waiter,
    ) -> Result<Option<Vec<u8>>> {
        let step = "recv_frame";
        self.needs_stream(step)?;
        let _held = self.hold(step)?;
        let mut deadline = self.receive_deadline(0);
        let mut taken = Vec::new();
        match self.fill_frame(step, header, limit, &mut taken, &mut deadline, waiter) {
            Ok(()) => Ok(Some(taken).filter(|taken| !taken.is_empty())),
            Err(error) => Err(error.amid(taken)),
        }
    }

    fn fill_frame(
        &self,
        step: &'static str,
        header: FrameHeader,
        limit: usize,
        taken: &mut Vec<u8>,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        self.fill(step, taken, header.size, deadline, waiter)?;
        if taken.is_empty() {
            return Ok(());
        }
        if taken.len() < header.size {
            let wanted = format!("a frame's header of {}", header.size);
            return Err(Error::Incomplete { wanted, got: taken.len() });
        }
        let length = header.decode(taken);
        let Some(length) = usize::try_from(length).ok().filter(|&length| length <= limit) else {
            return Err(Error::Value(format!(
                "recv_frame: a frame of {length} bytes, where the limit is {limit}"
            )));
        };
        waiter.breathe()?;
        let whole = length.saturating_add(header.size);
        self.fill(step, taken, whole, deadline, waiter)?;
        if taken.len() < whole {
            let wanted = format!("a frame of {whole}");
            return Err(Error::Incomplete { wanted, got: taken.len() });
        }
        Ok(())
    }

    /// Sends a frame as a whole: frames of several threads follow each other. `sent` is the number
    /// of bytes sent, also after an error.
    pub fn send_frame(
        &self,
        header: &[u8],
        data: &[u8],
        sent: &mut usize,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let step = "send_frame";
        self.needs_stream(step)?;
        let _held = self.hold(step)?;
        let mut deadline = self.send_deadline(0);
        let _turn = self.take_turn(step, &mut deadline, waiter)?;
        loop {
            let rest = &header[(*sent).min(header.len())..];
            let buffers =
                [IoSlice::new(rest), IoSlice::new(&data[sent.saturating_sub(header.len())..])];
            let interest = Interest::Writable;
            let part = self.attempt(step, interest, 0, &mut deadline, waiter, |fd, wait| {
                sys::sendmsg(fd, &buffers, &[], None, wait)
            })?;
            self.count_sent(part, buffers.iter().map(|buffer| &**buffer));
            *sent += part;
            if *sent == header.len() + data.len() {
                return Ok(());
            }
            waiter.breathe()?;
        }
    }

    /// Waits until no other thread is sending a frame.
    fn take_turn(
        &self,
        step: &'static str,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<TurnGuard> {
        loop {
            // Anew each time: a signal handler may fork in the wait below.
            let turn = &self.slot().turn;
            match turn.claim() {
                Claim::Taken(taken) => return Ok(taken),
                Claim::Own => {
                    let hint = "a signal handler cannot send a frame inside another one".to_owned();
                    let (target, errno) = (self.peer_text(), libc::EDEADLK);
                    return Err(Error::Os { step, target, errno, hint });
                }
                Claim::Other => {}
            }
            let now = Instant::now();
            if deadline.at().is_some_and(|at| at <= now) {
                let at_once = deadline.is_option || deadline.timeout == Some(Duration::ZERO);
                return Err(match at_once {
                    true => Error::errno(step, self.peer_text(), libc::EAGAIN),
                    false => Error::TimedOut { step, target: self.peer_text() },
                });
            }
            let until = deadline.at().map_or(now + PART, |at| at.min(now + PART));
            waiter.release(&mut || turn.wait(until));
            if self.is_closed() {
                return Err(self.closed_error(step));
            }
            // Looks for signals.
            waiter.wait(&mut [], Some(now))?;
        }
    }
}
