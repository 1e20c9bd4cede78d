//! A server. Owns one listening endpoint, the steps that open it, the order in which its threads
//! start and end; must never serve a connection itself, nor hold a lock while it waits.
//!
//! The threads of rsock, and what ends each of them:
//!
//! | thread | what it does | ends |
//! |---|---|---|
//! | `rsock-accept` | accepts (`worker/acceptor.rs`); with `Shape::Accept` it only waits for the stop (`handoff/on_demand.rs`, `datagram/on_demand.rs`) | when a stop has begun and the connections in its care have ended, or when the listener fails |
//! | `rsock-worker-N` | serves connections or datagrams (`worker/worker.rs`, `datagram/worker.rs`, `datagram/relay.rs`); if a server may have only one, that one also accepts | when a stop has begun and its connections have ended |
//! | `rsock-worker-0` of no server | serves the connections of all clients with faults or TLS (`handoff/client_worker.rs`) | with the last of these connections, or at `stop_all` |
//! | `rsock-handler-N` | Python's own, runs handlers (`python/rsock/_handlers.py`) over `Pool::next` (`handoff/pool.rs`) | when `Pool::next` returns None: at a stop, or after 5 s without work while another one waits. A stop does not wait longer than its deadline for a handler; `py/exit.rs` ends those that still run when the interpreter ends |
//! | `rsock-record` | writes what connections give it into a file (`recording/recorder.rs`) | when all other threads of the server have ended, and everything is written |
//! | `rsock-load` | sends the messages of `drive` (`load/drive.rs`) | with that call, which joins it |
//! | `rsock-resolve` | one call of getaddrinfo(3) (`address/resolve.rs`) | when the call returns; no stop waits for it |
//! | `rsock-close` | one close(2) that waits for the peer: of a dropped client with SO_LINGER (`socket/socket.rs`) | when the call returns; no stop waits for it |
//! | `rsock-log` | Python's own: the logger `rsock.connections` (`python/rsock/_progress.py`) | when the ledger ends: the server has, and no record can be added |
//! | `rsock-watchdog` | Python's own: tells systemd that the process is alive (`python/rsock/_notify.py`) | with `run` |
//! | `rsock-async_N` | Python's own: a blocking call that a coroutine awaits (`python/rsock/_in_thread.py`) | with that call |
//!
//! Faults, TLS and the PROXY protocol have no thread: the worker of a connection calls its stages.
//! The command line has further threads of Python (`python/rsock/_cli`), which end with the command.
//! A forked child has none of its parent's (`base/fork.rs`).
//!
//! `Server::start` starts the first two kinds (`start.rs`): for a service in Rust both, on UDP only
//! workers; for handlers only the first kind over TCP, and one worker on UDP; for both at once
//! (`Shape::Mixed`) both; for `Shape::Accept` only the first kind. The acceptor starts further
//! workers under load (`worker/pool.rs`). A TCP server with handlers starts one worker at the first
//! close that has to wait for the peer (`handoff/linger.rs`). With stages, a server for the caller's
//! threads has workers for every connection (`handoff/inner.rs`): from its start, or from when its
//! first fault is added.
//!
//! A stop is begun by `Server::stop` or `begin_stop`, by a failure of the listener, or when the
//! `Server` is dropped. Signals, the interpreter's end and Python's `stop_all` call these.
//! `control/shutdown.rs` keeps its deadline and wakes the threads. Each thread of the first two
//! kinds, and each `rsock-record`, holds an `Alive` (`control/context.rs`); when the last one is
//! dropped, `stop` and `wait` join the threads and return. A drop waits for nothing: the threads
//! keep the `ServerContext` until they end, for which a `bind` to the same address waits for 1 s.
//!
//! Locks. None is held during a system call that can block, or while Python code runs; a thread
//! that holds the interpreter takes only locks whose holders never wait for it. One is taken within
//! another in these orders only; one that is missing here may come last in each, and has none
//! within it:
//!
//! - a server's `Inner` (`server/inner.rs`), its `Shutdown`;
//! - while a worker starts, its host (`handoff/linger.rs`, `handoff/inner.rs`,
//!   `handoff/client_worker.rs`), then `Shutdown`, the recordings and the faults in turn;
//! - the peers of a UDP server (`datagram/handoff.rs`), the ledger, and while a record closes the
//!   hosts (`control/admission.rs`);
//! - the listener's fault (`control/listening.rs`), the listener (`socket/intake.rs`), then the
//!   faults, and the socket (its probe, its users): all together while a fault of accepting is added
//!   or removed, with calls on the file system for a Unix socket;
//! - within one file or folder: `handoff/pool.rs` and its `handed_out.rs`, `handoff/inner.rs`,
//!   `services/dialogue`, `services/replay`, `stream/connect.rs`;
//! - those of the process, across a fork (`base/fork.rs`).

use std::os::fd::{OwnedFd, RawFd};
use std::panic;
use std::sync::{Arc, Once, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::inner::{Inner, Steps};
use super::lifecycle::{State, Step};
use crate::net::address::{Address, Target, Transport, resolve};
use crate::net::base::{EventFd, Waiter, fork};
use crate::net::control::{
    Cause, Config, Registered, ServerContext, ServerHandle, StopReport, registry,
};
use crate::net::datagram::Handoff;
use crate::net::error::{Error, Result};
use crate::net::handoff::Pool;
use crate::net::ledger::Ledger;
use crate::net::service::Shape;
use crate::net::stream::Stream;
use crate::net::sys;

/// The most workers that a service in Rust gets by default.
const MOST_WORKERS: usize = 8;
/// How long a server drains if it is dropped without a stop.
const DROPPED: Duration = Duration::from_millis(250);

/// How long after its deadline a stop may return.
const LATE: Duration = Duration::from_millis(50);
/// The hint of an error for a step that another thread has taken, or is taking.
const TAKEN: &str = "one of its steps is running already";

/// One server.
pub struct Server {
    pub(super) config: Config,
    pub(super) inner: Arc<Inner>,
}

impl Server {
    /// Creates a server in the state `New`. Opens nothing.
    #[must_use]
    pub fn new(mut config: Config) -> Self {
        if config.transport == Transport::Udp {
            // The port is shared among this server's own workers only. Others could take datagrams
            // of its peers.
            config.options.reuse_port = matches!(config.shape, Shape::Datagram(_))
                && config.workers.is_some_and(|workers| workers > 1);
        }
        suppress_panic_messages();
        fork::watch();
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let most_workers = config.workers.unwrap_or(cpus.min(MOST_WORKERS));
        let context = Arc::new(ServerContext::new(&mut config));
        Self { config, inner: Arc::new(Inner::new(context, most_workers)) }
    }

    /// The server's number in this process.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.inner.context.number
    }

    /// The configuration that the server was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns `Error::Forked` in a child of the process that made the server.
    pub fn check_origin(&self) -> Result<()> {
        self.inner.context.origin.check()
    }

    /// A reference by which other code of this process finds the server while it exists.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(self.config.name.clone(), self.registered())
    }

    /// The ledger of its connections.
    #[must_use]
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.inner.context.ledger)
    }

    /// The current state.
    #[must_use]
    pub fn state(&self) -> State {
        self.inner.state()
    }

    /// The address that the server is bound to, or was. `Error::State` before `bind`.
    pub fn address(&self) -> Result<Address> {
        self.check_origin()?;
        let bound = self.inner.steps.lock().bound.clone();
        bound.ok_or_else(|| self.wrong("address", "there is no address before bind()"))
    }

    /// The number of the listening descriptor. -1 if there is none, as with a closed socket.
    pub fn fileno(&self) -> Result<RawFd> {
        self.check_origin()?;
        let live = !matches!(self.state(), State::Draining | State::Stopped);
        Ok(if live { self.inner.steps.lock().number } else { -1 })
    }

    /// The number of connections that have finished their handshake and wait in the kernel's queue.
    /// 0 before `listen` and after the end, and if the kernel does not report it.
    pub fn waiting(&self) -> Result<usize> {
        self.check_origin()?;
        Ok(self.inner.context.listening.waiting().unwrap_or(0))
    }

    /// Another descriptor of the listening socket, for another server. From then on the end of this
    /// one only closes its own descriptor: connections that wait in the queue, and a Unix socket's
    /// file, are left to the others. `Error::State` unless the server is bound, or once a stop has
    /// begun.
    ///
    /// Blocks for as long as a thread of a UDP server needs to notice.
    pub fn hand_over(&self, waiter: &mut dyn Waiter) -> Result<OwnedFd> {
        self.check_origin()?;
        let asked = "hand_over";
        let steps = self.inner.steps.lock();
        let (busy, bound) = (steps.busy, steps.bound.clone());
        let socket = steps.probe.clone().zip(steps.sharing.clone());
        drop(steps);
        if busy.is_some() {
            return Err(self.wrong(asked, TAKEN));
        }
        let Some(bound) = bound else {
            return Err(self.wrong(asked, "there is nothing to hand over before bind()"));
        };
        let over = || self.wrong(asked, "its socket is closed");
        if self.inner.context.shutdown.has_begun() {
            return Err(over());
        }
        let (probe, sharing) = socket.ok_or_else(over)?;
        // First, because after an error the end of the server must be able to wake that thread.
        self.inner.sockets.stop_blocking(&sharing, waiter)?;
        let lend = || probe.with_number(|number| sharing.hand_over(|| sys::duplicate(number)));
        let Some(duplicate) = self.inner.context.listening.lend(lend) else {
            return Err(self.wrong(asked, "remove the fault that refuses connections first"));
        };
        let duplicate = duplicate.flatten().ok_or_else(over)?;
        let duplicate = duplicate.map_err(|error| Error::os(asked, &bound, &error))?;
        // A thread that has just started may have begun to block before it could know of others.
        self.inner.sockets.stop_blocking(&sharing, waiter)?;
        Ok(duplicate)
    }

    /// The drain time of the configuration.
    #[must_use]
    pub fn drain(&self) -> Duration {
        self.config.drain
    }

    /// How long a call that waits for the stop may still take: until the deadline, and 50 ms.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        let end = self.inner.context.shutdown.deadline() + LATE;
        end.saturating_duration_since(Instant::now())
    }

    /// The server as the registry stores it.
    pub(super) fn registered(&self) -> Weak<dyn Registered> {
        let server: Arc<dyn Registered> = Arc::clone(&self.inner) as Arc<dyn Registered>;
        Arc::downgrade(&server)
    }

    /// The datagram handoff for the caller's threads, from the start on.
    fn datagrams(&self) -> Option<Arc<Handoff>> {
        self.inner.datagrams.lock().clone()
    }

    pub(super) fn wrong(&self, asked: &'static str, hint: &'static str) -> Error {
        Error::State { asked, state: self.state().name().to_owned(), hint }
    }

    /// Opens the socket. `to` replaces the target of the configuration. Name resolution may block.
    pub fn create(&self, to: Option<&Target>, waiter: &mut dyn Waiter) -> Result<()> {
        self.reach("create", Step::Create.to(), to, None, waiter).map(drop)
    }

    /// Binds the socket to its address: bind(2). Creates it first if necessary. Name resolution may
    /// block.
    pub fn bind(&self, to: Option<&Target>, waiter: &mut dyn Waiter) -> Result<()> {
        self.reach("bind", Step::Bind.to(), to, None, waiter).map(drop)
    }

    /// Makes the kernel queue connections: listen(2). Takes the steps before it first if necessary.
    pub fn listen(&self, backlog: Option<u32>, waiter: &mut dyn Waiter) -> Result<()> {
        self.reach("listen", Step::Listen.to(), None, backlog, waiter).map(drop)
    }

    /// Starts the threads. Takes the steps before it first if necessary. Returns once connections
    /// are accepted: true if this call has started it, false if another thread had, or did
    /// meanwhile.
    pub fn start(&self, waiter: &mut dyn Waiter) -> Result<bool> {
        loop {
            match self.reach("start", Step::Start.to(), None, None, waiter) {
                Err(Error::State { .. }) if self.state() == State::Serving => return Ok(false),
                Err(error @ Error::State { hint: TAKEN, .. }) => {
                    let Some(ended) = self.step_of_another_thread()? else {
                        // Another thread may have started it since.
                        return if self.state() == State::Serving { Ok(false) } else { Err(error) };
                    };
                    waiter.wait(&mut [ended.polled()], None)?;
                    self.check_origin()?;
                }
                result => return result,
            }
        }
    }

    /// The flag that is set when the step ends that another thread is running; set already if none
    /// is running. None if there is nothing to wait for: the server has started or ends, or the
    /// caller itself is in the middle of a step, as a signal handler may be.
    fn step_of_another_thread(&self) -> Result<Option<Arc<EventFd>>> {
        let new = || EventFd::new().map(Arc::new).map_err(|error| Error::os("start", "", &error));
        let mut steps = self.inner.steps.lock();
        let may_go_on = steps.state < State::Serving && !self.inner.context.shutdown.has_begun();
        match steps.busy {
            _ if !may_go_on => Ok(None),
            Some(thread) if thread == thread::current().id() => Ok(None),
            Some(_) => {
                if steps.step_ended.is_none() {
                    steps.step_ended = Some(new()?);
                }
                Ok(steps.step_ended.clone())
            }
            None => {
                let ended = new()?;
                ended.set();
                Ok(Some(ended))
            }
        }
    }

    /// Runs one step without holding the lock. A step that fails leaves the state as it was.
    fn step(
        &self,
        asked: &'static str,
        step: Step,
        work: impl FnOnce(&mut Steps) -> Result<()>,
    ) -> Result<()> {
        self.check_origin()?;
        let mut taken = {
            let mut steps = self.inner.steps.lock();
            if steps.busy.is_some() {
                drop(steps);
                return Err(self.wrong(asked, TAKEN));
            }
            if steps.state != step.from() || self.inner.context.shutdown.has_begun() {
                drop(steps);
                if self.state() < State::Serving {
                    return Err(self.wrong(asked, TAKEN));
                }
                return Err(self.wrong(asked, self.state().hint()));
            }
            let busy = Some(thread::current().id());
            steps.busy = busy;
            Steps {
                state: steps.state,
                listener: steps.listener.take(),
                candidates: std::mem::take(&mut steps.candidates),
                busy,
                step_ended: None,
                number: steps.number,
                probe: steps.probe.clone(),
                sharing: steps.sharing.clone(),
                bound: steps.bound.clone(),
            }
        };
        let result = work(&mut taken);
        if let Err(forked) = self.check_origin() {
            // A signal handler has forked. The child leaves the parent's server as it is.
            std::mem::forget(taken);
            return result.and(Err(forked));
        }
        taken.busy = None;
        if result.is_err() && taken.listener.is_none() {
            // The step has lost the listener: the steps start again from the first.
            taken = Steps::new();
        }
        let mut steps = self.inner.steps.lock();
        let ended = std::mem::replace(&mut *steps, taken).step_ended;
        // A stop during the step had no listener to close.
        let orphan =
            if self.inner.context.shutdown.has_begun() { steps.listener.take() } else { None };
        drop(steps);
        if let Some(ended) = ended {
            ended.set();
        }
        if let Some(listener) = orphan {
            listener.close();
            return Err(self.wrong(asked, State::Stopped.hint()));
        }
        result
    }

    /// Takes the steps that are missing up to `goal`. Returns whether this call took the last one.
    fn reach(
        &self,
        asked: &'static str,
        goal: State,
        to: Option<&Target>,
        backlog: Option<u32>,
        waiter: &mut dyn Waiter,
    ) -> Result<bool> {
        self.check_origin()?;
        let state = self.state();
        if state >= goal {
            return Err(self.wrong(asked, state.hint()));
        }
        let mut reached = false;
        // A failure closes everything that was opened, also by earlier calls, and the caller starts
        // again from the first step.
        let outcome = loop {
            let state = self.state();
            let Some(step) = state.step().filter(|_| state < goal) else { return Ok(reached) };
            let result = self.step(asked, step, |steps| match step {
                Step::Create => self.do_create(steps, to, waiter),
                Step::Bind => self.do_bind(steps, to, waiter),
                Step::Listen => self.do_listen(steps, backlog),
                Step::Start => self.do_start(steps, waiter),
            });
            if result.is_err() {
                break result;
            }
            reached = step.to() == goal;
        };
        if !matches!(outcome, Err(Error::State { .. })) && self.check_origin().is_ok() {
            self.undo();
        }
        outcome.map(|()| reached)
    }

    /// Returns to the state `New` after a failed step, with nothing open.
    fn undo(&self) {
        let mut steps = self.inner.steps.lock();
        if steps.busy.is_none() && steps.state < State::Serving {
            let listener = steps.listener.take();
            *steps = Steps::new();
            drop(steps);
            self.inner.forget_address();
            if let Some(listener) = listener {
                listener.close();
            }
        }
    }

    /// The error of `accept` on a server that has ended: that of its listener, if that was the
    /// cause.
    fn nothing_to_accept(&self) -> Error {
        let bound = self.inner.steps.lock().bound.clone();
        match (self.inner.context.failure(), bound) {
            (Some(errno), Some(bound)) => Error::errno("accept", bound, errno),
            _ => self.wrong("accept", "there is nothing to accept"),
        }
    }

    /// Blocks until there is a connection for the caller. Only with `Shape::Accept`.
    pub fn accept(
        &self,
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Arc<Stream>> {
        self.check_origin()?;
        let over = || self.nothing_to_accept();
        if self.inner.steps.lock().bound.is_none() {
            return Err(over());
        }
        self.inner.on_demand.accept(deadline, waiter)?.ok_or_else(over)
    }

    /// Blocks until there is a datagram for the caller. Copies as much as fits into `buffer`, and
    /// returns the length, the sender, and the address that it was sent to. Only for a UDP server
    /// with `Shape::Accept`.
    pub fn receive(
        &self,
        buffer: &mut [u8],
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<(usize, Address, Address)> {
        self.check_origin()?;
        let over = || self.nothing_to_accept();
        let handoff = self.datagrams().ok_or_else(over)?;
        let (bytes, from, to) = handoff.receive(buffer, deadline, waiter)?.ok_or_else(over)?;
        Ok((bytes, from, to))
    }

    /// Sends a datagram from the server's port. The send does not block; the resolution of a name
    /// may. Only for a UDP server with `Shape::Accept` or `Shape::Handler`.
    pub fn send_to(&self, target: &Target, data: &[u8], waiter: &mut dyn Waiter) -> Result<usize> {
        self.check_origin()?;
        let over = || self.wrong("sendto", "it can send only while it serves");
        let handoff = self.datagrams().ok_or_else(over)?;
        let found = resolve::addresses(target, false, None, waiter)?;
        self.check_origin()?;
        let socket = handoff.socket().ok_or_else(over)?;
        let is_unix = self.config.transport.is_unix();
        let kind = || found.iter().filter(|address| address.as_unix().is_some() == is_unix);
        let v4 = |address: &&Address| address.as_ip().is_some_and(|ip| ip.is_ipv4());
        let fitting = kind().find(|address| v4(address) == socket.is_ipv4());
        let Some(address) = fitting.or_else(|| kind().next()) else {
            let wanted = if is_unix { "the path of a Unix socket" } else { "a host and a port" };
            return Err(Error::Value(format!("sendto {target}: not {wanted}")));
        };
        handoff.send_to(address.clone(), data)
    }

    /// The pool from which the caller's threads take their connections. Only with `Shape::Handler`.
    #[must_use]
    pub fn pool(&self) -> Pool {
        Pool::new(&self.inner.pool)
    }

    /// Begins a stop with the server's own drain time. Returns at once.
    pub fn begin_stop(&self, cause: Cause) {
        if self.inner.context.origin.is_here() {
            self.inner.signal_stop(cause, self.config.drain);
        }
    }

    /// Begins a stop and waits for its end. `drain` replaces the server's own drain time.
    ///
    /// If the wait is interrupted, the stop continues.
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

    /// What went wrong with recordings, for one call after the server has ended.
    #[must_use]
    pub fn take_recording_errors(&self) -> Vec<Error> {
        self.inner.context.take_recording_errors()
    }

    /// Blocks until the server has ended, by this call's thread or by another. `TimedOut` after the
    /// deadline.
    pub fn wait(&self, deadline: Option<Instant>, waiter: &mut dyn Waiter) -> Result<StopReport> {
        self.check_origin()?;
        let state = self.state();
        if state < State::Serving {
            return Err(self.wrong("wait", "call start() first"));
        }
        let late = || Error::TimedOut { step: "wait", target: "for the server to stop".to_owned() };
        self.inner.wait(deadline, waiter)?.ok_or_else(late)
    }
}

impl Server {
    /// Begins a stop if none has begun, and returns at once. For a server whose owner is gone.
    pub fn abandon(&self) {
        if self.inner.context.origin.is_here() && !self.inner.context.shutdown.has_begun() {
            // Short, because a program that drops a running server wants its port and descriptors
            // back.
            self.inner.signal_stop(Cause::Dropped, self.config.drain.min(DROPPED));
        }
    }
}

impl Drop for Server {
    /// Only begins the stop. The threads end by themselves; nothing waits for them.
    fn drop(&mut self) {
        if self.inner.context.origin.is_here() {
            self.abandon();
            let context = &self.inner.context;
            if let Some(address) = self.inner.address().filter(|_| !context.has_ended()) {
                registry::drop_owner(address, context);
            }
        } else {
            // In a forked child all of this is a copy. Its threads do not exist and its descriptors
            // are closed, so that dropping the parts could only do harm.
            std::mem::forget(Arc::clone(&self.inner));
        }
    }
}

/// Suppresses the panic message of rsock's threads. Such a panic ends one connection and is
/// counted; its text would end up in a notebook.
fn suppress_panic_messages() {
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
