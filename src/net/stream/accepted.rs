//! What only an accepted stream has. Owns the server's limits on its calls, with its part in the
//! server's stop; must never be reached by a client.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::calls::WaitingCall;
use super::owner::{DeferredClose, InnerEnd, Owned};
use super::slot::StreamSocket;
use super::stream::{Held, Stream, seen};
use super::wait::Interest;
use crate::net::error::Error;
use crate::net::ledger::{ClosedBy, Record, SocketClose};
use crate::net::socket::{Socket, Until, close_resets, lingering};
use crate::net::sys;

impl Stream {
    /// Whether its server is draining: reads return `b""` once the receive buffer is empty.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.owned().is_some_and(Owned::is_draining)
    }

    /// Closes the connection for a reason that its handler gives.
    pub fn close_for(&self, by: ClosedBy, error: Option<String>) -> Option<DeferredClose> {
        self.end(by, error)
    }

    /// Closes the connection because its handler failed. The error is counted however the
    /// connection ended.
    pub fn fail(&self, error: String) -> Option<DeferredClose> {
        if let Some(owned) = self.owned() {
            owned.owner.count_error();
        }
        self.end(ClosedBy::Error, Some(error))
    }

    /// Whether a close must linger, and until when. It does on a handler's connection whose peer
    /// may still be sending, if no other call uses the socket.
    pub(super) fn linger_until(
        &self,
        socket: &Arc<StreamSocket>,
    ) -> Option<(&Owned, Arc<Record>, Until)> {
        // A peer that has finished sends nothing more. With SO_LINGER set, the caller has chosen
        // the close.
        let settled = seen::END | seen::RESET | seen::FORCED | seen::LINGERS;
        let owned = self.owned().filter(|owned| owned.owner.may_linger())?;
        if self.has_seen(settled) || Arc::strong_count(socket) > 1 {
            return None;
        }
        let record = self.record.get()?;
        // Bytes sent through a duplicate are not counted.
        let sent = if self.is_duplicated() { u64::MAX } else { record.sent().bytes };
        let until = lingering::needed(socket, sent)?;
        // Any owner of the socket may have set its option.
        (!close_resets(&socket.as_fd())).then(|| (owned, Arc::clone(record), until))
    }

    /// Whether a server of this process accepted the stream.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.owned.get().is_some() && self.connecting.is_none()
    }

    /// Whether the descriptor was duplicated.
    #[must_use]
    pub fn is_duplicated(&self) -> bool {
        self.has_seen(seen::DUPLICATED)
    }

    /// Whether a call has received the peer's end.
    #[must_use]
    pub fn was_ended(&self) -> bool {
        self.has_seen(seen::END)
    }

    /// Whether a call has received the peer's reset.
    #[must_use]
    pub fn was_reset(&self) -> bool {
        self.has_seen(seen::RESET)
    }

    /// Notes that bytes were sent or received, for the idle limit.
    pub(super) fn note_traffic(&self) {
        let (Some(owned), Some(record)) = (self.owned(), self.record.get()) else { return };
        if owned.idle.is_some() {
            let since = record.opened().elapsed().as_nanos();
            let since = u64::try_from(since).unwrap_or(u64::MAX);
            match owned.outer() {
                Some(outer) => {
                    outer.calls().into_iter().for_each(|calls| calls.note_traffic(since))
                }
                None => owned.last_traffic.store(since, Relaxed),
            }
        }
    }

    /// Notes that a call of an inner stream waits, until the value returned is dropped: the worker
    /// of its outer connection holds the limits only during such calls.
    pub(super) fn begin_wait(&self, interest: Interest) -> Option<WaitingCall<'_>> {
        let owned = self.owned()?;
        if owned.idle.is_none() && owned.first_byte.is_none() {
            return None;
        }
        let outer = owned.outer()?;
        let (waiting, wanted) = outer.calls()?.begin(interest != Interest::Writable);
        if wanted {
            outer.call_waits();
        }
        Some(waiting)
    }

    /// When the server's limits end a waiting call, and the name of the limit. `since` is the start
    /// of the wait, set on the first call that needs it.
    pub(super) fn limit(
        &self,
        interest: Interest,
        since: &mut Option<Instant>,
    ) -> Option<(Instant, &'static str)> {
        let owned = self.owned().filter(|owned| owned.outer().is_none())?;
        let record = self.record.get()?;
        let after = |from: Instant, limit: Option<Duration>, name| {
            limit.and_then(|limit| from.checked_add(limit)).map(|at| (at, name))
        };
        let last_traffic =
            || record.opened() + Duration::from_nanos(owned.last_traffic.load(Relaxed));
        let call_limit = match interest {
            Interest::Writable => {
                after(*since.get_or_insert_with(Instant::now), owned.write, "write")
            }
            _ if record.has_received() => None,
            Interest::Readable | Interest::Peeked | Interest::Input => {
                after(record.opened(), owned.first_byte, "first_byte")
            }
        };
        let idle = owned.idle.and_then(|_| after(last_traffic(), owned.idle, "idle"));
        [call_limit, idle].into_iter().flatten().min()
    }

    /// Ends the connection because of a limit, whatever its handler does: reads return the end, and
    /// calls of the stream raise the error. The descriptor stays open until the handler releases
    /// it.
    pub(crate) fn expire(&self, name: &'static str) {
        let socket = self.slot().socket.lock().clone();
        let (Some(socket), Some(owned)) = (socket, self.owned.get()) else { return };
        if !owned.owner.is_settled() && owned.reached.set(name).is_ok() {
            owned.owner.settle(ClosedBy::Limit(name), None, self.plain_close(&socket));
            self.saw(seen::READS_ENDED);
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Closes the connection because a waiting call has reached a limit. Returns the error for that
    /// call.
    pub(super) fn over_limit(
        &self,
        socket: &Socket,
        step: &'static str,
        name: &'static str,
    ) -> Error {
        if let Some(owned) = self.owned() {
            let close = match name {
                "write" if self.outer().is_none() => SocketClose::Reset(socket.as_fd()),
                _ => self.plain_close(socket),
            };
            owned.owner.settle(ClosedBy::Limit(name), None, close);
        }
        if name == "write" {
            self.saw(seen::FORCED);
            socket.reset();
        } else {
            self.saw(seen::READS_ENDED);
            let _ = socket.shutdown(Shutdown::Both);
        }
        let hint = format!("the server's Limits.{name} is reached");
        Error::Os { step, target: self.peer_text(), errno: libc::ETIMEDOUT, hint }
    }

    /// Ends reads of a connection that has received something, if the server drains: calls read
    /// what is in the buffer, then the end. True for the first call only.
    pub(super) fn end_reads_if_draining(&self, socket: &Held<'_>) -> bool {
        let Some(owned) = self.owned() else { return false };
        let received = || self.record.get().is_some_and(|record| record.has_received());
        if !owned.is_draining() || self.has_seen(seen::READS_ENDED) || !received() {
            return false;
        }
        self.end_reads_of(socket)
    }

    fn end_reads_of(&self, socket: &Socket) -> bool {
        self.saw(seen::READS_ENDED);
        if self.owned().is_some_and(|owned| owned.owner.end_input()) {
            // The end comes behind what is on its way.
            return true;
        }
        // Wakes a thread that waits in a read, whatever it reads by: a method of ours, os.read, or
        // a socket made of a duplicate. ENOTCONN: it is over already.
        let _ = socket.shutdown(Shutdown::Read);
        true
    }

    /// Makes reads return the end, as the server drains. With `received_only`, only on a connection
    /// that has received something. Returns whether it did.
    pub(crate) fn end_reads(&self, received_only: bool) -> bool {
        // Under the lock, because a close that finds the socket in use does not linger.
        let slot = self.slot().socket.lock();
        let Some(socket) = slot.as_ref() else { return false };
        // Includes bytes that were read by other means than the stream's methods. A Unix socket
        // does not report those.
        let received = || match sys::tcp_info(socket.as_fd()) {
            Ok((info, _)) => info.bytes_received > 0,
            Err(_) => {
                sys::unread(socket.as_fd()) > 0
                    || self.record.get().is_some_and(|record| record.has_received())
            }
        };
        !self.has_seen(seen::READS_ENDED)
            && (!received_only || received())
            && self.end_reads_of(socket)
    }

    /// Resets the connection, although a handler may still use it: the descriptor stays open until
    /// then.
    pub(crate) fn force(&self) {
        let socket = self.slot().socket.lock().clone();
        if let Some(socket) = socket {
            if let Some(owned) = self.owned() {
                owned.owner.settle(ClosedBy::Stop, None, SocketClose::Reset(socket.as_fd()));
            }
            self.saw(seen::FORCED);
            socket.reset();
        }
    }

    /// Closes the connection if no thread is in one of its calls. False otherwise. Sends FIN after
    /// the data, unless there is unread input: then RST, as the kernel does.
    pub(crate) fn close_if_idle(&self) -> bool {
        let socket = match self.slot().take_idle() {
            Ok(socket) => socket.into_socket(),
            Err(in_use) => return !in_use,
        };
        self.closed.store(true, SeqCst);
        let all_read = sys::unread(socket.as_fd()) == 0;
        let close =
            if all_read { self.plain_close(&socket) } else { SocketClose::Reset(socket.as_fd()) };
        self.settle(ClosedBy::Stop, None, close);
        match (all_read, self.has_seen(seen::DUPLICATED)) {
            (true, false) => drop(socket),
            (true, true) => {
                let _ = socket.shutdown(Shutdown::Both);
            }
            // With a close only: the peer of a Unix socket would take a shutdown before it for an
            // orderly end.
            (false, false) => socket.abort(),
            (false, true) => socket.reset(),
        }
        self.notify_closed();
        true
    }
}

impl InnerEnd for Stream {
    fn leave_unread(&self) {
        let socket = self.slot().socket.lock().clone();
        if let Some(socket) = socket {
            socket.leave_unread();
        }
    }

    fn take_unread(&self) -> Vec<u8> {
        let socket = self.slot().socket.lock().clone();
        socket.map_or_else(Vec::new, |socket| socket.take_unread())
    }
}
