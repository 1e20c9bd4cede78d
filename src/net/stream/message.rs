//! The message calls of a stream: recvmsg(2), sendmsg(2), with several buffers and with control
//! messages. Owns where a receive of several parts ends; must never take bytes that follow received
//! descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::deadline::Deadline;
use super::stream::Stream;
use super::wait::{Interest, Transferred};
use crate::net::address::Target;
use crate::net::base::Waiter;
use crate::net::error::Result;
use crate::net::sys::{self, Name, PollFd};

/// The result of recvmsg(2).
#[derive(Clone, Copy, Debug, Default)]
pub struct Message {
    /// The number of bytes of data.
    pub bytes: usize,
    /// The number of bytes of control messages.
    pub control: usize,
    /// MSG_EOR, MSG_TRUNC, MSG_CTRUNC, MSG_OOB, MSG_ERRQUEUE.
    pub flags: i32,
    /// The sender of a datagram.
    pub from: Option<SocketAddr>,
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
        self.bytes == 0
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
        let requested: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let mut deadline = self.deadline(flags);
        if !self.waits_for_all(flags) || requested == 0 {
            return self.receive_part(step, buffers, control, flags, 0, &mut deadline, waiter);
        }
        let _held = self.hold(step)?;
        if flags & libc::MSG_PEEK != 0 {
            self.wait_for_input(step, requested, &mut deadline, waiter)?;
            return self.receive_part(step, buffers, control, flags, 0, &mut deadline, waiter);
        }
        let mut message = Message::default();
        let mut taken = 0;
        while taken < requested {
            let mut rest = after_first(buffers, taken);
            let part =
                self.receive_part(step, &mut rest, control, flags, taken, &mut deadline, waiter);
            taken += part.as_ref().map_or(0, |part| part.bytes);
            match part.and_then(|part| waiter.breathe().map(|()| part)) {
                Ok(part) if part.bytes == 0 => break,
                Ok(part) => {
                    message = part;
                    if part.ends_receive(control, self.is_unix()) {
                        break;
                    }
                }
                Err(error) => {
                    let mut partial =
                        buffers.iter().map(|buffer| &**buffer).collect::<Vec<_>>().concat();
                    partial.truncate(taken);
                    return Err(error.after(partial));
                }
            }
        }
        message.bytes = taken;
        Ok(message)
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
        let requested: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let interest = if taken > 0 { Interest::Input } else { Interest::Readable };
        let mut ended = None;
        let message = self.attempt(step, interest, deadline, waiter, |fd, wait| {
            if taken > 0 && sys::unread(fd) == 0 {
                let mut input = [PollFd::input(fd)];
                let announced = sys::poll(&mut input, Some(Instant::now()))? > 0;
                // Checked again, because input may have arrived between the two calls.
                if announced && sys::unread(fd) == 0 {
                    ended = Some(input[0].ended());
                    return Ok(Message::default());
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
        let address = match target {
            Some(target) if self.is_datagram() => Some(self.destination(step, target, waiter)?),
            _ => None,
        };
        let to = address.map(Name::new);
        let mut deadline = self.deadline(flags);
        let sent = self.attempt(step, Interest::Writable, &mut deadline, waiter, |fd, wait| {
            sys::sendmsg(fd, buffers, control, to.as_ref(), flags | wait)
        });
        let sent = sent.map_err(|error| match address {
            Some(address) => super::datagram::at(error, address),
            None => error,
        })?;
        self.count_sent(sent, buffers.iter().map(|buffer| &**buffer));
        Ok(sent)
    }
}

pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    control: &mut [u8],
    flags: i32,
) -> io::Result<Message> {
    let mut from = Name::room();
    let (bytes, control, flags) = sys::recvmsg(fd, buffers, control, &mut from, flags)?;
    Ok(Message { bytes, control, flags, from: from.address() })
}

/// The rest of the buffers after their first `taken` bytes.
fn after_first<'a>(buffers: &'a mut [IoSliceMut<'_>], mut taken: usize) -> Vec<IoSliceMut<'a>> {
    let rest = buffers.iter_mut().map(|buffer| {
        let cut = taken.min(buffer.len());
        taken -= cut;
        IoSliceMut::new(&mut buffer[cut..])
    });
    rest.filter(|buffer| !buffer.is_empty()).collect()
}
