//! The workers of one server. Owns when another one starts, and which of them gets a connection;
//! must never serve one.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

use super::acceptor::Acceptor;
use super::inbox::{Inbox, Message};
use super::sink::{Accepted, Sink};
use super::worker::Worker;
use crate::net::address::Address;
use crate::net::base::EventFd;
use crate::net::control::{ServerContext, ShutdownListener};
use crate::net::service::Service;
use crate::net::socket::Listener;
use crate::net::stage::faults::FaultListener;

/// A worker with this many connections gets no more while another worker can be started.
const FULL_WORKER: usize = 16;
/// A worker with this many connections that does not wait in its poll is busy enough for another
/// one to start.
const BUSY_WORKER: usize = 4;

/// The workers of one server as a sink.
pub(crate) struct WorkerPool {
    context: Arc<ServerContext>,
    service: Arc<dyn Service>,
    workers: Vec<Arc<Inbox>>,
    most_workers: usize,
}

impl WorkerPool {
    /// Creates a pool without workers, which may have up to `most_workers`.
    pub(crate) fn new(
        context: &Arc<ServerContext>,
        service: &Arc<dyn Service>,
        most_workers: usize,
    ) -> Self {
        let (context, service) = (Arc::clone(context), Arc::clone(service));
        Self { context, service, workers: Vec::new(), most_workers }
    }

    /// Starts one more worker. Fails with EMFILE or EAGAIN.
    pub(crate) fn add(&mut self) -> io::Result<Arc<Inbox>> {
        let worker = start_worker(&self.context, &self.service, self.workers.len())?;
        self.workers.push(Arc::clone(&worker));
        Ok(worker)
    }

    /// The least loaded worker, or a new one where load asks for it and the number allows it.
    pub(crate) fn pick(&mut self) -> Arc<Inbox> {
        let least = self
            .workers
            .iter()
            .min_by_key(|worker| worker.load.load(Relaxed))
            .expect("worker 0 starts with the server");
        let load = least.load.load(Relaxed);
        let asks = load >= FULL_WORKER || (load >= BUSY_WORKER && !least.is_asleep());
        let least = Arc::clone(least);
        if asks && self.workers.len() < self.most_workers {
            // EAGAIN from clone(2) or EMFILE for the poller: a running worker takes the connection.
            return self.add().unwrap_or(least);
        }
        least
    }
}

impl Sink for WorkerPool {
    fn take(&mut self, accepted: Accepted) {
        let worker = self.pick();
        worker.load.fetch_add(1, Relaxed);
        worker.send_or_end(Message::Adopt(accepted), &self.context);
    }

    fn close(mut self, _notifier: &EventFd) {
        self.drain();
    }
}

impl WorkerPool {
    /// No more connections come: tells every worker so. No other one starts.
    pub(crate) fn drain(&mut self) {
        self.most_workers = 0;
        // Behind every connection in each channel.
        self.workers.iter().for_each(|worker| worker.send(Message::Drain));
        if self.workers.iter().any(|worker| worker.is_lost() || !worker.flag.is_intact()) {
            self.context.lose();
        }
    }
}

/// Opens and starts a worker. On failure everything is closed again.
pub(crate) fn start_worker(
    context: &Arc<ServerContext>,
    service: &Arc<dyn Service>,
    number: usize,
) -> io::Result<Arc<Inbox>> {
    let flag = Arc::new(EventFd::new()?);
    run_worker(context, service, number, Worker::new(Arc::clone(context), flag)?)
}

/// Starts the only worker of a server, which runs the accept loop as well.
pub(crate) fn start_accepting_worker(
    context: &Arc<ServerContext>,
    service: &Arc<dyn Service>,
    listener: Listener,
    local: Address,
    notifier: Arc<EventFd>,
) -> io::Result<()> {
    let (mut worker, inbox) = Worker::new(Arc::clone(context), Arc::clone(&notifier))?;
    worker.accept_with(Acceptor::new(context, listener, local, notifier, Vec::new()))?;
    run_worker(context, service, 0, (worker, inbox)).map(drop)
}

fn run_worker(
    context: &Arc<ServerContext>,
    service: &Arc<dyn Service>,
    number: usize,
    (worker, inbox): (Worker, Arc<Inbox>),
) -> io::Result<Arc<Inbox>> {
    let listener: Arc<dyn ShutdownListener> = Arc::clone(&inbox) as Arc<dyn ShutdownListener>;
    let listener: Weak<dyn ShutdownListener> = Arc::downgrade(&listener);
    context.shutdown.register(listener);
    let listener: Arc<dyn FaultListener> = Arc::clone(&inbox) as Arc<dyn FaultListener>;
    context.faults.listen(Arc::downgrade(&listener));
    let service = Arc::clone(service);
    context.spawn(format!("rsock-worker-{number}"), move || worker.run(&*service))?;
    Ok(inbox)
}
