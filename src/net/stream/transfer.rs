//! How a stream receives and sends. Every call tries first (MSG_DONTWAIT, so that the descriptor itself
//! stays blocking) and waits only where there is nothing to be had; must never read ahead of what a
//! call returns.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;

use crate::net::address::target::Target;
use crate::net::base::fork::Listed;
use crate::net::base::waiter::Waiter;
use crate::net::error::{Error, Result};
use crate::net::ledger::record::Record;
use crate::net::socket::socket::Socket;
use crate::net::stream::stream::{Deadline, Stream, seen};
use crate::net::sys::{self, Name, PollFd};

/// How much `recv_until` looks at at a time.
const PEEK: usize = 4096;
/// How much a receive of known length reserves before anything has come, however much is asked.
const FIRST_RESERVE: usize = 64 * 1024;
/// How much of a file is read at a time.
const FILE_PART: usize = 256 * 1024;

/// How often a call tries that cannot wait for its socket, whose error queue nobody reads.
const ERRORS_WAIT: Duration = Duration::from_millis(10);
/// The end of the longest file there can be.
const LAST_BYTE: u64 = i64::MAX as u64;

/// What to wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    Readable,
    /// The urgent mark as well, which is no input.
    Input,
    Writable,
}

/// When a limit of the server's is reached, and its name.
type Until = (Instant, &'static str);

fn earlier(deadline: &mut Deadline, limit: Option<Until>) -> Option<Instant> {
    [deadline.at(), limit.map(|(at, _)| at)].into_iter().flatten().min()
}

/// What recvmsg(2) gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message {
    /// Bytes of data.
    pub bytes: usize,
    /// Bytes of control messages.
    pub control: usize,
    /// MSG_EOR, MSG_TRUNC, MSG_CTRUNC, MSG_OOB, MSG_ERRQUEUE.
    pub flags: i32,
    /// Who sent it, of a datagram.
    pub from: Option<SocketAddr>,
}

impl Message {
    /// Behind bytes with descriptors a receive of all ends, as it does in the kernel: what comes next has
    /// its own. So it does where there was no room for them.
    fn ends_receive(&self, control: &[u8], unix: bool) -> bool {
        let cut = self.flags & libc::MSG_CTRUNC != 0;
        unix && (cut || sys::has_descriptors(&control[..self.control]))
    }
}

/// What a call of the system gave, as far as it may stand for the end of a socket that was replaced.
pub(super) trait Given: Send {
    fn is_nothing(&self) -> bool;
}

impl Given for usize {
    fn is_nothing(&self) -> bool {
        *self == 0
    }
}

impl Given for Message {
    fn is_nothing(&self) -> bool {
        self.bytes == 0
    }
}

impl Stream {
    /// Tries, and waits where there is nothing to be had. The operation is given MSG_DONTWAIT, or 0
    /// where it may wait itself.
    pub(super) fn attempt<T: Given>(
        &self,
        step: &'static str,
        interest: Interest,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
        mut operation: impl FnMut(BorrowedFd<'_>, i32) -> io::Result<T> + Send,
    ) -> Result<T> {
        let socket = self.hold(step)?;
        let fd = socket.as_fd();
        let mut with = |flag| {
            let before = self.renewals.load(SeqCst);
            let result = operation(fd, flag);
            let is_nothing = result.as_ref().map_or(true, Given::is_nothing);
            if is_nothing && self.renewals.load(SeqCst) != before {
                // The end of the socket that was under this number; the one that is there now goes on.
                return None;
            }
            match result {
                Ok(done) => Some(Ok(done)),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => None,
                    // Not the end of the call: PEP 475. The waiter looks for signals.
                    io::ErrorKind::Interrupted => None,
                    _ => {
                        self.saw_error(&error);
                        Some(Err(Error::os(step, self.peer_text(), &error)))
                    }
                },
            }
        };
        // MSG_DONTWAIT would not heed SO_RCVLOWAT; poll(2) does.
        let polled = interest == Interest::Readable
            && self.has_seen(seen::LOWAT)
            && deadline.timeout != Some(Duration::ZERO);
        let ready = || sys::poll(&mut [PollFd::readable(fd)], Some(Instant::now()));
        let first = !polled || ready().is_ok_and(|ready| ready > 0);
        let mut result = if first { with(libc::MSG_DONTWAIT) } else { None };
        let mut first_wait = None;
        while result.is_none() {
            if deadline.timeout == Some(Duration::ZERO) {
                return Err(Error::errno(step, self.peer_text(), libc::EAGAIN));
            }
            if interest != Interest::Writable && self.end_reads_if_draining(&socket) {
                // Nothing is there and the server drains: from here on that is the end.
                result = with(libc::MSG_DONTWAIT);
                continue;
            }
            // A call that need not wait does not look at the clock.
            let limit = self.limit(interest, &mut first_wait);
            let until = earlier(deadline, limit);
            if interest == Interest::Readable && !polled && waiter.may_spin() {
                result = self.spin.run(until, || with(libc::MSG_DONTWAIT));
                if result.is_some() {
                    break;
                }
            }
            if interest == Interest::Readable && until.is_none() && waiter.may_block() {
                // One system call in place of two. Whoever ends the connection wakes it by shutdown();
                // a descriptor that somebody made non-blocking just comes back.
                waiter.release(&mut || result = with(0));
                if result.is_some() {
                    break;
                }
            }
            let mut poll = [match interest {
                Interest::Readable if !self.is_datagram() => PollFd::readable(fd),
                Interest::Readable | Interest::Input => PollFd::input(fd),
                Interest::Writable => PollFd::writable(fd),
            }];
            let ready = waiter.wait(&mut poll, until)?;
            if !ready {
                self.late(step, &socket, limit, self.limit(interest, &mut first_wait))?;
            }
            result = with(libc::MSG_DONTWAIT);
            if !ready || result.is_some() {
                continue;
            }
            if self.is_datagram() && interest == Interest::Readable && poll[0].ended() {
                // Shut down for reading: the kernel says so only to a receive that may wait, and at once.
                waiter.release(&mut || result = with(0));
            } else if until.is_some_and(|at| at <= Instant::now()) {
                // What the poll found was nothing to be had, and it would find it again.
                self.late(step, &socket, limit, self.limit(interest, &mut first_wait))?;
            } else if poll[0].failed() {
                // The error queue has something, of which this call does not tell and every poll does.
                let soon = Instant::now() + ERRORS_WAIT;
                waiter.wait(&mut [], Some(until.map_or(soon, |until| until.min(soon))))?;
                result = with(libc::MSG_DONTWAIT);
            }
        }
        // A close from another thread has shut the socket down to wake this one.
        if self.is_closed() {
            return Err(self.closed_error(step));
        }
        result.unwrap_or_else(|| Err(self.closed_error(step)))
    }

    /// A wait has come to its end by `limit` or by the time-out: the error, but where the limit has moved
    /// on meanwhile, because bytes went the other way.
    fn late(
        &self,
        step: &'static str,
        socket: &Socket,
        limit: Option<Until>,
        now: Option<Until>,
    ) -> Result<()> {
        match limit.filter(|&(at, _)| at <= Instant::now()) {
            Some(_) if now != limit => Ok(()),
            Some((_, name)) => Err(self.over_limit(socket, step, name)),
            None => Err(Error::TimedOut { step, target: self.peer_text() }),
        }
    }

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

    /// recvmsg(2): into several buffers, with control messages. Waits and ends as `recv`.
    pub fn receive_message(
        &self,
        step: &'static str,
        buffers: &mut [IoSliceMut<'_>],
        control: &mut [u8],
        flags: i32,
        waiter: &mut dyn Waiter,
    ) -> Result<Message> {
        let asked: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let mut deadline = self.deadline(flags);
        if !self.waits_for_all(flags) || asked == 0 {
            return self.receive_part(step, buffers, control, flags, 0, &mut deadline, waiter);
        }
        let _held = self.hold(step)?;
        if flags & libc::MSG_PEEK != 0 {
            self.wait_for_input(step, asked, &mut deadline, waiter)?;
            return self.receive_part(step, buffers, control, flags, 0, &mut deadline, waiter);
        }
        let mut message = Message::default();
        let mut taken = 0;
        while taken < asked {
            let mut rest = behind(buffers, taken);
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

    /// One recvmsg(2) of a call that has taken `taken` bytes before. Behind the first of them the end
    /// of input, an error or the urgent mark gives nothing, and is left for the next call to meet.
    #[allow(clippy::too_many_arguments, reason = "what recvmsg takes, and what a wait takes")]
    fn receive_part(
        &self,
        step: &'static str,
        buffers: &mut [IoSliceMut<'_>],
        control: &mut [u8],
        flags: i32,
        taken: usize,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<Message> {
        let asked: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        let interest = if taken > 0 { Interest::Input } else { Interest::Readable };
        let mut over = None;
        let message = self.attempt(step, interest, deadline, waiter, |fd, wait| {
            if taken > 0 && sys::unread(fd) == 0 {
                let mut input = [PollFd::input(fd)];
                let announced = sys::poll(&mut input, Some(Instant::now()))? > 0;
                // Asked again: input may have come between the two.
                if announced && sys::unread(fd) == 0 {
                    over = Some(input[0].ended());
                    return Ok(Message::default());
                }
                if !announced {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            }
            receive(fd, buffers, control, flags | wait)
        })?;
        match over {
            Some(true) => self.saw_end(),
            Some(false) => {}
            None => {
                let parts = buffers.iter().map(|buffer| &**buffer);
                self.count_received(message.bytes, parts, asked, flags);
            }
        }
        Ok(message)
    }

    /// Whether a receive is to be held up until all that it asks for is there. The kernel does it only
    /// for a call that may block in it.
    fn waits_for_all(&self, flags: i32) -> bool {
        let never = libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE | libc::MSG_OOB;
        !self.is_datagram()
            && flags & libc::MSG_WAITALL != 0
            && flags & never == 0
            && self.timeout() != Some(Duration::ZERO)
    }

    /// Waits until `count` bytes are there to be looked at, or no more will come before they are read:
    /// behind an end, an error or urgent data.
    fn wait_for_input(
        &self,
        step: &'static str,
        count: usize,
        deadline: &mut Deadline,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let socket = self.hold(step)?;
        if sys::unread(socket.as_fd()) >= count {
            return Ok(());
        }
        // poll(2) would say at once, and ever again, that something is there. Epoll's edges tell of more.
        let failed = |error: io::Error| Error::os(step, self.peer_text(), &error);
        let mut edges = mio::Poll::new().map_err(failed)?;
        let _listed = Listed::new(&edges);
        let number = socket.as_fd().as_raw_fd();
        let interest = mio::Interest::READABLE | mio::Interest::PRIORITY;
        edges
            .registry()
            .register(&mut SourceFd(&number), mio::Token(0), interest)
            .map_err(failed)?;
        let mut events = mio::Events::with_capacity(1);
        loop {
            if sys::unread(socket.as_fd()) >= count || self.is_closed() {
                return Ok(());
            }
            self.end_reads_if_draining(&socket);
            let limit = self.limit(Interest::Input, &mut None);
            let fds = &mut [PollFd::readable(edges.registry().as_fd())];
            if !waiter.wait(fds, earlier(deadline, limit))? {
                self.late(step, &socket, limit, self.limit(Interest::Input, &mut None))?;
            }
            match edges.poll(&mut events, Some(Duration::ZERO)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(failed(error));
                }
                _ => {}
            }
            let last = |event: &mio::event::Event| {
                event.is_read_closed() || event.is_error() || event.is_priority()
            };
            if events.iter().any(last) {
                return Ok(());
            }
        }
    }

    /// sendmsg(2): from several buffers, with control messages. As much as there is room for. `target` is where
    /// a datagram goes, if not to whom the socket is connected to; a stream has its peer.
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
            Some(address) => crate::net::stream::datagram::at(error, address),
            None => error,
        })?;
        self.count_sent(sent, buffers.iter().map(|buffer| &**buffer));
        Ok(sent)
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
    fn count_received<'a>(
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

fn receive(
    fd: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    control: &mut [u8],
    flags: i32,
) -> io::Result<Message> {
    let mut from = Name::room();
    let (bytes, control, flags) = sys::recvmsg(fd, buffers, control, &mut from, flags)?;
    Ok(Message { bytes, control, flags, from: from.address() })
}

/// What is left of buffers behind their first `taken` bytes.
fn behind<'a>(buffers: &'a mut [IoSliceMut<'_>], mut taken: usize) -> Vec<IoSliceMut<'a>> {
    let rest = buffers.iter_mut().map(|buffer| {
        let cut = taken.min(buffer.len());
        taken -= cut;
        IoSliceMut::new(&mut buffer[cut..])
    });
    rest.filter(|buffer| !buffer.is_empty()).collect()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if let [byte] = needle {
        return haystack.iter().position(|at| at == byte);
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}
