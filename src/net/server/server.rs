//! A server: its steps and states, the threads it starts, and how they are told to end. Owns one
//! listening endpoint; must never serve a byte itself, nor keep a lock while it waits.
//!
//! Threads: `rsock-accept` (accept.rs) and `rsock-worker-N` (worker.rs), or one worker alone, started by
//! `Server::start` and later by the accept thread as load asks (with handlers: one, by linger.rs); all
//! end by `Server::stop`, by the listener's death, or when the `Server` is dropped. Each holds an
//! `Alive` (stop.rs); the last one out makes `stop` and `wait` return.
//!
//! Order of locks: the registry's, then those of one server's `Shared` in the order of its fields,
//! then its `stop`, then the ledger's. In fact two are held at once only where a handler's first
//! lingering close starts its worker, and none across a system call that can wait.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::panic;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Once, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::net::address::endpoint::{Address, Endpoint, Transport};
use crate::net::address::resolve;
use crate::net::address::target::Target;
use crate::net::base::event_fd::EventFd;
use crate::net::base::fork;
use crate::net::base::waiter::Waiter;
use crate::net::control::config::Config;
use crate::net::control::context::{Shared, Threads};
use crate::net::control::registry;
use crate::net::control::shutdown::{Alive, Cause, StopReport};
use crate::net::datagram::{self, amplification};
use crate::net::error::{Error, Result};
pub use crate::net::handoff::job::Job;
use crate::net::handoff::linger::LingerWorker;
use crate::net::handoff::pool::ThreadPool;
use crate::net::ledger::ledger::Ledger;
pub use crate::net::server::lifecycle::State;
use crate::net::server::lifecycle::Steps;
use crate::net::service::shape::Shape;
use crate::net::socket::listener::Listener;
use crate::net::socket::tcp_info::Algorithm;
use crate::net::socket::unix_file::clear_way;
use crate::net::stream::stream::Stream;
use crate::net::sys::PollFd;
use crate::net::worker::acceptor::{Acceptor, Sink, keep};
use crate::net::worker::inbox::{Inbox, Message};
use crate::net::worker::pool::{start_accepting_worker, start_worker};

/// A service in Rust runs on no more workers than this unless told to.
const MOST_WORKERS: usize = 8;
/// How long a server that was dropped unstopped drains.
const DROPPED: Duration = Duration::from_millis(250);
/// How long a bind waits for a server of this process that is just ending.
const PREDECESSOR: Duration = Duration::from_secs(1);

/// One server.
pub struct Server {
    config: Config,
    shared: Arc<Shared>,
}

impl Server {
    /// A server in state new. Opens nothing.
    #[must_use]
    pub fn new(mut config: Config) -> Self {
        if config.transport == Transport::Udp {
            // Only our own workers share a port: others could take the datagrams of our peers.
            config.options.reuse_port = matches!(config.shape, Shape::Datagram(_))
                && config.workers.is_some_and(|workers| workers > 1);
        }
        silence_our_panics();
        fork::watch();
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let most_workers = config.workers.unwrap_or(cpus.min(MOST_WORKERS));
        let shared = Shared::new(&config, most_workers);
        Self { config, shared: Arc::new(shared) }
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// `Error::Forked` in a child of the process that made it.
    pub fn check_origin(&self) -> Result<()> {
        self.shared.origin.check()
    }

    /// How others of this process find it, for as long as it is there.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { name: self.config.name.clone(), shared: Arc::downgrade(&self.shared) }
    }

    /// Its books.
    #[must_use]
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.shared.ledger)
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.shared.state()
    }

    /// The address it is, or was, bound to; `Error::State` before that.
    pub fn address(&self) -> Result<Address> {
        self.check_origin()?;
        let bound = self.shared.steps.lock().bound.clone();
        bound.ok_or_else(|| self.wrong("address", "it has none before bind()"))
    }

    /// Number of the listening descriptor; -1 when there is none, as with a closed socket.
    pub fn fileno(&self) -> Result<RawFd> {
        self.check_origin()?;
        let live = !matches!(self.state(), State::Draining | State::Stopped);
        Ok(if live { self.shared.steps.lock().number } else { -1 })
    }

    /// How many connections have finished their handshake and wait in the kernel's queue to be
    /// accepted. 0 before `listen` and after the end.
    pub fn waiting(&self) -> Result<usize> {
        self.check_origin()?;
        let gauge = self.shared.steps.lock().gauge.clone();
        Ok(gauge.map_or(0, |gauge| gauge.waiting()))
    }

    /// The server's own drain time.
    #[must_use]
    pub fn drain(&self) -> Duration {
        self.config.drain
    }

    fn wrong(&self, asked: &'static str, hint: &'static str) -> Error {
        Error::State { asked, state: self.state().name().to_owned(), hint }
    }

    /// Opens the socket. `to` replaces the target that the server was made with.
    pub fn create(&self, to: Option<&Target>, waiter: &mut dyn Waiter) -> Result<()> {
        self.step("create", State::New, |steps| self.do_create(steps, to, waiter))
    }

    /// Gives the socket its address, creating it first where that was not done.
    pub fn bind(&self, to: Option<&Target>, waiter: &mut dyn Waiter) -> Result<()> {
        self.reach("bind", State::Bound, to, None, waiter)
    }

    /// Has the kernel take connections, doing first what was not done.
    pub fn listen(&self, backlog: Option<u32>, waiter: &mut dyn Waiter) -> Result<()> {
        self.reach("listen", State::Listening, None, backlog, waiter)
    }

    /// Starts the threads, doing first what was not done. Returns with the port open.
    pub fn start(&self, waiter: &mut dyn Waiter) -> Result<()> {
        self.reach("start", State::Serving, None, None, waiter)
    }

    /// Runs one step with the lock given up meanwhile; what it fails to do stays undone.
    fn step(
        &self,
        asked: &'static str,
        from: State,
        work: impl FnOnce(&mut Steps) -> Result<()>,
    ) -> Result<()> {
        self.check_origin()?;
        let mut taken = {
            let mut steps = self.shared.steps.lock();
            if steps.busy {
                drop(steps);
                return Err(self.wrong(asked, "another thread is at one of its steps"));
            }
            if steps.state != from || self.shared.stop.has_begun() {
                drop(steps);
                return Err(self.wrong(asked, hint(self.state())));
            }
            steps.busy = true;
            Steps {
                state: steps.state,
                listener: steps.listener.take(),
                candidates: std::mem::take(&mut steps.candidates),
                busy: true,
                number: steps.number,
                gauge: steps.gauge.clone(),
                bound: steps.bound.clone(),
            }
        };
        let result = work(&mut taken);
        taken.busy = false;
        if result.is_err() && taken.listener.is_none() {
            // The step has lost it: there is nothing to go on with.
            taken = Steps::new();
        }
        let mut steps = self.shared.steps.lock();
        *steps = taken;
        // A stop that came meanwhile had no listener to close.
        let orphan = if self.shared.stop.has_begun() { steps.listener.take() } else { None };
        drop(steps);
        if let Some(listener) = orphan {
            listener.close();
            return Err(self.wrong(asked, hint(State::Stopped)));
        }
        result
    }

    fn reach(
        &self,
        asked: &'static str,
        goal: State,
        to: Option<&Target>,
        backlog: Option<u32>,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        self.check_origin()?;
        let state = self.state();
        if state as u8 >= goal as u8 {
            return Err(self.wrong(asked, hint(state)));
        }
        // A failure closes whatever was opened: the caller starts again from nothing.
        let outcome = loop {
            let state = self.state();
            let result = match state {
                _ if state as u8 >= goal as u8 => return Ok(()),
                State::New => {
                    self.step(asked, State::New, |steps| self.do_create(steps, to, waiter))
                }
                State::Created => {
                    self.step(asked, State::Created, |steps| self.do_bind(steps, to, waiter))
                }
                State::Bound => {
                    self.step(asked, State::Bound, |steps| self.do_listen(steps, backlog))
                }
                _ => self.step(asked, State::Listening, |steps| self.do_start(steps, waiter)),
            };
            if result.is_err() {
                break result;
            }
        };
        if !matches!(outcome, Err(Error::State { .. })) {
            self.undo();
        }
        outcome
    }

    /// Back to new after a failed step, with nothing open.
    fn undo(&self) {
        let mut steps = self.shared.steps.lock();
        if !steps.busy && (steps.state as u8) < State::Serving as u8 {
            let listener = steps.listener.take();
            *steps = Steps::new();
            drop(steps);
            *self.shared.address.lock() = None;
            *self.shared.file.lock() = None;
            if let Some(listener) = listener {
                listener.close();
            }
        }
    }

    fn do_create(
        &self,
        steps: &mut Steps,
        to: Option<&Target>,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let options = &self.config.options;
        let listener = if let Some(fd) = self.config.fd {
            let listener = Listener::adopt(fd, self.config.transport, options)?;
            if listener.is_bound() {
                self.check_external(&listener.address()?)?;
            }
            listener
        } else {
            let mut candidates =
                resolve::addresses(to.unwrap_or(&self.config.target), true, None, waiter)?;
            for candidate in &candidates {
                self.check_external(candidate)?;
            }
            let listener = Listener::create(self.config.transport, &candidates[0], options)?;
            candidates.reverse();
            steps.candidates = candidates;
            listener
        };
        steps.number = listener.as_fd().as_raw_fd();
        steps.gauge = Some(listener.gauge());
        steps.listener = Some(listener);
        steps.state = State::Created;
        Ok(())
    }

    fn do_bind(
        &self,
        steps: &mut Steps,
        to: Option<&Target>,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let mut listener = steps.listener.take().expect("created");
        if let Some(to) = to {
            if listener.is_bound() {
                return Err(Error::Value(format!(
                    "bind {to}: the socket given by fd= has an address already"
                )));
            }
            let candidates = resolve::addresses(to, true, None, waiter)?;
            for candidate in &candidates {
                self.check_external(candidate)?;
            }
            steps.candidates = candidates;
            steps.candidates.reverse();
        }
        if !listener.is_bound() {
            let mut first: Option<Error> = None;
            loop {
                let Some(address) = steps.candidates.pop() else {
                    let unbound = || {
                        Error::Value(
                            "bind: the socket given by fd= has no address; give one".to_owned(),
                        )
                    };
                    return Err(first.unwrap_or_else(unbound));
                };
                let options = &self.config.options;
                // A name may have addresses of both families, and a caller another one in mind.
                let result = if first.is_none() && listener.fits(&address, options) {
                    Ok(())
                } else {
                    let new = Listener::create(self.config.transport, &address, options);
                    new.map(|new| listener = new)
                };
                match result.and_then(|()| self.bind_to(&listener, &address, waiter)) {
                    Ok(()) => break,
                    Err(error @ Error::Interrupted) => return Err(error),
                    Err(error) => first = first.or(Some(error)),
                }
            }
        }
        let bound = listener.address()?;
        steps.number = listener.as_fd().as_raw_fd();
        steps.gauge = Some(listener.gauge());
        steps.bound = Some(bound.clone());
        *self.shared.file.lock() = listener.file();
        *self.shared.address.lock() = Some(bound);
        registry::add(&self.shared);
        if self.config.transport == Transport::Udp {
            amplification::note_server();
        }
        steps.state = if listener.is_listening() { State::Listening } else { State::Bound };
        steps.listener = Some(listener);
        Ok(())
    }

    /// Binds; where a server of this process holds the address, waits for one that is just ending and
    /// names one that is not. A Unix socket's stale file is replaced.
    fn bind_to(
        &self,
        listener: &Listener,
        address: &Address,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let deadline = Instant::now() + PREDECESSOR;
        let mut again = true;
        loop {
            let error = match listener.bind(address, &self.config.options) {
                Err(error) if error.raw() == Some(libc::EADDRINUSE) => error,
                result => return result,
            };
            match self.holder(address) {
                Some(holder) if holder.stop.has_begun() && Instant::now() < deadline => {
                    holder.wait(Some(deadline), waiter)?;
                }
                None if Instant::now() < deadline && address.as_unix().is_some() => {
                    let name = address.as_unix().expect("seen above");
                    clear_way(name, deadline, waiter)?;
                }
                // One that held it may have ended between the two calls.
                None if again => again = false,
                holder => return Err(name_holder(error, holder.as_deref())),
            }
        }
    }

    /// The other server of this process that has the address.
    fn holder(&self, address: &Address) -> Option<Arc<Shared>> {
        registry::holder(address, &self.shared)
    }

    fn do_listen(&self, steps: &mut Steps, backlog: Option<u32>) -> Result<()> {
        let listener = steps.listener.as_ref().expect("bound");
        listener.listen(backlog.or(self.config.options.backlog)).map_err(|error| {
            let taken = error.raw() == Some(libc::EADDRINUSE);
            let bound = steps.bound.as_ref().filter(|_| taken);
            let holder = bound.and_then(|bound| self.holder(bound));
            name_holder(error, holder.as_deref())
        })?;
        steps.state = State::Listening;
        Ok(())
    }

    fn do_start(&self, steps: &mut Steps, waiter: &mut dyn Waiter) -> Result<()> {
        let bound = steps.bound.clone().expect("listening");
        let failed = |error: std::io::Error| Error::os("start", &bound, &error);
        let shape = self.prepare(waiter).inspect_err(|_| {
            // Whatever it says, the caller starts again from nothing.
            *self.shared.address.lock() = None;
            *self.shared.file.lock() = None;
            if let Some(listener) = steps.listener.take() {
                listener.close();
            }
        })?;
        self.shared.stop.open_flag().map_err(failed)?;
        // From here to the end of this step a stop finds somebody to wait for.
        let alive = Alive::new(Threads(Arc::clone(&self.shared)));
        if self.shared.stop.has_begun() {
            return Err(self.wrong("start", hint(State::Stopped)));
        }
        let notifier = Arc::new(EventFd::new().map_err(failed)?);
        if !matches!(shape, Shape::Datagram(_)) {
            *self.shared.notifier.lock() = Some(Arc::clone(&notifier));
        }
        let (legs, pipes) = match &shape {
            Shape::Stream(service) => (service.legs(), service.pipes()),
            Shape::Datagram(service) => (service.onward().map_or(0, |_| 1), false),
            Shape::Handler | Shape::Accept => (1, false),
        };
        let room = self.shared.limits.room(self.config.transport, legs, pipes);
        self.shared.most_admitted.store(room.connections, Relaxed);
        self.shared.pipes.set(room.pipes);
        let listener = steps.listener.take().expect("listening");
        if let Ok(algorithm) = Algorithm::of(listener.as_fd().as_raw_fd()) {
            // Set already where an earlier start failed.
            let _ = self.shared.algorithm.set(algorithm);
        }
        let mut workers = Vec::new();
        let result = self.start_threads(&shape, listener, &bound, notifier, &mut workers);
        if let Err(error) = result {
            // The listener is closed by now. The workers that did start are seen off, so that the caller
            // may start anew.
            self.shared.handoff.shut();
            self.shared.ports.end();
            self.shared.clear_notifier();
            for worker in workers {
                worker.send(Message::Quit);
            }
            drop(alive);
            while let Some(done) = self.shared.stop.done() {
                waiter.wait(&mut [PollFd::readable(done.as_fd())], None)?;
            }
            return Err(failed(error));
        }
        steps.state = State::Serving;
        drop(alive);
        Ok(())
    }

    /// What is to be done with each connection, by a service that knows where the server listens.
    fn prepare(&self, waiter: &mut dyn Waiter) -> Result<Shape> {
        let site = self.shared.site().expect("listening");
        let own = match &self.config.shape {
            Shape::Stream(service) => service.prepare(&site, waiter)?.map(Shape::Stream),
            Shape::Datagram(service) => service.prepare(&site, waiter)?.map(Shape::Datagram),
            Shape::Handler | Shape::Accept => None,
        };
        let shape = own.unwrap_or_else(|| self.config.shape.clone());
        *self.shared.shape.lock() = Some(shape.clone());
        Ok(shape)
    }

    /// Starts what serves: workers and the accept thread, or the latter alone.
    fn start_threads(
        &self,
        shape: &Shape,
        listener: Listener,
        bound: &Address,
        notifier: Arc<EventFd>,
        workers: &mut Vec<Arc<Inbox>>,
    ) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let name = "rsock-accept".to_owned();
        if self.config.transport == Transport::Udp {
            let workers = self.config.workers.unwrap_or(1);
            return datagram::start::start(&shared, shape, workers, listener, bound, notifier);
        }
        let taker = match shape {
            Shape::Accept => {
                shared.handoff.open(listener)?;
                let keeper = Arc::clone(&shared);
                return shared.spawn(name, move || keep(&keeper, &notifier));
            }
            Shape::Datagram(_) => unreachable!("a stream has no such shape"),
            Shape::Handler => {
                *shared.handoff.linger_worker.lock() = LingerWorker::NotStarted;
                Sink::Pool
            }
            // With one worker there is nothing that a thread of its own for accepting would be free for.
            Shape::Stream(service) if shared.most_workers == 1 => {
                return start_accepting_worker(&shared, service, listener, bound.clone(), notifier);
            }
            Shape::Stream(service) => {
                for number in 0..self.config.workers.unwrap_or(1) {
                    workers.push(start_worker(&shared, service, number)?);
                }
                Sink::Workers(Arc::clone(service), workers.clone())
            }
        };
        let acceptor = Acceptor::new(Arc::clone(&shared), listener, bound.clone(), notifier, taker);
        shared.spawn(name, move || acceptor.run())
    }

    /// Strangers may be lied about by their addresses: a UDP server has to be told to answer them.
    fn check_external(&self, address: &Address) -> Result<()> {
        let far = |address| !amplification::is_loopback(address);
        let reachable = self.config.transport == Transport::Udp && address.as_ip().is_some_and(far);
        if reachable && !self.config.allow_external {
            return Err(Error::Value(format!(
                "bind {address}: a UDP server outside the loopback can be made to answer forged senders; \
                 allow_external=True says that it may"
            )));
        }
        Ok(())
    }

    /// The next connection, for the caller who waits for it: only of a server with `Shape::Accept`.
    pub fn accept(
        &self,
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Arc<Stream>> {
        self.check_origin()?;
        let over = || self.wrong("accept", "there is nothing to accept");
        let bound = self.shared.steps.lock().bound.clone().ok_or_else(over)?;
        ThreadPool::accept(&self.shared, &bound, deadline, waiter)?.ok_or_else(over)
    }

    /// The next datagram, for the caller who waits for it: only of a UDP server with `Shape::Accept`. As
    /// much as `buffer` has room for, and who sent it.
    pub fn receive(
        &self,
        buffer: &mut [u8],
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<(usize, Address)> {
        self.check_origin()?;
        let over = || self.wrong("accept", "there is nothing to accept");
        let handoff = self.shared.ports.handoff().ok_or_else(over)?;
        let (bytes, from) = handoff.receive(buffer, deadline, waiter)?.ok_or_else(over)?;
        Ok((bytes, from.into()))
    }

    /// Sends a datagram from the server's port, and never waits: only of a UDP server with `Shape::Accept`
    /// or `Shape::Handler`.
    pub fn send_to(&self, target: &Target, data: &[u8], waiter: &mut dyn Waiter) -> Result<usize> {
        self.check_origin()?;
        let over = || self.wrong("sendto", "it sends while it serves");
        let handoff = self.shared.ports.handoff().ok_or_else(over)?;
        let found = resolve::addresses(target, false, None, waiter)?;
        let port = handoff.port().ok_or_else(over)?;
        let hosts = || found.iter().filter_map(Address::as_ip);
        let fitting = hosts().find(|address| address.is_ipv4() == port.is_ipv4());
        let Some(address) = fitting.or_else(|| hosts().next()) else {
            return Err(Error::Value(format!("sendto {target}: not a host and a port")));
        };
        handoff.send_to(address, data)
    }

    /// What the threads of the caller's take their connections from: only with `Shape::Handler`.
    #[must_use]
    pub fn pool(&self) -> Pool {
        Pool(Arc::clone(&self.shared))
    }

    /// Begins a stop, with the server's own drain time, and returns at once.
    pub fn begin_stop(&self, cause: Cause) {
        if self.shared.origin.is_here() {
            self.shared.signal_stop(cause, self.config.drain);
        }
    }

    /// Stops: see `signal_stop`, then waits for the end. `drain` of None is the server's own.
    ///
    /// An interrupted wait leaves the stop under way.
    pub fn stop(
        &self,
        drain: Option<Duration>,
        cause: Cause,
        waiter: &mut dyn Waiter,
    ) -> Result<StopReport> {
        self.check_origin()?;
        self.shared.handoff.exempt_caller(&self.shared);
        self.shared.signal_stop(cause, drain.unwrap_or(self.config.drain));
        match self.shared.wait(None, waiter)? {
            Some(report) => Ok(report),
            None => Err(Error::TimedOut { step: "stop", target: String::new() }),
        }
    }

    /// Waits for the end of the server, whoever stops it; `TimedOut` after the deadline.
    pub fn wait(&self, deadline: Option<Instant>, waiter: &mut dyn Waiter) -> Result<StopReport> {
        self.check_origin()?;
        let state = self.state();
        if (state as u8) < State::Serving as u8 {
            return Err(self.wrong("wait", "start() it first"));
        }
        let late = || Error::TimedOut { step: "wait", target: "for the server to stop".to_owned() };
        self.shared.wait(deadline, waiter)?.ok_or_else(late)
    }
}

impl Server {
    /// Begins a stop, unless there is one, and returns at once: for an owner that nobody holds any
    /// more.
    pub fn abandon(&self) {
        if self.shared.origin.is_here() && !self.shared.stop.has_begun() {
            // Short: whoever drops a server unstopped wants its port and descriptors back.
            self.shared.signal_stop(Cause::Dropped, self.config.drain.min(DROPPED));
        }
    }
}

impl Drop for Server {
    /// Only signals: the threads end by themselves, nobody is waited for.
    fn drop(&mut self) {
        if self.shared.origin.is_here() {
            self.abandon();
        } else {
            // In a forked child all of this is a copy whose threads do not exist and whose numbers
            // are closed: taking it apart could only do harm.
            std::mem::forget(Arc::clone(&self.shared));
        }
    }
}

/// A server of this process as others know it: where it is. Keeps nothing alive.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    name: String,
    shared: Weak<Shared>,
}

impl ServerHandle {
    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address it is bound to; None before that and after its end.
    #[must_use]
    pub fn address(&self) -> Option<Endpoint> {
        let shared = self.shared.upgrade()?;
        if !shared.origin.is_here() {
            std::mem::forget(shared);
            return None;
        }
        let address = shared.address().filter(|_| !shared.has_ended())?;
        Some(Endpoint { transport: shared.transport, address })
    }
}

/// The pool's side of a server, without the server: whoever waits in it keeps nobody alive.
pub struct Pool(Arc<Shared>);

impl Pool {
    /// The next connection or datagram for the calling thread; None where the thread is to end. Blocks.
    #[must_use]
    pub fn next(&self) -> Option<Job> {
        self.0.handoff.next().inspect(|_| self.taken())
    }

    /// The same where one waits already; None is no reason to end.
    #[must_use]
    pub fn try_next(&self) -> Option<Job> {
        self.0.handoff.try_next().inspect(|_| self.taken())
    }

    /// Of datagrams no more are taken from the kernel than the queue has room for.
    fn taken(&self) {
        if self.0.transport == Transport::Udp {
            if let Some(handoff) = self.0.ports.handoff() {
                handoff.was_taken();
            }
        }
    }

    /// Whether another thread is to be started, which is then announced: it must call `next`, or
    /// `thread_missing` where it cannot be started.
    #[must_use]
    pub fn wants_thread(&self) -> bool {
        self.0.handoff.wants_thread()
    }

    /// The calling thread ends.
    pub fn thread_left(&self) {
        self.0.handoff.thread_left(&self.0);
    }

    /// One that was announced could not be started.
    pub fn thread_missing(&self) {
        self.0.handoff.thread_missing(&self.0);
    }

    /// Whether connections had to wait for a thread; true once.
    #[must_use]
    pub fn should_warn(&self) -> bool {
        self.0.handoff.should_warn()
    }

    /// Whether this is the process that it was made in.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.0.origin.is_here()
    }

    /// What the calling thread is called by the system.
    pub fn name_thread(&self, name: &str) {
        crate::net::sys::name_thread(name);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if !self.0.origin.is_here() {
            std::mem::forget(Arc::clone(&self.0));
        }
    }
}

/// An error of a taken address, with the server of this process that has it.
fn name_holder(mut error: Error, holder: Option<&Shared>) -> Error {
    if let (Error::Os { hint, .. }, Some(holder)) = (&mut error, holder) {
        *hint = format!(
            "held by the Server {:?} of this process; its stop(), or rsock.stop_all(), frees the address",
            holder.name
        );
    }
    error
}

fn hint(state: State) -> &'static str {
    match state {
        State::Draining | State::Stopped => "a stopped server is final; make a new one",
        State::Serving => "it is started already",
        _ => "the steps go create, bind, listen, start",
    }
}

/// A panic ends one connection and is counted; nobody wants it printed into a notebook as well.
fn silence_our_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let ours = thread::current().name().is_some_and(|name| name.starts_with("rsock-"));
            if !ours {
                before(info);
            }
        }));
    });
}
