//! The lingering close of a connection that a handler has closed. It delivers what was sent
//! although the peer goes on sending. Owns the worker that does this, one for each server, started
//! by the first connection that needs it; must never start one after the end of the server.
//!
//! A close with unread input sends RST, and after a close so does the peer's next byte. Either
//! destroys data that the kernel has not sent yet, or that the peer has not read. So the socket
//! moves to a worker, which sends FIN, then reads and discards the input. The record closes first,
//! and the slot under the limits is free from then on. No more connections linger than the limit
//! admits; the one that has lingered for longest is closed for another.

use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::handed_out::{HandedOut, JobId};
use crate::net::base::Mutex;
use crate::net::connection::LingeringSocket;
use crate::net::control::ServerContext;
use crate::net::ledger::{ClosedBy, SocketClose};
use crate::net::service::{Null, Service};
use crate::net::worker::{Inbox, Message, start_worker};

/// The state of the worker for a server's lingering closes.
#[derive(Default)]
enum LingerWorker {
    /// The server has not started, or has ended.
    #[default]
    None,
    NotStarted,
    Running(Arc<Inbox>),
}

/// Starts that worker, and passes sockets to it.
pub(crate) struct LingerHost(Mutex<LingerWorker>);

impl LingerHost {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Allows the start of a worker.
    pub(super) fn allow(&self) {
        *self.0.lock() = LingerWorker::NotStarted;
    }

    /// Whether a close may linger.
    pub(super) fn is_open(&self) -> bool {
        !matches!(*self.0.lock(), LingerWorker::None)
    }

    /// Sends a socket to the worker. Returns it if there is no worker.
    fn send(
        &self,
        context: &Arc<ServerContext>,
        lingering: LingeringSocket,
    ) -> Option<LingeringSocket> {
        let mut worker = self.0.lock();
        if matches!(*worker, LingerWorker::NotStarted) {
            let service: Arc<dyn Service> = Arc::new(Null);
            // EAGAIN from clone(2) or EMFILE for the poller: the socket closes without lingering.
            let Ok(inbox) = start_worker(context, &service, 0) else { return Some(lingering) };
            *worker = LingerWorker::Running(inbox);
        }
        let LingerWorker::Running(inbox) = &*worker else { return Some(lingering) };
        inbox.load.fetch_add(1, Relaxed);
        inbox.send_or_end(Message::Linger(lingering), context);
        None
    }

    /// Accepts no more sockets. Those that linger do so until all data has arrived, or until the
    /// deadline.
    pub(super) fn end(&self, context: &ServerContext) {
        let worker = std::mem::take(&mut *self.0.lock());
        if let LingerWorker::Running(inbox) = worker {
            inbox.send_or_end(Message::Drain, context);
        }
    }
}

/// A lingering close that has not begun. Its drop begins it, which may start a thread.
pub(super) struct PendingLinger {
    pub(super) lingering: Option<LingeringSocket>,
    pub(super) context: Arc<ServerContext>,
    pub(super) handed_out: Arc<HandedOut>,
    pub(super) host: Arc<LingerHost>,
    pub(super) job: JobId,
}

impl Drop for PendingLinger {
    fn drop(&mut self) {
        let Some(lingering) = self.lingering.take() else { return };
        lingering.socket.never_wait();
        if let Some(LingeringSocket { socket, record, .. }) =
            self.host.send(&self.context, lingering)
        {
            let shutdown = &self.context.shutdown;
            let forced = shutdown.has_begun() && shutdown.deadline() <= Instant::now();
            let close = if forced {
                SocketClose::Reset(socket.as_fd())
            } else {
                SocketClose::Plain { socket: socket.as_fd(), resets: false }
            };
            record.note_close(close, ClosedBy::Stop, None);
            if forced {
                socket.reset();
            } else {
                // Ends a duplicate of the socket as well.
                let _ = socket.shutdown(Shutdown::Both);
            }
            drop(socket);
            self.context.count_stopped(forced);
            self.context.admission.closed();
        }
        // After the message, because a stop sends the worker `Drain` once all jobs are removed.
        self.handed_out.remove_and_notify(self.job, &self.context);
    }
}
