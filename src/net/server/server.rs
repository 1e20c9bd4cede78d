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

use std::os::fd::RawFd;
use std::panic;
use std::sync::{Arc, Once, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::inner::{Inner, Steps};
use super::lifecycle::{State, Step};
use crate::net::address::{Address, Target, Transport, resolve};
use crate::net::base::{Waiter, fork};
use crate::net::control::{Cause, Config, Registered, ServerContext, ServerHandle, StopReport};
use crate::net::datagram::Handoff;
use crate::net::error::{Error, Result};
use crate::net::handoff::Pool;
use crate::net::ledger::Ledger;
use crate::net::service::Shape;
use crate::net::stream::Stream;

/// A service in Rust runs on no more workers than this unless told to.
const MOST_WORKERS: usize = 8;
/// How long a server that was dropped unstopped drains.
const DROPPED: Duration = Duration::from_millis(250);

/// One server.
pub struct Server {
    pub(super) config: Config,
    pub(super) inner: Arc<Inner>,
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
        let context = Arc::new(ServerContext::new(&config));
        Self { config, inner: Arc::new(Inner::new(context, most_workers)) }
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// `Error::Forked` in a child of the process that made it.
    pub fn check_origin(&self) -> Result<()> {
        self.inner.context.origin.check()
    }

    /// How others of this process find it, for as long as it is there.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(self.config.name.clone(), self.registered())
    }

    /// Its books.
    #[must_use]
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.inner.context.ledger)
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> State {
        self.inner.state()
    }

    /// The address it is, or was, bound to; `Error::State` before that.
    pub fn address(&self) -> Result<Address> {
        self.check_origin()?;
        let bound = self.inner.steps.lock().bound.clone();
        bound.ok_or_else(|| self.wrong("address", "it has none before bind()"))
    }

    /// Number of the listening descriptor; -1 when there is none, as with a closed socket.
    pub fn fileno(&self) -> Result<RawFd> {
        self.check_origin()?;
        let live = !matches!(self.state(), State::Draining | State::Stopped);
        Ok(if live { self.inner.steps.lock().number } else { -1 })
    }

    /// How many connections have finished their handshake and wait in the kernel's queue to be
    /// accepted. 0 before `listen` and after the end.
    pub fn waiting(&self) -> Result<usize> {
        self.check_origin()?;
        let probe = self.inner.steps.lock().probe.clone();
        Ok(probe.map_or(0, |probe| probe.waiting()))
    }

    /// The server's own drain time.
    #[must_use]
    pub fn drain(&self) -> Duration {
        self.config.drain
    }

    /// The server as the registry refers to it.
    pub(super) fn registered(&self) -> Weak<dyn Registered> {
        let server: Arc<dyn Registered> = Arc::clone(&self.inner) as Arc<dyn Registered>;
        Arc::downgrade(&server)
    }

    /// Where threads of the caller's receive and answer datagrams, from the start on.
    fn datagrams(&self) -> Option<Arc<Handoff>> {
        self.inner.datagrams.lock().clone()
    }

    pub(super) fn wrong(&self, asked: &'static str, hint: &'static str) -> Error {
        Error::State { asked, state: self.state().name().to_owned(), hint }
    }

    /// Opens the socket. `to` replaces the target that the server was made with.
    pub fn create(&self, to: Option<&Target>, waiter: &mut dyn Waiter) -> Result<()> {
        self.step("create", Step::Create, |steps| self.do_create(steps, to, waiter))
    }

    /// Gives the socket its address, creating it first where that was not done.
    pub fn bind(&self, to: Option<&Target>, waiter: &mut dyn Waiter) -> Result<()> {
        self.reach("bind", Step::Bind.to(), to, None, waiter)
    }

    /// Has the kernel take connections, doing first what was not done.
    pub fn listen(&self, backlog: Option<u32>, waiter: &mut dyn Waiter) -> Result<()> {
        self.reach("listen", Step::Listen.to(), None, backlog, waiter)
    }

    /// Starts the threads, doing first what was not done. Returns with the port open.
    pub fn start(&self, waiter: &mut dyn Waiter) -> Result<()> {
        self.reach("start", Step::Start.to(), None, None, waiter)
    }

    /// Runs one step with the lock given up meanwhile; what it fails to do stays undone.
    fn step(
        &self,
        asked: &'static str,
        step: Step,
        work: impl FnOnce(&mut Steps) -> Result<()>,
    ) -> Result<()> {
        self.check_origin()?;
        let mut taken = {
            let mut steps = self.inner.steps.lock();
            if steps.busy {
                drop(steps);
                return Err(self.wrong(asked, "another thread is at one of its steps"));
            }
            if steps.state != step.from() || self.inner.context.shutdown.has_begun() {
                drop(steps);
                return Err(self.wrong(asked, self.state().hint()));
            }
            steps.busy = true;
            Steps {
                state: steps.state,
                listener: steps.listener.take(),
                candidates: std::mem::take(&mut steps.candidates),
                busy: true,
                number: steps.number,
                probe: steps.probe.clone(),
                bound: steps.bound.clone(),
            }
        };
        let result = work(&mut taken);
        taken.busy = false;
        if result.is_err() && taken.listener.is_none() {
            // The step has lost it: there is nothing to go on with.
            taken = Steps::new();
        }
        let mut steps = self.inner.steps.lock();
        *steps = taken;
        // A stop that came meanwhile had no listener to close.
        let orphan =
            if self.inner.context.shutdown.has_begun() { steps.listener.take() } else { None };
        drop(steps);
        if let Some(listener) = orphan {
            listener.close();
            return Err(self.wrong(asked, State::Stopped.hint()));
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
        if state >= goal {
            return Err(self.wrong(asked, state.hint()));
        }
        // A failure closes all that was opened: the caller starts again from nothing.
        let outcome = loop {
            let state = self.state();
            let Some(step) = state.step().filter(|_| state < goal) else { return Ok(()) };
            let result = self.step(asked, step, |steps| match step {
                Step::Create => self.do_create(steps, to, waiter),
                Step::Bind => self.do_bind(steps, to, waiter),
                Step::Listen => self.do_listen(steps, backlog),
                Step::Start => self.do_start(steps, waiter),
            });
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
        let mut steps = self.inner.steps.lock();
        if !steps.busy && steps.state < State::Serving {
            let listener = steps.listener.take();
            *steps = Steps::new();
            drop(steps);
            self.inner.forget_address();
            if let Some(listener) = listener {
                listener.close();
            }
        }
    }

    /// The next connection, for the caller who waits for it: only of a server with `Shape::Accept`.
    pub fn accept(
        &self,
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Arc<Stream>> {
        self.check_origin()?;
        let over = || self.wrong("accept", "there is nothing to accept");
        if self.inner.steps.lock().bound.is_none() {
            return Err(over());
        }
        self.inner.on_demand.accept(deadline, waiter)?.ok_or_else(over)
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
        let handoff = self.datagrams().ok_or_else(over)?;
        let (bytes, from) = handoff.receive(buffer, deadline, waiter)?.ok_or_else(over)?;
        Ok((bytes, from.into()))
    }

    /// Sends a datagram from the server's port, and never waits: only of a UDP server with `Shape::Accept`
    /// or `Shape::Handler`.
    pub fn send_to(&self, target: &Target, data: &[u8], waiter: &mut dyn Waiter) -> Result<usize> {
        self.check_origin()?;
        let over = || self.wrong("sendto", "it sends while it serves");
        let handoff = self.datagrams().ok_or_else(over)?;
        let found = resolve::addresses(target, false, None, waiter)?;
        let port = handoff.socket().ok_or_else(over)?;
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
        Pool::new(&self.inner.pool)
    }

    /// Begins a stop, with the server's own drain time, and returns at once.
    pub fn begin_stop(&self, cause: Cause) {
        if self.inner.context.origin.is_here() {
            self.inner.signal_stop(cause, self.config.drain);
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
        self.inner.exempt_caller();
        self.inner.signal_stop(cause, drain.unwrap_or(self.config.drain));
        match self.inner.wait(None, waiter)? {
            Some(report) => Ok(report),
            None => Err(Error::TimedOut { step: "stop", target: String::new() }),
        }
    }

    /// Waits for the end of the server, whoever stops it; `TimedOut` after the deadline.
    pub fn wait(&self, deadline: Option<Instant>, waiter: &mut dyn Waiter) -> Result<StopReport> {
        self.check_origin()?;
        let state = self.state();
        if state < State::Serving {
            return Err(self.wrong("wait", "start() it first"));
        }
        let late = || Error::TimedOut { step: "wait", target: "for the server to stop".to_owned() };
        self.inner.wait(deadline, waiter)?.ok_or_else(late)
    }
}

impl Server {
    /// Begins a stop, unless there is one, and returns at once: for an owner that nobody holds any
    /// more.
    pub fn abandon(&self) {
        if self.inner.context.origin.is_here() && !self.inner.context.shutdown.has_begun() {
            // Short: whoever drops a server unstopped wants its port and descriptors back.
            self.inner.signal_stop(Cause::Dropped, self.config.drain.min(DROPPED));
        }
    }
}

impl Drop for Server {
    /// Only signals: the threads end by themselves, nobody is waited for.
    fn drop(&mut self) {
        if self.inner.context.origin.is_here() {
            self.abandon();
        } else {
            // In a forked child all of this is a copy whose threads do not exist and whose numbers
            // are closed: taking it apart could only do harm.
            std::mem::forget(Arc::clone(&self.inner));
        }
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
