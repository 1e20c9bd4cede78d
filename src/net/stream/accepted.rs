//! What only a stream that a server accepted has: the server's limits on its calls, its part in the server's
//! stop. Must never be reached by a client.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::owner::{DeferredClose, Owned};
use super::stream::{Held, Stream, seen};
use super::wait::Interest;
use crate::net::error::Error;
use crate::net::ledger::{ClosedBy, Record};
use crate::net::socket::{Socket, Until, lingering};
use crate::net::sys;

impl Stream {
    /// Whether its server is ending: reads give `b""` once nothing is there.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.owned.as_ref().is_some_and(Owned::is_draining)
    }

    /// Ends it for a reason that its handler gives.
    pub fn close_for(&self, by: ClosedBy, error: Option<String>) -> Option<DeferredClose> {
        self.end(by, error)
    }

    /// Ends it because its handler failed, which counts whatever the connection's end was.
    pub fn fail(&self, error: String) -> Option<DeferredClose> {
        if let Some(owned) = &self.owned {
            owned.owner.count_error();
        }
        self.end(ClosedBy::Error, Some(error))
    }

    /// Until when it has to linger, if it does: a handler's connection that a peer may still be sending
    /// to, and that no other call has in its hands.
    pub(super) fn lingers(&self, socket: &Arc<Socket>) -> Option<(&Owned, Arc<Record>, Until)> {
        // Whose peer has finished sends nothing more, and who has set SO_LINGER wants that.
        let settled = seen::END | seen::RESET | seen::FORCED | seen::LINGERS;
        let owned = self.owned.as_ref().filter(|owned| owned.owner.may_linger())?;
        if self.has_seen(settled) || Arc::strong_count(socket) > 1 {
            return None;
        }
        let record = self.record.get()?;
        // What went through a duplicate is not counted.
        let sent = if self.is_duplicated() { u64::MAX } else { record.sent().bytes };
        Some((owned, Arc::clone(record), lingering::needed(socket, sent)?))
    }

    /// Whether it was accepted by a server of this process.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.owned.is_some()
    }

    /// Whether there is, or was, a second number of it.
    #[must_use]
    pub fn is_duplicated(&self) -> bool {
        self.has_seen(seen::DUPLICATED)
    }

    /// Whether a call has met the peer's end.
    #[must_use]
    pub fn was_ended(&self) -> bool {
        self.has_seen(seen::END)
    }

    /// Whether a call has met the peer's reset.
    #[must_use]
    pub fn was_reset(&self) -> bool {
        self.has_seen(seen::RESET)
    }

    /// A byte went either way.
    pub(super) fn moved(&self) {
        let (Some(owned), Some(record)) = (&self.owned, self.record.get()) else { return };
        if owned.idle.is_some() {
            let since = record.opened().elapsed().as_nanos();
            owned.moved.store(u64::try_from(since).unwrap_or(u64::MAX), Relaxed);
        }
    }

    /// Until when a call that has to wait may do so, by the server's limits, and by which of them.
    /// `since` is when it first had to, once that was asked for.
    pub(super) fn limit(
        &self,
        interest: Interest,
        since: &mut Option<Instant>,
    ) -> Option<(Instant, &'static str)> {
        let (owned, record) = (self.owned.as_ref()?, self.record.get()?);
        let after = |from: Instant, limit: Option<Duration>, name| {
            limit.and_then(|limit| from.checked_add(limit)).map(|at| (at, name))
        };
        let moved = || record.opened() + Duration::from_nanos(owned.moved.load(Relaxed));
        let of_the_call = match interest {
            Interest::Writable => {
                after(*since.get_or_insert_with(Instant::now), owned.write, "write")
            }
            Interest::Readable | Interest::Input if record.has_received() => None,
            Interest::Readable | Interest::Input => {
                after(record.opened(), owned.first_byte, "first_byte")
            }
        };
        let idle = owned.idle.and_then(|_| after(moved(), owned.idle, "idle"));
        [of_the_call, idle].into_iter().flatten().min()
    }

    /// Ends it because of a limit, under the call that waited for it; the error for that call.
    pub(super) fn over_limit(
        &self,
        socket: &Socket,
        step: &'static str,
        name: &'static str,
    ) -> Error {
        if let Some(owned) = &self.owned {
            owned.owner.settle(ClosedBy::Limit(name), None, false);
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

    /// In a draining server a connection that has been heard from is not waited for any longer: what
    /// is there is read, then the end. True where this is the first to say so.
    pub(super) fn end_reads_if_draining(&self, socket: &Held<'_>) -> bool {
        let Some(owned) = &self.owned else { return false };
        let heard = || self.record.get().is_some_and(|record| record.has_received());
        if !owned.is_draining() || self.has_seen(seen::READS_ENDED) || !heard() {
            return false;
        }
        self.end_reads_of(socket)
    }

    fn end_reads_of(&self, socket: &Socket) -> bool {
        self.saw(seen::READS_ENDED);
        if self.owned.as_ref().is_some_and(|owned| owned.owner.end_input()) {
            // The end comes behind what is on its way.
            return true;
        }
        // Wakes a thread that waits in a read, whatever it reads by: a method of ours, os.read, or a
        // socket made of a duplicate. ENOTCONN: it is over already.
        let _ = socket.shutdown(Shutdown::Read);
        true
    }

    /// From the thread that ends the server: has its reads see the end, where it has been heard from
    /// or need not be any more; whether they now do.
    pub(crate) fn end_reads(&self, heard_only: bool) -> bool {
        // Under the lock: a close that found the socket in use would not linger.
        let slot = self.socket.lock();
        let Some(socket) = slot.as_ref() else { return false };
        // Also what was read by other means than our methods; a Unix socket does not tell.
        let heard = || match sys::tcp_info(socket.as_fd()) {
            Ok((info, _)) => info.bytes_received > 0,
            Err(_) => {
                sys::unread(socket.as_fd()) > 0
                    || self.record.get().is_some_and(|record| record.has_received())
            }
        };
        !self.has_seen(seen::READS_ENDED) && (!heard_only || heard()) && self.end_reads_of(socket)
    }

    /// Ends it with RST, though a handler may be at it still: its number stays until that has let go.
    pub(crate) fn force(&self) {
        let socket = self.socket.lock().clone();
        if let Some(socket) = socket {
            if let Some(owned) = &self.owned {
                owned.owner.settle(ClosedBy::Stop, None, true);
            }
            self.saw(seen::FORCED);
            socket.reset();
        }
    }

    /// Closes it where no thread is in one of its calls; false where one is. With FIN behind what was
    /// sent, unless there is input that nobody will read: then with RST, as the kernel would.
    pub(crate) fn close_if_idle(&self) -> bool {
        let mut slot = self.socket.lock();
        let Some(socket) = slot.take() else { return true };
        let socket = match Arc::try_unwrap(socket) {
            Ok(socket) => socket,
            Err(shared) => {
                *slot = Some(shared);
                return false;
            }
        };
        self.closed.store(true, SeqCst);
        drop(slot);
        let quiet = sys::unread(socket.as_fd()) == 0;
        self.settle(ClosedBy::Stop, None, !quiet);
        match (quiet, self.has_seen(seen::DUPLICATED)) {
            (true, false) => {
                socket.never_wait();
                drop(socket);
            }
            (true, true) => {
                let _ = socket.shutdown(Shutdown::Both);
            }
            // By the close alone: a shutdown before it would look like an end to the peer of a Unix socket.
            (false, false) => socket.abort(),
            (false, true) => socket.reset(),
        }
        self.leave();
        true
    }

    /// Sends a byte that is never read, so that the other end of the pair has unread data when it is closed.
    pub(crate) fn leave_unread(&self) {
        let socket = self.socket.lock().clone();
        if let Some(socket) = socket {
            // EPIPE, EAGAIN: it has finished, or there is unread data already.
            let _ = sys::send(socket.as_fd(), &[0], libc::MSG_DONTWAIT);
        }
    }
}
