//! The transfer of bytes on a stream: receive, send. Owns how much each call takes, with what it
//! counts; must never read ahead of what a call returns.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, RawFd};
use std::sync::Arc;

use super::deadline::Deadline;
use super::message::{Message, receive};
use super::stream::{Stream, seen};
use super::wait::Interest;
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};
use crate::net::ledger::Record;
use crate::net::sys;

/// How many bytes `recv_until` peeks at per call.
const PEEK: usize = 4096;
/// How many bytes a receive of known length reserves before anything has arrived.
const FIRST_RESERVE: usize = 64 * 1024;
/// The room for a Unix datagram. The kernel allocates most of one as a whole, so that it has about
/// 4 MiB at the most. Memory that is not written to costs nothing.
const UNIX_DATAGRAM: usize = 8 * 1024 * 1024;
/// How many bytes of a file are read per call.
const FILE_PART: usize = 256 * 1024;

/// The largest file offset.
const LAST_BYTE: u64 = i64::MAX as u64;

impl Stream {
    /// Calls recv(2). Returns zero if the peer has finished, or if `buffer` is empty. `step` is the
    /// name of the call in errors.
    pub fn recv(
        &self,
        step: &'static str,
        buffer: &mut [u8],
        flags: i32,
        waiter: &mut dyn Waiter,
    ) -> Result<usize> {
        if self.least(flags, buffer.len()) > 1 {
            let buffers = &mut [IoSliceMut::new(buffer)];
            return Ok(self.receive_message(step, buffers, &mut [], flags, waiter)?.bytes);
        }
        let (interest, deadline) = (Interest::Readable, &mut self.receive_deadline(flags));
        self.recv_some(step, interest, buffer, flags, deadline, waiter)
    }

    /// Calls recvmsg(2) for up to `count` bytes. The vector grows with the data, so that a wrong
    /// length does not allocate everything at once. Waits and ends like `recv`.
    pub fn receive_vec(
        &self,
        step: &'static str,
        count: usize,
        control: &mut [u8],
        flags: i32,
        waiter: &mut dyn Waiter,
    ) -> Result<(Vec<u8>, Message)> {
        let _held = self.hold(step)?;
        let mut deadline = self.receive_deadline(flags);
        let mut taken = Vec::new();
        let least = self.least(flags, count);
        if least <= 1 || flags & libc::MSG_PEEK != 0 {
            if least > 1 {
                self.wait_for_input(step, least, &mut deadline, waiter)?;
            }
            let interest = Interest::Readable;
            // A datagram that arrives after the look at the queue must have room too: what has none
            // is lost.
            let least =
                if self.is_datagram() && self.is_unix() { UNIX_DATAGRAM } else { FIRST_RESERVE };
            let message =
                self.attempt(step, interest, count, &mut deadline, waiter, |fd, wait| {
                    let room = sys::unread(fd).max(least).min(count);
                    if taken.len() < room {
                        taken = vec![0; room];
                    }
                    receive(fd, &mut [IoSliceMut::new(&mut taken)], control, flags | wait)
                })?;
            taken.truncate(message.bytes);
            self.count_received(message.bytes, [taken.as_slice()], count, flags);
            return Ok((taken, message));
        }
        let mut message = Message::default();
        loop {
            let rest = &mut [IoSliceMut::new(room_in(&mut taken, message.bytes, count))];
            let (message, deadline) = (&mut message, &mut deadline);
            match self.receive_more(step, rest, control, flags, message, deadline, waiter) {
                Ok(true) if message.bytes < least => {}
                Ok(_) => break,
                Err(error) => {
                    taken.truncate(message.bytes);
                    return Err(error.after(taken));
                }
            }
        }
        taken.truncate(message.bytes);
        Ok((taken, message))
    }

    fn recv_some(
        &self,
        step: &'static str,
        interest: Interest,
        buffer: &mut [u8],
        flags: i32,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<usize> {
        let requested = buffer.len();
        let got = self.attempt(step, interest, requested, deadline, waiter, |fd, wait| {
            sys::recv(fd, buffer, flags | wait)
        })?;
        self.count_received(got, [&*buffer], requested, flags);
        Ok(got)
    }

    /// Receives exactly `count` bytes. Returns none if the peer finishes before the first byte, and
    /// `Incomplete` if it finishes later. An error carries the bytes that were taken.
    pub fn recv_exactly(&self, count: usize, waiter: &mut dyn Waiter) -> Result<Vec<u8>> {
        let step = "recv_exactly";
        self.needs_stream(step)?;
        // Held from the first byte to the last, so that a draining server does not end it in
        // between.
        let _held = self.hold(step)?;
        let mut taken = Vec::new();
        match self.fill(step, &mut taken, count, &mut self.receive_deadline(0), waiter) {
            Ok(()) if taken.len() == count || taken.is_empty() => Ok(taken),
            Ok(()) => {
                let (wanted, got) = (format!("{count}"), taken.len());
                Err(Error::Incomplete { wanted, got }.amid(taken))
            }
            Err(error) => Err(error.amid(taken)),
        }
    }

    /// Receives until `taken` has `count` bytes, or fewer if the peer finishes.
    pub(super) fn fill(
        &self,
        step: &'static str,
        taken: &mut Vec<u8>,
        count: usize,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let mut got = taken.len();
        let result = loop {
            if got >= count {
                break Ok(());
            }
            let room = room_in(taken, got, count);
            match self.recv_some(step, Interest::Readable, room, 0, deadline, waiter) {
                Ok(0) => break Ok(()),
                Ok(part) => got += part,
                Err(error) => break Err(error),
            }
            // Not after the last part: an error would take the place of a complete message.
            if got < count {
                if let Err(error) = waiter.breathe() {
                    break Err(error);
                }
            }
        };
        taken.truncate(got);
        result
    }

    /// Receives up to and including the first of `delimiters` to end. Peeks before it takes, so
    /// that nothing after the delimiter is taken. Returns none if the peer finishes before the
    /// first byte; other errors are those of `recv_exactly`, and `OverLimit` if no delimiter ends
    /// within `limit` bytes. `step` is the name of the call in errors.
    pub fn recv_until(
        &self,
        step: &'static str,
        delimiters: &[&[u8]],
        limit: usize,
        waiter: &mut dyn Waiter,
    ) -> Result<Vec<u8>> {
        let _held = self.hold(step)?;
        self.needs_stream(step)?;
        let longest = delimiters.iter().map(|delimiter| delimiter.len()).max().unwrap_or(1);
        let mut deadline = self.receive_deadline(0);
        let mut taken = Vec::new();
        loop {
            let start = taken.len();
            if start >= limit {
                return Err(Error::OverLimit { limit }.amid(taken));
            }
            taken.resize(start + (limit - start).min(PEEK), 0);
            self.peek_from_start(step)?;
            let (room, flags) = (&mut taken[start..], libc::MSG_PEEK);
            let peeked =
                self.recv_some(step, Interest::Readable, room, flags, &mut deadline, waiter);
            let got = match peeked {
                Ok(got) => got,
                Err(error) => {
                    taken.truncate(start);
                    return Err(error.amid(taken));
                }
            };
            taken.truncate(start + got);
            if got == 0 {
                if start == 0 {
                    return Ok(taken);
                }
                let is_line = step == "recv_line";
                let wanted = if is_line { "a line" } else { "a message without its delimiter" };
                let wanted = wanted.to_owned();
                return Err(Error::Incomplete { wanted, got: start }.amid(taken));
            }
            // A delimiter may begin in the bytes taken before.
            let from = start.saturating_sub(longest - 1);
            let ends = delimiters.iter().filter_map(|delimiter| {
                find(&taken[from..], delimiter).map(|at| from + at + delimiter.len())
            });
            let found = ends.min();
            let end = found.unwrap_or(taken.len());
            taken.truncate(end);
            // Takes the bytes that were peeked at, which does not block.
            let mut at = start;
            while at < end {
                let room = &mut taken[at..];
                match self.recv_some(step, Interest::Peeked, room, 0, &mut deadline, waiter) {
                    Ok(0) => break,
                    Ok(count) => at += count,
                    Err(error) => {
                        taken.truncate(at);
                        return Err(error.amid(taken));
                    }
                }
            }
            if found.is_some() {
                return Ok(taken);
            }
            if let Err(error) = waiter.breathe() {
                return Err(error.amid(taken));
            }
        }
    }

    /// Sets an offset of peeks (SO_PEEK_OFF) back to 0, if the program has set one: a peek must find
    /// what the next receive takes.
    pub(super) fn peek_from_start(&self, step: &'static str) -> Result<()> {
        if !self.has_seen(seen::PEEK_OFF) {
            return Ok(());
        }
        let socket = self.hold(step)?;
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEEK_OFF);
        sys::setsockopt(socket.as_fd(), level, name, &0i32.to_ne_bytes())
            .map_err(|error| Error::os(step, self.peer_text(), &error))
    }

    /// Calls send(2). Sends as much as there is room for, at least one byte.
    pub fn send(&self, data: &[u8], flags: i32, waiter: &mut dyn Waiter) -> Result<usize> {
        self.send_some("send", data, flags, &mut self.send_deadline(flags), waiter)
    }

    fn send_some(
        &self,
        step: &'static str,
        data: &[u8],
        flags: i32,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<usize> {
        let sent = self.attempt(step, Interest::Writable, 0, deadline, waiter, |fd, wait| {
            sys::send(fd, data, flags | wait)
        })?;
        self.count_sent(sent, [data]);
        Ok(sent)
    }

    /// Sends all of `data`. `sent` is the number of bytes sent, also after an error.
    pub fn sendall(
        &self,
        data: &[u8],
        flags: i32,
        sent: &mut usize,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let _held = self.hold("sendall")?;
        let mut deadline = self.send_deadline(flags);
        // Calls send once even for empty data, so that a closed or broken stream raises its error.
        loop {
            *sent += self.send_some("sendall", &data[*sent..], flags, &mut deadline, waiter)?;
            if *sent == data.len() {
                return Ok(());
            }
            waiter.breathe()?;
        }
    }

    /// Sends `count` bytes of a file from `offset`, or up to its end. `sent` is the number of bytes
    /// sent, also after an error.
    ///
    /// Uses pread(2) and send(2). sendfile(2) has no MSG_DONTWAIT, so that on a blocking descriptor
    /// it would ignore both the time-out and signals.
    pub fn send_file(
        &self,
        file: RawFd,
        offset: u64,
        count: Option<u64>,
        sent: &mut u64,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let _held = self.hold("sendfile")?;
        let mut deadline = self.send_deadline(0);
        let mut buffer = vec![0; FILE_PART];
        loop {
            let at = offset.saturating_add(*sent);
            // pread(2) refuses ranges that end after the largest file offset.
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

    /// Counts the bytes of a receive, which are at the start of `parts`. If `requested` is zero, no
    /// bytes do not mean the end.
    pub(super) fn count_received<'a>(
        &self,
        bytes: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
        requested: usize,
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
                self.note_traffic();
            }
        } else if requested > 0 && flags & libc::MSG_ERRQUEUE == 0 {
            self.saw_end();
        }
    }

    /// The record of traffic just sent or received, which proves that the stream is connected.
    pub(super) fn record_of_traffic(&self) -> Option<&Arc<Record>> {
        if self.outer().is_some() || !self.is_here() {
            // The worker counts what the outer socket moves. A forked child counts nothing.
            return None;
        }
        if self.record.get().is_none() {
            self.note_connected(true, None);
        }
        self.record.get()
    }

    pub(super) fn count_sent<'a>(&self, bytes: usize, parts: impl IntoIterator<Item = &'a [u8]>) {
        if bytes > 0 || self.is_datagram() {
            if let Some(record) = self.record_of_traffic() {
                record.count_sent_shared(bytes, parts);
            }
            self.note_traffic();
        }
    }
}

/// The room behind the first `got` bytes, for a message of `count`. The vector grows when it is
/// full: with the data, so that a wrong length does not allocate everything at once, and seldom,
/// because what is added is cleared.
fn room_in(taken: &mut Vec<u8>, got: usize, count: usize) -> &mut [u8] {
    if got == taken.len() {
        taken.resize(got + (count - got).min(got.max(FIRST_RESERVE)), 0);
    }
    &mut taken[got..]
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if let [byte] = needle {
        return haystack.iter().position(|at| at == byte);
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}
