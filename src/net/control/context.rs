//! What the threads of one server share: the limits, the books, the count of those let in, and how all
//! are told to end. Must never own a thread's work, nor keep a lock while it waits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::net::address::endpoint::{Address, Endpoint, Transport, canonical};
use crate::net::base::event_fd::EventFd;
use crate::net::base::fork::Origin;
use crate::net::base::lock::Mutex;
use crate::net::base::waiter::Waiter;
use crate::net::control::config::Config;
use crate::net::control::limits::Limits;
use crate::net::control::shutdown::{Alive, Asked, Cause, Owner, Stop, StopReport};
use crate::net::datagram::socket::Ports;
use crate::net::error::Result;
use crate::net::handoff::pool::ThreadPool;
use crate::net::ledger::ledger::Ledger;
use crate::net::ledger::trace::TraceLimits;
use crate::net::server::lifecycle::{State, Steps};
use crate::net::service::shape::Shape;
use crate::net::service::site::Site;
use crate::net::socket::options::SocketOptions;
use crate::net::socket::splice_pipe::Allowance;
use crate::net::socket::tcp_info::Algorithm;
use crate::net::socket::unix_file::FileId;
use crate::net::stage::stage::StageFactory;
use crate::net::sys::{self, PollFd};
use crate::net::worker::inbox::{Inbox, Message};

/// What the threads of a server share.
pub(crate) struct Shared {
    pub(crate) origin: Origin,
    pub(crate) name: String,
    pub(crate) options: SocketOptions,
    pub(crate) limits: Limits,
    /// What is between each connection and its session.
    pub(crate) stages: Option<Arc<dyn StageFactory>>,
    pub(crate) ledger: Arc<Ledger>,
    /// How much is remembered of what goes over a connection; None for nothing.
    pub(crate) trace: Option<TraceLimits>,
    /// How the listener avoids congestion, and with it all that it accepts; from the start on.
    pub(crate) algorithm: OnceLock<Algorithm>,
    pub(crate) stop: Stop,
    /// Connections in the hands of the caller's threads; of none with a service in Rust.
    pub(crate) handoff: ThreadPool,
    pub(crate) transport: Transport,
    /// Where datagrams are received while it serves; none of a TCP server.
    pub(crate) ports: Ports,
    /// Wakes the thread that accepts: a stop began, or a connection ended that it waits for. There while
    /// that thread accepts.
    pub(crate) notifier: Mutex<Option<Arc<EventFd>>>,
    pub(crate) most_workers: usize,
    pub(crate) drain: Duration,
    pub(crate) address: Mutex<Option<Address>>,
    /// Which file that address is, of a Unix socket.
    pub(crate) file: Mutex<Option<FileId>>,
    /// What it serves with, while it does.
    pub(crate) shape: Mutex<Option<Shape>>,
    admitted: AtomicUsize,
    /// How many connections each address has; looked at only under `Limits::per_host`.
    hosts: Mutex<HashMap<IpAddr, usize>>,
    pub(crate) most_admitted: AtomicUsize,
    /// Of pipes for bulk.
    pub(crate) pipes: Arc<Allowance>,
    room_wanted: AtomicBool,
    errors: AtomicU64,
    workers: Mutex<Vec<Arc<Inbox>>>,
    pub(crate) steps: Mutex<Steps>,
}

/// An `Arc<Shared>` as the thing that `Alive` counts for.
pub(crate) struct Threads(pub(crate) Arc<Shared>);

impl Owner for Threads {
    fn stop(&self) -> &Stop {
        &self.0.stop
    }

    fn ended(&self) {
        self.0.finish_ledger();
    }
}

impl Shared {
    pub(crate) fn new(config: &Config, most_workers: usize) -> Self {
        Self {
            origin: Origin::here(),
            name: config.name.clone(),
            options: config.options.clone(),
            limits: config.limits.clone(),
            stages: config.stages.clone(),
            ledger: Arc::new(Ledger::new(config.history)),
            trace: config.trace,
            algorithm: OnceLock::new(),
            stop: Stop::new(),
            handoff: ThreadPool::new(config.limits.handler_threads),
            transport: config.transport,
            ports: Ports::default(),
            notifier: Mutex::new(None),
            most_workers,
            drain: config.drain,
            address: Mutex::new(None),
            shape: Mutex::new(None),
            file: Mutex::new(None),
            admitted: AtomicUsize::new(0),
            hosts: Mutex::new(HashMap::new()),
            most_admitted: AtomicUsize::new(usize::MAX),
            pipes: Arc::default(),
            room_wanted: AtomicBool::new(false),
            errors: AtomicU64::new(0),
            workers: Mutex::new(Vec::new()),
            steps: Mutex::new(Steps::new()),
        }
    }

    /// The address it is bound to; None before that and after its end.
    pub(crate) fn address(&self) -> Option<Address> {
        self.address.lock().clone()
    }

    /// Which file that is, of a Unix socket.
    pub(crate) fn file(&self) -> Option<FileId> {
        *self.file.lock()
    }

    /// Where it listens; None as with `address`.
    pub(crate) fn site(&self) -> Option<Site> {
        let local = Endpoint { transport: self.transport, address: self.address()?.canonical() };
        Some(Site { local, dual_stack: self.options.dual_stack })
    }

    /// Where it passes connections on to.
    pub(crate) fn leads_to(&self) -> Vec<Endpoint> {
        let shape = self.shape.lock().clone();
        match shape {
            Some(Shape::Stream(service)) => service.leads_to(),
            Some(Shape::Datagram(service)) => {
                service.onward().map_or_else(Vec::new, |onward| onward.leads_to())
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.stop.has_begun() && self.stop.is_done()
    }

    /// Tells those who follow the ledger, where this is the end. Asked whenever a stop begins and whenever
    /// the last thread ends: one of the two comes second, and finds the other.
    fn finish_ledger(&self) {
        if self.has_ended() {
            self.ledger.finish();
        }
    }

    /// How many connections, or accounts of peers, there may be.
    pub(crate) fn most_admitted(&self) -> usize {
        self.most_admitted.load(Relaxed)
    }

    /// Takes a place for a connection; false above the limit.
    pub(crate) fn enter(&self) -> bool {
        let most = self.most_admitted();
        let more = |admitted| (admitted < most).then_some(admitted + 1);
        self.admitted.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Takes one of the places that the host of a peer has; false where it has them all. Unix sockets
    /// know no hosts.
    pub(crate) fn enter_host(&self, peer: Option<SocketAddr>) -> bool {
        let (Some(most), Some(peer)) = (self.limits.per_host, peer) else { return true };
        let mut hosts = self.hosts.lock();
        let held = hosts.entry(canonical(peer).ip()).or_default();
        let free = *held < most;
        if free {
            *held += 1;
        }
        free
    }

    /// Gives back a place of a host's.
    pub(crate) fn leave_host(&self, peer: SocketAddr) {
        if self.limits.per_host.is_some() {
            let mut hosts = self.hosts.lock();
            if let Entry::Occupied(mut held) = hosts.entry(canonical(peer).ip()) {
                *held.get_mut() -= 1;
                if *held.get() == 0 {
                    held.remove();
                }
            }
        }
    }

    /// Gives back a place that was not used: nobody is told, for nothing has come free.
    pub(crate) fn give_back(&self) {
        self.admitted.fetch_sub(1, SeqCst);
    }

    /// Gives the place of a peer back, and tells the accept thread where it waits for one.
    pub(crate) fn leave(&self, peer: &Endpoint) {
        if let Some(address) = peer.address.as_ip() {
            self.leave_host(address);
        }
        self.admitted.fetch_sub(1, SeqCst);
        if self.room_wanted.load(SeqCst)
            && self.room_wanted.swap(false, SeqCst)
            && !self.handoff.tell_room()
        {
            self.notify();
        }
    }

    /// Whether a place is free; if not, `leave` will ring.
    pub(crate) fn has_room(&self) -> bool {
        let free = || self.admitted.load(SeqCst) < self.most_admitted();
        if free() {
            return true;
        }
        self.ask_for_room();
        free()
    }

    /// Has the next connection that ends ring the notifier.
    pub(crate) fn ask_for_room(&self) {
        self.room_wanted.store(true, SeqCst);
    }

    /// Whether the next connection that ends would ring: none has since that was asked for.
    pub(crate) fn wants_room(&self) -> bool {
        self.room_wanted.load(SeqCst)
    }

    pub(crate) fn count_error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// Begins a stop from one of the server's own threads.
    pub(crate) fn stop_by_itself(&self, cause: Cause) {
        self.stop.begin(cause, self.drain);
        self.ports.end();
        self.notify();
    }

    pub(crate) fn state(&self) -> State {
        let state = self.steps.lock().state;
        if !self.stop.has_begun() {
            state
        } else if self.stop.is_done() {
            State::Stopped
        } else {
            State::Draining
        }
    }

    /// Begins a stop, or brings its deadline nearer. Returns at once.
    pub(crate) fn signal_stop(&self, cause: Cause, drain: Duration) {
        match self.stop.begin(cause, drain) {
            Asked::First => {
                // Before the notifier, which has those look who wait for this.
                self.ports.end();
                self.notify();
                self.close_unserved();
                self.finish_ledger();
            }
            Asked::Sooner => {
                let workers = self.workers.lock().clone();
                for worker in workers {
                    worker.send(Message::Deadline);
                }
                // The accept thread may be waiting for handlers.
                self.notify();
            }
            Asked::Again => {}
        }
    }

    /// A server that does not serve yet has no thread that would close its listener.
    fn close_unserved(&self) {
        let mut steps = self.steps.lock();
        let listener = if steps.busy { None } else { steps.listener.take() };
        drop(steps);
        if let Some(listener) = listener {
            listener.close();
        }
    }

    /// Has the accept thread look again.
    pub(crate) fn notify(&self) {
        let notifier = self.notifier.lock().clone();
        if let Some(notifier) = notifier {
            notifier.set();
        }
    }

    /// The accept thread has ended: nobody hears the notifier any more.
    pub(crate) fn clear_notifier(&self) {
        *self.notifier.lock() = None;
    }

    /// Starts a thread that is joined by the stop. It blocks all signals: they belong to Python's.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let alive = Alive::new(Threads(Arc::clone(self)));
        let start = || {
            thread::Builder::new().name(name).spawn(move || {
                // Dropped last, after all that the body owned: descriptors are closed by then.
                let _alive = alive;
                body();
            })
        };
        let thread = sys::with_signals_blocked(start)?;
        self.stop.keep(thread);
        Ok(())
    }

    /// Makes a worker known to those who bring the deadline nearer.
    pub(crate) fn enlist(&self, worker: &Arc<Inbox>) {
        self.workers.lock().push(Arc::clone(worker));
    }

    /// A worker has ended, and with it whoever could be told.
    pub(crate) fn delist(&self, worker: &Arc<Inbox>) {
        self.workers.lock().retain(|listed| !Arc::ptr_eq(listed, worker));
    }

    /// Waits for the end of the last thread; None after the deadline.
    pub(crate) fn wait(
        &self,
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Option<StopReport>> {
        while !self.has_ended() {
            // None where the last thread ends just now.
            let Some(done) = self.stop.done() else { continue };
            if !waiter.wait(&mut [PollFd::readable(done.as_fd())], deadline)? {
                return Ok(None);
            }
        }
        // From here on its port is no longer its own.
        *self.address.lock() = None;
        *self.shape.lock() = None;
        Ok(Some(self.stop.report(self.errors.load(Relaxed), waiter)))
    }
}
