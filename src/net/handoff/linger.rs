//! The lingering close of what a handler has closed: its last words are delivered although the peer goes
//! on sending. Owns which worker does it, one a server, started by the first connection that needs it;
//! must never start one that nobody needs, nor after the end of the server.
//!
//! A close with input unread sends RST, and so does the peer's next byte after a close; either destroys
//! what the kernel had not sent yet, or what the peer had not read. So the socket goes to a worker, which sends
//! FIN, and reads and throws away. The account is closed by then; the place among those admitted is kept until
//! the socket is closed as well.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::net::connection::lingering_socket::LingeringSocket;
use crate::net::control::context::Shared;
use crate::net::handoff::job::JobId;
use crate::net::service::null::Nothing;
use crate::net::service::service::Service;
use crate::net::worker::inbox::{Inbox, Message};
use crate::net::worker::pool::start_worker;

/// Who sees to a server's lingering closes.
#[derive(Default)]
pub(crate) enum LingerWorker {
    /// Nobody: what its connections are is nobody's business but their owner's, or it has ended.
    #[default]
    None,
    /// A worker, from when one is needed.
    NotStarted,
    Running(Arc<Inbox>),
}

/// The lingering close of one connection. Dropped, it begins, which may start a thread.
pub struct DeferredClose {
    leaving: Option<LingeringSocket>,
    shared: Arc<Shared>,
    /// Its place among those that are handed out.
    ticket: JobId,
}

impl DeferredClose {
    pub(crate) fn new(shared: Arc<Shared>, ticket: JobId, leaving: LingeringSocket) -> Self {
        Self { leaving: Some(leaving), shared, ticket }
    }
}

impl Drop for DeferredClose {
    fn drop(&mut self) {
        let Some(leaving) = self.leaving.take() else { return };
        leaving.socket.never_wait();
        if let Some(LingeringSocket { socket, record, .. }) = send(&self.shared, leaving) {
            let stop = &self.shared.stop;
            let forced = stop.has_begun() && stop.deadline() <= Instant::now();
            if forced {
                socket.reset();
            } else {
                // A double of it ends as well.
                let _ = socket.shutdown(Shutdown::Both);
            }
            drop(socket);
            if stop.has_begun() {
                stop.count(forced);
            }
            self.shared.leave(&record.remote());
        }
        // Behind the message: whoever ends the server sends the worker its own when all are forgotten.
        self.shared.handoff.forget(self.ticket);
        if self.shared.handoff.is_draining() {
            self.shared.notify();
        }
    }
}

/// Gives it to the worker, or back where there is none.
fn send(shared: &Arc<Shared>, leaving: LingeringSocket) -> Option<LingeringSocket> {
    let mut host = shared.handoff.linger_worker.lock();
    if matches!(*host, LingerWorker::NotStarted) {
        let service: Arc<dyn Service> = Arc::new(Nothing);
        // EAGAIN of clone or EMFILE of the poller: this one is closed as any socket is.
        let Ok(worker) = start_worker(shared, &service, 0) else { return Some(leaving) };
        *host = LingerWorker::Running(worker);
    }
    let LingerWorker::Running(worker) = &*host else { return Some(leaving) };
    worker.load.fetch_add(1, Relaxed);
    worker.send(Message::Linger(leaving));
    None
}

/// No more come: what lingers still does so until all that was sent has arrived, or the deadline.
pub(crate) fn end(shared: &Shared) {
    let host = std::mem::take(&mut *shared.handoff.linger_worker.lock());
    if let LingerWorker::Running(worker) = host {
        worker.send(Message::Drain);
    }
}
