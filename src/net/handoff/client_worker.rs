//! The worker of the connections of clients with stages, one for all of them. Owns when it starts
//! and ends: with the first such connection, with the last one, or by a stop of everything; must
//! never keep a client alive, nor outlive the connections.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use super::inner::OuterWorkers;
use crate::net::address::{Target, Transport, UnixName};
use crate::net::base::{Held, HeldAcrossFork, Mutex, Waiter, fork, lock};
use crate::net::control::{Access, Cause, Config, Limits, ServerContext, ShutdownListener};
use crate::net::error::Result;
use crate::net::ledger::{ClosedBy, Record};
use crate::net::service::Shape;
use crate::net::socket::{Socket, SocketOptions};
use crate::net::worker::{Accepted, Inbox, Inner, Message};

/// How long a stop of everything waits for the clients, if the caller does not say.
const DRAIN: Duration = Duration::from_secs(1);
/// How long what a client has sent before its close may make no progress.
const UNSENT: Duration = Duration::from_secs(60);

/// The worker that takes connections now.
static CURRENT: Mutex<Option<Arc<ClientWorker>>> = Mutex::new(None);

thread_local! {
    static HELD: Held<Option<Arc<ClientWorker>>> = const { Held::new(None) };
}

struct ForkHook;

impl HeldAcrossFork for ForkHook {
    fn hold(&self) {
        lock::hold(&HELD, &CURRENT);
    }

    fn release(&self) {
        lock::release(&HELD);
    }
}

/// The worker, with what its connections share.
pub(crate) struct ClientWorker {
    context: Arc<ServerContext>,
    workers: OuterWorkers,
    worker: Arc<Inbox>,
    /// Connections, and places for them. Changed only with the lock of `CURRENT`.
    places: AtomicUsize,
}

impl ClientWorker {
    fn start() -> io::Result<Arc<Self>> {
        let mut config = Config {
            transport: Transport::Tcp,
            allow_external: false,
            target: Target::unix(UnixName::unnamed()),
            fd: None,
            replace: false,
            access: Access::default(),
            proxies: Vec::new(),
            shape: Shape::Handler,
            ordered: false,
            stages: None,
            tls: None,
            faults: None,
            seed: Some(0),
            workers: Some(1),
            options: SocketOptions::default(),
            // The program decides how long a client is open, and when it reads.
            limits: Limits { write: None, half_close: Some(UNSENT), ..Limits::default() },
            history: 0,
            trace: None,
            drain: DRAIN,
            name: "clients".to_owned(),
        };
        let context = Arc::new(ServerContext::new(&mut config));
        context.admission.set_limit(usize::MAX, false);
        context.shutdown.open_flag()?;
        let mut started = Vec::new();
        let workers = OuterWorkers::start(&context, 1, Some(&mut started))?;
        let worker = started.pop().expect("a start that does not fail starts one");
        let own = Arc::new(Self { context, workers, worker, places: AtomicUsize::new(0) });
        let listener: Arc<dyn ShutdownListener> = Arc::clone(&own) as Arc<dyn ShutdownListener>;
        own.context.shutdown.register(Arc::downgrade(&listener));
        Ok(own)
    }

    fn takes_more(&self) -> bool {
        self.context.origin.is_here() && !self.context.shutdown.has_begun()
    }

    /// What the worker is told of by other threads.
    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.worker
    }

    /// A socket pair: the worker's end, and the client's.
    pub(super) fn pair(&self) -> io::Result<(Socket, Socket)> {
        self.workers.pair()
    }

    /// Takes a connection.
    pub(super) fn take(&self, socket: Socket, record: &Arc<Record>, inner: Inner) {
        self.context.admission.enter();
        let entry_id = self.context.ledger.open(record);
        let record = Arc::clone(record);
        let accepted = Accepted { socket, record, entry_id };
        let _ = self.workers.send(accepted, inner);
    }

    /// What the end of an outer connection is to its client: a stop that gives the connections time
    /// ends them in peace.
    pub(super) fn end_for_client(&self, by: ClosedBy) -> ClosedBy {
        let forced = || self.context.shutdown.deadline() <= Instant::now();
        if by == ClosedBy::Stop && !forced() { ClosedBy::Local } else { by }
    }
}

/// A stop ends the worker with its connections.
impl ShutdownListener for ClientWorker {
    fn begun(&self) -> bool {
        self.workers.close();
        !self.worker.is_lost()
    }
}

/// A place on the worker for one connection, which keeps the worker running.
pub(super) struct WorkerPlace(Arc<ClientWorker>);

impl WorkerPlace {
    /// A place on the worker, which starts with the first one. Fails with EMFILE or EAGAIN.
    pub(super) fn reserve() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| fork::hold_across(&ForkHook));
        let mut current = CURRENT.lock();
        let found = current.as_ref().filter(|worker| worker.takes_more());
        let worker = match found {
            Some(worker) => Arc::clone(worker),
            None => {
                let worker = ClientWorker::start()?;
                leave(current.replace(Arc::clone(&worker)));
                worker
            }
        };
        worker.places.fetch_add(1, SeqCst);
        Ok(Self(worker))
    }

    pub(super) fn worker(&self) -> &Arc<ClientWorker> {
        &self.0
    }
}

impl Drop for WorkerPlace {
    fn drop(&mut self) {
        let worker = &self.0;
        if !worker.context.origin.is_here() {
            leave(Some(Arc::clone(worker)));
            return;
        }
        let mut current = CURRENT.lock();
        if worker.places.fetch_sub(1, SeqCst) > 1 {
            return;
        }
        // Behind this message comes nothing: the lock is held while a place is reserved.
        worker.worker.send(Message::Quit);
        if current.as_ref().is_some_and(|other| Arc::ptr_eq(other, worker)) {
            *current = None;
        }
    }
}

/// Drops a worker, but not one that a forked child has inherited, which is only memory.
fn leave(worker: Option<Arc<ClientWorker>>) {
    if let Some(worker) = worker.filter(|worker| !worker.context.origin.is_here()) {
        std::mem::forget(worker);
    }
}

/// Ends the worker, because the program has closed one of its descriptors.
pub(super) fn lose() {
    let worker = CURRENT.lock().clone();
    if let Some(worker) = &worker {
        worker.context.lose();
    }
}

/// The worker while it stops.
pub(crate) struct StoppingWorker(Arc<ClientWorker>);

/// Begins a stop of the connections of clients with stages, or moves its deadline closer: what they
/// have sent is delivered for `drain`, and no longer than `most`. Never blocks.
pub(crate) fn begin_stop(
    cause: Cause,
    drain: Option<Duration>,
    most: Option<Duration>,
) -> Option<StoppingWorker> {
    let worker = CURRENT.lock().clone();
    let (here, foreign) = match worker {
        Some(worker) if worker.context.origin.is_here() => (Some(worker), None),
        foreign => (None, foreign),
    };
    leave(foreign);
    let worker = here?;
    let drain = drain.unwrap_or(DRAIN);
    worker.context.shutdown.begin(cause, most.map_or(drain, |most| drain.min(most)));
    Some(StoppingWorker(worker))
}

impl StoppingWorker {
    /// Waits for the end of its thread, until the deadline.
    pub(crate) fn wait(&self, deadline: Option<Instant>, waiter: &mut dyn Waiter) -> Result<()> {
        self.0.context.wait(deadline, waiter).map(drop)
    }
}
