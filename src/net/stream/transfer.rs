//! How a stream receives and sends. Every call tries first (MSG_DONTWAIT, so that the descriptor itself
//! stays blocking) and waits only where there is nothing to be had; must never read ahead of what a
//! call returns.

use std::io::IoSliceMut;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::deadline::Deadline;
use super::message::{Message, receive};
use super::stream::Stream;
use super::wait::Interest;
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};
use crate::net::ledger::Record;
use crate::net::sys;

/// How much `recv_until` looks at at a time.
const PEEK: usize = 4096;
/// How much a receive of known length reserves before anything has come, however much is asked.
const FIRST_RESERVE: usize = 64 * 1024;
/// How much of a file is read at a time.
const FILE_PART: usize = 256 * 1024;

/// The end of the longest file there can be.
const LAST_BYTE: u64 = i64::MAX as u64;

impl Stream {
    /// recv(2). Zero means that the peer has finished (or that nothing was asked).
    /// `step` is the name of the call in errors.
    pub fn recv(
        &self,
        step: &'static str,
        buffer: &mut [u8],
        flags: i32,
        waiter: &mut dyn Waiter,
    ) -> Result<usize> {
        if self.waits_for_all(flags) {
            let buffers = &mut [IoSliceMut::new(buffer)];
            return Ok(self.receive_message(step, buffers, &mut [], flags, waiter)?.bytes);
        }
        self.recv_some(step, buffer, flags, &mut self.deadline(flags), waiter)
    }

    /// recvmsg(2) of up to `count` bytes into a vector that grows with what has come, so that a
    /// mistaken length does not take the memory at once. Waits and ends as `recv`.
    pub fn receive_vec(
        &self,
        step: &'static str,
        count: usize,
        control: &mut [u8],
        flags: i32,
        waiter: &mut dyn Waiter,
    ) -> Result<(Vec<u8>, Message)> {
        let _held = self.hold(step)?;
        let mut deadline = self.deadline(flags);
        let mut taken = Vec::new();
        if !self.waits_for_all(flags) || flags & libc::MSG_PEEK != 0 {
            if self.waits_for_all(flags) {
                self.wait_for_input(step, count, &mut deadline, waiter)?;
            }
            let message =
                self.attempt(step, Interest::Readable, &mut deadline, waiter, |fd, wait| {
                    taken.resize(sys::unread(fd).max(FIRST_RESERVE).min(count), 0);
                    receive(fd, &mut [IoSliceMut::new(&mut taken)], control, flags | wait)
                })?;
            taken.truncate(message.bytes);
            self.count_received(message.bytes, [taken.as_slice()], count, flags);
            return Ok((taken, message));
        }
        let mut message = Message::default();
        while taken.len() < count {
            let start = taken.len();
            taken.resize(start + (count - start).min(start.max(FIRST_RESERVE)), 0);
            let rest = &mut [IoSliceMut::new(&mut taken[start..])];
            let part = self.receive_part(step, rest, control, flags, start, &mut deadline, waiter);
            taken.truncate(start + part.as_ref().map_or(0, |part| part.bytes));
            match part.and_then(|part| waiter.breathe().map(|()| part)) {
                Ok(part) if part.bytes == 0 => break,
                Ok(part) => {
                    message = part;
                    if part.ends_receive(control, self.is_unix()) {
                        break;
                    }
                }
                Err(error) => return Err(error.after(taken)),
            }
        }
        message.bytes = taken.len();
        Ok((taken, message))
    }

    fn recv_some(
        &self,
        step: &'static str,
        buffer: &mut [u8],
        flags: i32,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<usize> {
        let asked = buffer.len();
        let got = self.attempt(step, Interest::Readable, deadline, waiter, |fd, wait| {
            sys::recv(fd, buffer, flags | wait)
        })?;
        self.count_received(got, [&*buffer], asked, flags);
        Ok(got)
    }

    /// Exactly `count` bytes; none where the peer has finished before the first of them, and
    /// `Incomplete` where it does so after it. What ends the call early carries what was taken.
    pub fn recv_exactly(&self, count: usize, waiter: &mut dyn Waiter) -> Result<Vec<u8>> {
        let step = "recv_exactly";
        self.needs_stream(step)?;
        // One call, from the first byte to the last: a server that ends does not cut it in between.
        let _held = self.hold(step)?;
        let mut deadline = self.deadline(0);
        let mut taken = Vec::new();
        while taken.len() < count {
            let start = taken.len();
            // Grows with what has come, as in `receive_vec`.
            let room = (count - start).min(start.max(FIRST_RESERVE));
            taken.resize(start + room, 0);
            let result = self.recv_some(step, &mut taken[start..], 0, &mut deadline, waiter);
            taken.truncate(start + result.as_ref().map_or(0, |&got| got));
            match result.and_then(|got| waiter.breathe().map(|()| got)) {
                Ok(0) if start == 0 => break,
                Ok(0) => {
                    let wanted = format!("{count}");
                    return Err(Error::Incomplete { wanted, got: start }.after(taken));
                }
                Ok(_) => {}
                Err(error) => return Err(error.after(taken)),
            }
        }
        Ok(taken)
    }

    /// All up to and with `delimiter`, looking before taking, so that nothing behind it is taken.
    /// None where the peer has finished before the first byte; otherwise as `recv_exactly`, and
    /// `OverLimit` when the delimiter does not end within `limit` bytes.
    /// `step` is the name of the call in errors.
    pub fn recv_until(
        &self,
        step: &'static str,
        delimiter: &[u8],
        limit: usize,
        waiter: &mut dyn Waiter,
    ) -> Result<Vec<u8>> {
        let _held = self.hold(step)?;
        self.needs_stream(step)?;
        let mut deadline = self.deadline(0);
        let mut taken = Vec::new();
        loop {
            let start = taken.len();
            if start >= limit {
                return Err(Error::OverLimit { limit }.after(taken));
            }
            taken.resize(start + (limit - start).min(PEEK), 0);
            let peeked =
                self.recv_some(step, &mut taken[start..], libc::MSG_PEEK, &mut deadline, waiter);
            let got = match peeked {
                Ok(got) => got,
                Err(error) => {
                    taken.truncate(start);
                    return Err(error.after(taken));
                }
            };
            taken.truncate(start + got);
            if got == 0 {
                if start == 0 {
                    return Ok(taken);
                }
                let wanted = "a message that ends with its delimiter".to_owned();
                return Err(Error::Incomplete { wanted, got: start }.after(taken));
            }
            // The delimiter may have begun in what was taken before.
            let from = start.saturating_sub(delimiter.len() - 1);
            let found = find(&taken[from..], delimiter).map(|at| from + at + delimiter.len());
            let end = found.unwrap_or(taken.len());
            taken.truncate(end);
            // What was seen is there: this takes it, and waits for nothing.
            let mut at = start;
            while at < end {
                match self.recv_some(step, &mut taken[at..], 0, &mut deadline, waiter) {
                    Ok(0) => break,
                    Ok(count) => at += count,
                    Err(error) => {
                        taken.truncate(at);
                        return Err(error.after(taken));
                    }
                }
            }
            if found.is_some() {
                return Ok(taken);
            }
            if let Err(error) = waiter.breathe() {
                return Err(error.after(taken));
            }
        }
    }

    /// send(2): as much as there is room for, at least one byte.
    pub fn send(&self, data: &[u8], flags: i32, waiter: &mut dyn Waiter) -> Result<usize> {
        self.send_some("send", data, flags, &mut self.deadline(flags), waiter)
    }

    fn send_some(
        &self,
        step: &'static str,
        data: &[u8],
        flags: i32,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<usize> {
        let sent = self.attempt(step, Interest::Writable, deadline, waiter, |fd, wait| {
            sys::send(fd, data, flags | wait)
        })?;
        self.count_sent(sent, [data]);
        Ok(sent)
    }

    /// All of it. `sent` tells how much was, whatever ends the call.
    pub fn sendall(
        &self,
        data: &[u8],
        flags: i32,
        sent: &mut usize,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let _held = self.hold("sendall")?;
        let mut deadline = self.deadline(flags);
        // Once even for nothing, so that a closed or broken stream is told apart.
        loop {
            *sent += self.send_some("sendall", &data[*sent..], flags, &mut deadline, waiter)?;
            if *sent == data.len() {
                return Ok(());
            }
            waiter.breathe()?;
        }
    }

    /// `count` bytes of a file from `offset` on, to its end where that comes before. `sent` tells how
    /// much was, whatever ends the call.
    ///
    /// By pread(2) and send(2): sendfile(2) has no MSG_DONTWAIT, so that on a blocking descriptor it
    /// would heed neither a time-out nor a signal.
    pub fn send_file(
        &self,
        file: RawFd,
        offset: u64,
        count: Option<u64>,
        sent: &mut u64,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let _held = self.hold("sendfile")?;
        let mut deadline = self.deadline(0);
        let mut buffer = vec![0; FILE_PART];
        loop {
            let at = offset.saturating_add(*sent);
            // pread(2) refuses what would end beyond the last byte a file can have.
            let left =
                count.map_or(u64::MAX, |count| count - *sent).min(LAST_BYTE - at.min(LAST_BYTE));
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(FILE_PART);
            let got = sys::pread(file, &mut buffer[..part], at)
                .map_err(|error| Error::os("sendfile", format_args!("from fd {file}"), &error))?;
            if got == 0 {
                return Ok(());
            }
            let mut at = 0;
            while at < got {
                let part = &buffer[at..got];
                let taken = self.send_some("sendfile", part, 0, &mut deadline, waiter)?;
                at += taken;
                *sent += taken as u64;
                waiter.breathe()?;
            }
        }
    }

    /// Counts what a receive gave, which is at the start of `parts`; `asked` of zero says nothing about an end.
    pub(super) fn count_received<'a>(
        &self,
        bytes: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
        asked: usize,
        flags: i32,
    ) {
        if self.is_datagram() {
            return self.count_datagram(bytes, parts, flags);
        }
        if bytes > 0 {
            if flags & libc::MSG_PEEK == 0 {
                if let Some(record) = self.record_of_traffic() {
                    record.count_received_shared(bytes, parts);
                }
                self.moved();
            }
        } else if asked > 0 && flags & libc::MSG_ERRQUEUE == 0 {
            self.saw_end();
        }
    }

    /// The account, for what has just been moved: it shows that there is a connection.
    pub(super) fn record_of_traffic(&self) -> Option<&Arc<Record>> {
        if self.outer().is_some() {
            // The worker counts what the outer socket moves.
            return None;
        }
        if self.record.get().is_none() {
            self.note_connected(true);
        }
        self.record.get()
    }

    pub(super) fn count_sent<'a>(&self, bytes: usize, parts: impl IntoIterator<Item = &'a [u8]>) {
        if bytes > 0 || self.is_datagram() {
            if let Some(record) = self.record_of_traffic() {
                record.count_sent_shared(bytes, parts);
            }
            self.moved();
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if let [byte] = needle {
        return haystack.iter().position(|at| at == byte);
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}
