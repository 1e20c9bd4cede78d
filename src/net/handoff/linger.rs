//! The lingering close of a connection that a handler has closed: what was sent is delivered although the
//! peer goes on sending. Owns which worker does it, one for each server, started by the first connection
//! that needs it; must never start one after the end of the server.
//!
//! A close with unread input sends RST, and so does the peer's next byte after a close; either destroys
//! what the kernel had not sent yet, or what the peer had not read. So the socket goes to a worker, which sends
//! FIN, reads, and discards. The record is closed by then; the admission slot is kept until the socket is
//! closed as well.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::handed_out::{HandedOut, JobId};
use crate::net::base::Mutex;
use crate::net::connection::LingeringSocket;
use crate::net::control::ServerContext;
use crate::net::service::{Null, Service};
use crate::net::worker::{Inbox, Message, start_worker};

/// The worker of a server's lingering closes.
#[derive(Default)]
enum LingerWorker {
    /// The server has not started, or has ended.
    #[default]
    None,
    NotStarted,
    Running(Arc<Inbox>),
}

/// The place of that worker.
pub(crate) struct LingerHost(Mutex<LingerWorker>);

impl LingerHost {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// From here on a worker may be started.
    pub(super) fn allow(&self) {
        *self.0.lock() = LingerWorker::NotStarted;
    }

    /// Whether a close may linger.
    pub(super) fn is_open(&self) -> bool {
        !matches!(*self.0.lock(), LingerWorker::None)
    }

    /// Gives a socket to the worker, or back where there is none.
    fn send(
        &self,
        context: &Arc<ServerContext>,
        lingering: LingeringSocket,
    ) -> Option<LingeringSocket> {
        let mut worker = self.0.lock();
        if matches!(*worker, LingerWorker::NotStarted) {
            let service: Arc<dyn Service> = Arc::new(Null);
            // EAGAIN of clone or EMFILE of the poller: this socket is closed as any socket is.
            let Ok(inbox) = start_worker(context, &service, 0) else { return Some(lingering) };
            *worker = LingerWorker::Running(inbox);
        }
        let LingerWorker::Running(inbox) = &*worker else { return Some(lingering) };
        inbox.load.fetch_add(1, Relaxed);
        inbox.send(Message::Linger(lingering));
        None
    }

    /// No more sockets come. Those that linger do so until all that was sent has arrived, or the deadline.
    pub(super) fn end(&self) {
        let worker = std::mem::take(&mut *self.0.lock());
        if let LingerWorker::Running(inbox) = worker {
            inbox.send(Message::Drain);
        }
    }
}

/// A lingering close that has not begun. Dropped, it begins, which may start a thread.
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
            if forced {
                socket.reset();
            } else {
                // Ends a duplicate of it as well.
                let _ = socket.shutdown(Shutdown::Both);
            }
            drop(socket);
            self.context.count_stopped(forced);
            self.context.admission.leave(&record.remote());
        }
        // After the message: a stop sends the worker `Drain` once all jobs are removed.
        self.handed_out.remove_and_notify(self.job, &self.context);
    }
}
