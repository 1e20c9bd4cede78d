//! The message calls of a stream: recvmsg(2), sendmsg(2), with several buffers and with control
//! messages. Owns where a receive of several parts ends; must never take bytes that follow received
//! descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, IntoRawFd, OwnedFd};
use std::time::Instant;

use super::deadline::Deadline;
use super::stream::Stream;
use super::wait::{Interest, Transferred};
use crate::net::address::{Address, Target, UnixName};
use crate::net::base::Waiter;
use crate::net::error::Result;
use crate::net::sys::{self, Name, PollFd};

/// linux/socket.h; libc has no name for it.
const SCM_PIDFD: i32 = 4;

/// The result of recvmsg(2).
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The number of bytes of data.
    pub bytes: usize,
    /// The number of bytes of control messages.
    pub control: usize,
    /// MSG_EOR, MSG_TRUNC, MSG_CTRUNC, MSG_OOB, MSG_ERRQUEUE.
    pub flags: i32,
    /// The sender of a datagram.
    pub from: Option<Address>,
    /// Whether it carries neither bytes nor descriptors, and is no datagram.
    nothing: bool,
}

impl Message {
    /// Whether a receive with MSG_WAITALL ends after this part. It ends after bytes that came with
    /// descriptors, as in the kernel: the bytes that follow have descriptors of their own. It also
    /// ends where there was no room for the descriptors.
    pub(super) fn ends_receive(&self, control: &[u8], unix: bool) -> bool {
        let cut = self.flags & libc::MSG_CTRUNC != 0;
        unix && (cut || sys::has_descriptors(&control[..self.control]))
    }
}

impl Transferred for Message {
    fn is_nothing(&self) -> bool {
        self.nothing
    }
}

impl Stream {
    /// Calls recvmsg(2) with several buffers and control messages. Waits and ends like `recv`.
    pub fn receive_message(
        &self,
        step: &'static str,
        buffers: &mut [IoSliceMut<'_>],
        control: &mut [u8],
        flags: i32,
        waiter: &mut dyn Waiter,
    ) -> Result<Message> {
        let requested = room(buffers);
        let mut deadline = self.receive_deadline(flags);
        let least = self.least(flags, requested);
        if least <= 1 {
            return self.receive_part(step, buffers, control, flags, 0, &mut deadline, waiter);
        }
        let _held = self.hold(step)?;
        if flags & libc::MSG_PEEK != 0 {
            self.wait_for_input(step, least, &mut deadline, waiter)?;
            return self.receive_part(step, buffers, control, flags, 0, &mut deadline, waiter);
        }
        let mut message = Message::default();
        let received = {
            let mut slices: Vec<_> =
                buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            let mut rest = slices.as_mut_slice();
            loop {
                let before = message.bytes;
                let more = self.receive_more(
                    step,
                    rest,
                    control,
                    flags,
                    &mut message,
                    &mut deadline,
                    waiter,
                );
                match more {
                    Ok(true) if message.bytes < least => {
                        IoSliceMut::advance_slices(&mut rest, message.bytes - before);
                    }
                    other => break other,
                }
            }
        };
        match received {
            Ok(_) => Ok(message),
            Err(error) => {
                let taken = buffers.iter().flat_map(|buffer| buffer.iter().copied());
                Err(error.after(taken.take(message.bytes).collect()))
            }
        }
    }

    /// Receives one more part of a call that waits for several, into the buffers that are left.
    /// Adds it to `message`; returns whether another part may follow.
    #[allow(clippy::too_many_arguments, reason = "the arguments of recvmsg, with those of a wait")]
    pub(super) fn receive_more(
        &self,
        step: &'static str,
        rest: &mut [IoSliceMut<'_>],
        control: &mut [u8],
        flags: i32,
        message: &mut Message,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<bool> {
        let taken = message.bytes;
        if taken > 0 {
            // Not after the last part: an exception would take the place of a complete message,
            // and nothing would own the descriptors in it.
            waiter.breathe()?;
        }
        // The kernel returns one descriptor of the sender's process for the whole receive
        // (SO_PASSPIDFD). Here each part has its own, and the caller gets the last one.
        let earlier = received_pidfd(&control[..message.control]);
        let part = self.receive_part(step, rest, control, flags, taken, deadline, waiter);
        match part {
            Ok(part) if part.bytes > 0 || taken == 0 => {
                let more = part.bytes > 0 && !part.ends_receive(control, self.is_unix());
                *message = Message { bytes: taken + part.bytes, ..part };
                Ok(more)
            }
            // The end: what came before is the result.
            Ok(_) => {
                let _ = earlier.map(IntoRawFd::into_raw_fd);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// One recvmsg(2) of a call that has already taken `taken` bytes. After the first byte, the end
    /// of input, an error or the urgent mark returns nothing, and stays for the next call.
    #[allow(clippy::too_many_arguments, reason = "the arguments of recvmsg, with those of a wait")]
    pub(super) fn receive_part(
        &self,
        step: &'static str,
        buffers: &mut [IoSliceMut<'_>],
        control: &mut [u8],
        flags: i32,
        taken: usize,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<Message> {
        let requested = room(buffers);
        let interest = if taken > 0 { Interest::Input } else { Interest::Readable };
        let mut ended = None;
        let message = self.attempt(step, interest, requested, deadline, waiter, |fd, wait| {
            if taken > 0 && sys::unread(fd) == 0 {
                let mut input = [PollFd::input(fd)];
                let announced = sys::poll(&mut input, Some(Instant::now()))? > 0;
                // Checked again, because input may have arrived between the two calls.
                if announced && sys::unread(fd) == 0 {
                    ended = Some(input[0].ended());
                    return Ok(Message { nothing: true, ..Message::default() });
                }
                if !announced {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            }
            receive(fd, buffers, control, flags | wait)
        })?;
        match ended {
            Some(true) => self.saw_end(),
            Some(false) => {}
            None => {
                let parts = buffers.iter().map(|buffer| &**buffer);
                self.count_received(message.bytes, parts, requested, flags);
            }
        }
        Ok(message)
    }

    /// Calls sendmsg(2) with several buffers and control messages. Sends as much as there is room
    /// for. `target` is the destination of a datagram on an unconnected socket; a stream ignores
    /// it.
    pub fn send_message(
        &self,
        buffers: &[IoSlice<'_>],
        control: &[u8],
        flags: i32,
        target: Option<&Target>,
        waiter: &mut dyn Waiter,
    ) -> Result<usize> {
        let step = "sendmsg";
        let (address, to) = match target {
            Some(target) if self.is_datagram() => {
                let (address, name) = self.destination(step, target, waiter)?;
                (Some(address), Some(name))
            }
            _ => (None, None),
        };
        if let Some(address) = address.as_ref().filter(|address| address.as_unix().is_some()) {
            let sent =
                self.send_when_there_is_room(step, flags, address, waiter, |fd, flags| {
                    sys::sendmsg(fd, buffers, control, to.as_ref(), flags)
                })?;
            self.count_sent(sent, buffers.iter().map(|buffer| &**buffer));
            return Ok(sent);
        }
        let mut deadline = self.send_deadline(flags);
        let sent = self.attempt(step, Interest::Writable, 0, &mut deadline, waiter, |fd, wait| {
            sys::sendmsg(fd, buffers, control, to.as_ref(), flags | wait)
        });
        let sent = sent.map_err(|error| match address {
            Some(address) => super::datagram::at(error, &address),
            None => error,
        })?;
        self.count_sent(sent, buffers.iter().map(|buffer| &**buffer));
        Ok(sent)
    }
}

/// The descriptor of the sender's process that came with a message, if SO_PASSPIDFD is set,
/// unix(7).
fn received_pidfd(control: &[u8]) -> Option<OwnedFd> {
    let (.., data) = sys::control_messages(control)
        .find(|&(level, kind, _)| (level, kind) == (libc::SOL_SOCKET, SCM_PIDFD))?;
    sys::adopt(i32::from_ne_bytes(data.try_into().ok()?)).ok()
}

/// How many bytes the buffers have room for.
fn room(buffers: &[IoSliceMut<'_>]) -> usize {
    // Buffers may overlap, so that their sum is not bounded by memory.
    buffers.iter().fold(0, |sum, buffer| sum.saturating_add(buffer.len()))
}

pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    control: &mut [u8],
    flags: i32,
) -> io::Result<Message> {
    let mut from = Name::room();
    let (bytes, taken, flags) = sys::recvmsg(fd, buffers, control, &mut from, flags)?;
    let from = from.address().map(Address::Ip).or_else(|| {
        let name = UnixName::of_kernel(from.unix_name()?);
        (!name.is_unnamed()).then_some(Address::Unix(name))
    });
    // A datagram may be empty, and so may an entry of the error queue. A receive of zero bytes
    // takes the descriptors of a Unix message all the same.
    let nothing = bytes == 0
        && from.is_none()
        && flags & libc::MSG_ERRQUEUE == 0
        && !sys::has_descriptors(&control[..taken]);
    Ok(Message { bytes, control: taken, flags, from, nothing })
}
