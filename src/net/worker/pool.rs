//! The workers of one server: how they are started, and which of them gets a connection. Must never serve one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::net::address::endpoint::Address;
use crate::net::base::event_fd::EventFd;
use crate::net::control::context::Shared;
use crate::net::service::service::Service;
use crate::net::socket::listener::Listener;
use crate::net::worker::acceptor::{Acceptor, Sink};
use crate::net::worker::inbox::Inbox;
use crate::net::worker::worker::Worker;

/// A worker with so many connections is not given more while another one could be started.
pub(crate) const FULL_WORKER: usize = 16;
/// A worker with so many that is never found asleep is busy enough to be helped.
pub(crate) const BUSY_WORKER: usize = 4;

/// The least loaded worker, or a new one where load asks for it and the number allows it.
pub(crate) fn pick(
    shared: &Arc<Shared>,
    service: &Arc<dyn Service>,
    workers: &mut Vec<Arc<Inbox>>,
) -> Arc<Inbox> {
    let least = workers
        .iter()
        .min_by_key(|worker| worker.load.load(Relaxed))
        .expect("worker 0 starts with the server");
    let load = least.load.load(Relaxed);
    let asks = load >= FULL_WORKER || (load >= BUSY_WORKER && !least.is_asleep());
    let least = Arc::clone(least);
    if asks && workers.len() < shared.most_workers {
        // EAGAIN of clone or EMFILE of the poller: the workers there are have to do.
        if let Ok(worker) = start_worker(shared, service, workers.len()) {
            workers.push(Arc::clone(&worker));
            return worker;
        }
    }
    least
}

/// Opens and starts a worker. Nothing is left open where it fails.
pub(crate) fn start_worker(
    shared: &Arc<Shared>,
    service: &Arc<dyn Service>,
    number: usize,
) -> io::Result<Arc<Inbox>> {
    let flag = Arc::new(EventFd::new()?);
    run_worker(shared, service, number, Worker::new(Arc::clone(shared), flag)?)
}

/// The same, for the one worker of a server, which accepts by itself.
pub(crate) fn start_accepting_worker(
    shared: &Arc<Shared>,
    service: &Arc<dyn Service>,
    listener: Listener,
    local: Address,
    notifier: Arc<EventFd>,
) -> io::Result<()> {
    let (mut worker, inbox) = Worker::new(Arc::clone(shared), Arc::clone(&notifier))?;
    let here = Sink::Here(Vec::new());
    worker.accept_with(Acceptor::new(Arc::clone(shared), listener, local, notifier, here))?;
    run_worker(shared, service, 0, (worker, inbox)).map(drop)
}

pub(crate) fn run_worker(
    shared: &Arc<Shared>,
    service: &Arc<dyn Service>,
    number: usize,
    (worker, inbox): (Worker, Arc<Inbox>),
) -> io::Result<Arc<Inbox>> {
    shared.enlist(&inbox);
    let (mine, listed, service) = (Arc::clone(shared), Arc::clone(&inbox), Arc::clone(service));
    let started = shared.spawn(format!("rsock-worker-{number}"), move || {
        worker.run(&*service);
        mine.delist(&listed);
    });
    if started.is_err() {
        shared.delist(&inbox);
    }
    started?;
    Ok(inbox)
}
