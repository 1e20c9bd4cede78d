//! The inner socket: with stages, a handler's connection stays with a worker, and the handler has
//! one end of a socket pair. Owns the session that moves bytes between the connection and the pair;
//! must never move one around the stages.
//!
//! The worker counts the bytes and holds the limits, as for a service in Rust, and closes the
//! record when the outer connection ends. What the handler's end decides (who closed, an error of
//! the handler, a reset) goes to the session through `Link`; what happened to the outer connection
//! comes back the same way, so that calls on the inner socket raise what they would raise without
//! stages.

use std::io;
use std::os::fd::{AsFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};

use super::handed_out::{HandedOut, JobId};
use crate::net::base::{EventFd, Mutex};
use crate::net::control::{Limits, ServerContext};
use crate::net::error::strerror;
use crate::net::ledger::{ClosedBy, Record, SocketClose};
use crate::net::service::{
    Io, Leg, LegStages, Null, Service, Session, SessionResult, WaitingCalls, Waker,
};
use crate::net::socket::{Probe, Socket};
use crate::net::stage::tls::tls_error;
use crate::net::stage::{Chain, Stage};
use crate::net::stream::{Calls, InnerEnd, Outer, OuterEnd, Owner, Stream};
use crate::net::worker::{Accepted, Inbox, Inner, Message, WorkerPool};

/// What ends a connection that its peer has not reset: the peer does not answer (TCP_USER_TIMEOUT,
/// keepalive), or there is no way to it.
const FAILURES: [i32; 5] =
    [libc::ETIMEDOUT, libc::EHOSTUNREACH, libc::ENETUNREACH, libc::EHOSTDOWN, libc::ENETDOWN];

/// What the handler's side has decided about its connection.
#[derive(Clone, Debug)]
struct Verdict {
    by: ClosedBy,
    error: Option<String>,
    reset: bool,
}

/// What connects a handler's stream with the session of its outer connection.
pub(super) struct Link {
    /// The outer socket, until the worker closes it.
    outer: Probe,
    verdict: Mutex<Option<Verdict>>,
    /// How the outer connection ended.
    end: OnceLock<OuterEnd>,
    /// The server ends: no more input is wanted than has come.
    ending_input: AtomicBool,
    /// The caller has closed the last descriptor of its end.
    abandoned: AtomicBool,
    /// Wakes the session, while it is open: a stream that is kept after its end must not keep the
    /// worker's event flag.
    waker: Mutex<Option<Waker>>,
    /// The handler's end of the pair.
    inner: OnceLock<Weak<dyn InnerEnd>>,
    /// What TLS says of the end.
    tls_error: OnceLock<Box<str>>,
    /// Set when the session opens, or the connection ends; None where the caller does not wait for
    /// that.
    opening: Mutex<Option<Arc<EventFd>>>,
    is_open: AtomicBool,
    /// The connection has ended.
    is_over: AtomicBool,
    /// The stage of TLS that the caller has asked for.
    upgrade: Mutex<Option<Box<dyn Stage>>>,
    /// The caller's calls that wait, where a limit asks for them.
    calls: Option<Box<Calls>>,
    gate: Mutex<Gate>,
}

/// Whether the session of an outer connection is open, and what is done when it is.
#[derive(Default)]
enum Gate {
    #[default]
    Waiting,
    WaitingWith(Box<dyn FnOnce() + Send>),
    Open,
    /// The connection has ended before.
    Never,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({:?})", self.end.get())
    }
}

impl Link {
    pub(super) fn new(outer: &Socket) -> Self {
        Self {
            outer: Probe::of(outer.as_fd()),
            verdict: Mutex::new(None),
            ending_input: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            end: OnceLock::new(),
            waker: Mutex::new(None),
            inner: OnceLock::new(),
            tls_error: OnceLock::new(),
            opening: Mutex::new(None),
            is_open: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            upgrade: Mutex::new(None),
            calls: None,
            gate: Mutex::default(),
        }
    }

    /// Calls a function on the worker's thread when the stages are ready for a session, at once if
    /// they are; drops it if the connection ends before.
    pub(super) fn when_open(&self, then: impl FnOnce() + Send + 'static) {
        let mut gate = self.gate.lock();
        match *gate {
            Gate::Open => {
                drop(gate);
                then();
            }
            Gate::Never => {
                drop(gate);
                drop(then);
            }
            Gate::Waiting | Gate::WaitingWith(_) => {
                *gate = Gate::WaitingWith(Box::new(then));
            }
        }
    }

    /// The stages are ready, or never will be.
    fn settle_gate(&self, open: bool) {
        let mut gate = self.gate.lock();
        if matches!(*gate, Gate::Open) {
            return;
        }
        let next = if open { Gate::Open } else { Gate::Never };
        let before = std::mem::replace(&mut *gate, next);
        drop(gate);
        if let (Gate::WaitingWith(then), true) = (before, open) {
            then();
        }
    }

    /// Has the session set a flag when it opens, or when the connection ends before.
    pub(super) fn with_opening(self, flag: Option<Arc<EventFd>>) -> Self {
        Self { opening: Mutex::new(flag), ..self }
    }

    /// Has the calls of the caller that wait counted, where the limits ask for them.
    pub(super) fn with_calls(self, limits: &Limits) -> Self {
        Self { calls: Calls::for_limits(limits), ..self }
    }

    /// The stages are ready. A call that waits for TLS goes on only behind that.
    fn opens(&self) {
        self.settle_gate(true);
        let upgrade = self.upgrade.lock();
        if upgrade.is_none() {
            self.is_open.store(true, SeqCst);
            self.settle_opening();
        }
    }

    fn settle_opening(&self) {
        let flag = self.opening.lock().clone();
        if let Some(flag) = flag {
            flag.set();
        }
    }

    /// Notes how the connection ends, once.
    fn note_end(&self, by: ClosedBy, error: Option<&str>) {
        let tls = error.and_then(|text| Some((text, tls_error(text)?)));
        let end = match (by, tls) {
            (_, Some((text, kind))) => {
                let _ = self.tls_error.set(text.into());
                OuterEnd::Tls(kind)
            }
            (ClosedBy::Limit(name), None) => OuterEnd::Limit(name),
            _ => return,
        };
        let _ = self.end.set(end);
        self.settle_opening();
    }

    /// Sets the handler's end of the pair, once.
    pub(super) fn set_inner(&self, inner: Weak<dyn InnerEnd>) {
        let _ = self.inner.set(inner);
    }

    /// Whether it is known how the connection ends.
    pub(super) fn is_settled(&self) -> bool {
        self.verdict.lock().is_some() || self.end.get().is_some()
    }

    /// Notes what the handler's side decides. The first reason is kept; a reset may be added to it.
    pub(super) fn decide(&self, by: ClosedBy, error: Option<String>, reset: bool) {
        let mut verdict = self.verdict.lock();
        match &mut *verdict {
            Some(verdict) => verdict.reset |= reset,
            None => *verdict = Some(Verdict { by, error, reset }),
        }
        drop(verdict);
        self.wake();
        // The caller has closed its end while it waited for the stages.
        self.settle_opening();
    }

    /// Ends the input of the handler's side, behind what has come.
    pub(super) fn end_input(&self) {
        self.ending_input.store(true, SeqCst);
        self.wake();
    }

    /// The caller has closed the last descriptor of its end.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, SeqCst);
        self.wake();
    }

    fn wake(&self) {
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn verdict(&self) -> Option<Verdict> {
        self.verdict.lock().clone()
    }

    /// The worker is about to close the outer connection, and with it its end of the pair.
    fn outer_ends(&self, by: ClosedBy) {
        self.is_over.store(true, SeqCst);
        self.settle_gate(false);
        self.outer.withdraw();
        self.waker.lock().take();
        let end = match by {
            ClosedBy::Limit(name) => OuterEnd::Limit(name),
            ClosedBy::Reset | ClosedBy::Error | ClosedBy::Stop | ClosedBy::Fault("reset") => {
                OuterEnd::Reset
            }
            _ => return self.settle_opening(),
        };
        // The first one is kept.
        let _ = self.end.set(end);
        self.settle_opening();
        if end == OuterEnd::Reset {
            // A close with unread data in the queue is a reset to the other end, also for os.read.
            if let Some(inner) = self.inner.get().and_then(Weak::upgrade) {
                inner.leave_unread();
            }
        }
    }
}

impl Outer for Link {
    fn with_socket(&self, call: &mut dyn FnMut(RawFd) -> io::Result<()>) -> io::Result<()> {
        let closed = || Err(io::Error::from_raw_os_error(libc::EBADF));
        self.outer.with_number(call).unwrap_or_else(closed)
    }

    fn end(&self) -> Option<OuterEnd> {
        self.end.get().copied()
    }

    fn tls_error(&self) -> Option<&str> {
        self.tls_error.get().map(|text| &**text)
    }

    fn opening(&self) -> Option<Arc<EventFd>> {
        self.opening.lock().clone()
    }

    fn forget_opening(&self) {
        *self.opening.lock() = None;
    }

    fn start_tls(&self, stage: Box<dyn Stage>) -> io::Result<()> {
        let flag = Arc::new(EventFd::new()?);
        // Locked: the session may be about to open, which is not the end of the handshake.
        let mut upgrade = self.upgrade.lock();
        *self.opening.lock() = Some(Arc::clone(&flag));
        self.is_open.store(false, SeqCst);
        *upgrade = Some(stage);
        drop(upgrade);
        if self.is_over.load(SeqCst) {
            // Its end may have been told to the flag before.
            flag.set();
        }
        self.wake();
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.is_open.load(SeqCst)
    }

    fn calls(&self) -> Option<&Calls> {
        self.calls.as_deref()
    }

    fn call_waits(&self) {
        self.wake();
    }
}

/// An inner stream's link to its server: what a `Lease` is to a stream without stages.
struct InnerLease {
    context: Arc<ServerContext>,
    handed_out: Arc<HandedOut>,
    job: JobId,
    link: Arc<Link>,
}

impl std::fmt::Debug for InnerLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InnerLease({:?})", self.job)
    }
}

impl Owner for InnerLease {
    fn count_error(&self) {
        self.context.count_error();
    }

    /// The worker closes the record, and counts the connection for a stop.
    fn settle(&self, by: ClosedBy, error: Option<String>, close: SocketClose<'_>) {
        self.link.decide(by, error, close.is_reset());
    }

    fn is_settled(&self) -> bool {
        self.link.is_settled()
    }

    fn end_input(&self) -> bool {
        self.link.end_input();
        true
    }

    /// The worker closes the outer socket, which the admission counts.
    fn socket_closed(&self) {
        self.handed_out.remove_and_notify(self.job, &self.context);
    }

    fn call_ended(&self) {
        if self.handed_out.is_draining() {
            self.context.notifier.notify();
        }
    }
}

/// The session of an outer connection.
pub(super) struct InnerSession {
    link: Arc<Link>,
    /// The handler's end of the pair has finished.
    finished: bool,
    /// The outer connection has ended.
    is_over: bool,
}

impl InnerSession {
    pub(super) fn new(link: &Arc<Link>) -> Self {
        Self { link: Arc::clone(link), finished: false, is_over: false }
    }

    /// Does what the handler's side has decided, once its bytes have come.
    fn react(&self, io: &mut dyn Io) -> SessionResult {
        let upgrade = self.link.upgrade.lock().take();
        if let Some(stage) = upgrade {
            io.start_tls(LegStages::new(Chain::new(vec![stage])))?;
        }
        if self.link.ending_input.swap(false, SeqCst) {
            io.finish_input();
        }
        if self.link.abandoned.load(SeqCst) {
            io.abandon();
        }
        match self.link.verdict() {
            Some(verdict) if verdict.reset => io.abort(),
            // As the kernel does at a close with unread input.
            Some(Verdict { by: ClosedBy::Stop, .. }) if self.finished && io.has_undelivered() => {
                io.abort();
            }
            Some(_) if self.finished => io.close(),
            None if self.finished => io.shut_write(Leg::Client),
            _ => {}
        }
        Ok(())
    }
}

impl Session for InnerSession {
    fn opening(&mut self, waker: Waker) {
        let early = waker.clone();
        *self.link.waker.lock() = Some(waker);
        if self.gives_up() {
            // That was decided when there was no waker yet.
            early.wake();
        }
    }

    fn gives_up(&self) -> bool {
        if let Some(waker) = &*self.link.waker.lock() {
            // Before the look: what is decided from here on wakes again.
            waker.heard();
        }
        // A stop without a reset leaves the stages their time.
        let ends = |verdict: Verdict| verdict.reset || verdict.by == ClosedBy::Local;
        self.link.verdict().is_some_and(ends)
    }

    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        *self.link.waker.lock() = Some(io.waker());
        self.link.opens();
        io.pipe(Leg::Client, Leg::Upstream);
        // Not read until the stages were ready.
        io.resume(Leg::Upstream);
        self.react(io)
    }

    fn bytes(&mut self, io: &mut dyn Io, leg: Leg, input: &[u8]) -> SessionResult<usize> {
        match leg {
            Leg::Upstream => Ok(io.write(Leg::Client, input)),
            // The handler reads no more.
            Leg::Client => Ok(input.len()),
        }
    }

    fn eof(&mut self, io: &mut dyn Io, leg: Leg, _rest: &[u8]) -> SessionResult {
        if leg == Leg::Upstream {
            self.finished = true;
            self.react(io)?;
        }
        Ok(())
    }

    fn wake(&mut self, io: &mut dyn Io) -> SessionResult {
        self.react(io)
    }

    fn take_back(&mut self) -> Vec<u8> {
        let inner = self.link.inner.get().and_then(Weak::upgrade);
        inner.map_or_else(Vec::new, |inner| inner.take_unread())
    }

    fn upgraded(&mut self, _io: &mut dyn Io) -> SessionResult {
        self.link.opens();
        Ok(())
    }

    fn waiting_calls(&self) -> Option<WaitingCalls> {
        self.link.calls.as_ref().map(|calls| calls.waiting())
    }

    fn ends(&mut self, why: ClosedBy, error: Option<&str>) {
        self.link.note_end(why, error);
    }

    fn explain(&self, by: ClosedBy, error: Option<String>) -> (ClosedBy, Option<String>) {
        self.link.note_end(by, error.as_deref().filter(|_| by == ClosedBy::Error));
        // An error of the system comes as its text.
        let failure = |text: &String| FAILURES.into_iter().find(|&errno| strerror(errno) == *text);
        if let Some(errno) = error.as_ref().filter(|_| by == ClosedBy::Error).and_then(failure) {
            // Once: a session is closed once.
            let _ = self.link.end.set(OuterEnd::Failed(errno));
        }
        match (self.link.verdict(), by) {
            _ if error.as_deref().is_some_and(|text| tls_error(text).is_some()) => (by, error),
            // A handler that sees the end closes, too.
            (Some(verdict), ClosedBy::Fault(_)) if verdict.by != ClosedBy::Error => (by, error),
            (Some(verdict), _) => (verdict.by, verdict.error),
            // The handler's end has finished, by a duplicate of it.
            (None, ClosedBy::Service) => (ClosedBy::Local, error),
            (None, by) => (by, error),
        }
    }

    fn closed(&mut self, why: ClosedBy) {
        self.is_over = true;
        self.link.outer_ends(why);
    }
}

impl Drop for InnerSession {
    fn drop(&mut self) {
        if !self.is_over {
            // The worker has ended before it got the connection.
            self.link.outer_ends(ClosedBy::Stop);
        }
    }
}

/// The descriptors of a connection with an inner socket: its own, and both ends of the pair.
pub(crate) const OUTER_LEGS: usize = 3;

/// Whether a server's outer connections have workers.
#[derive(Default)]
enum OuterState {
    /// The server has not started, or has ended.
    #[default]
    None,
    /// No connection has had an inner socket yet. `pipes` is whether the server's service uses
    /// any.
    NotStarted {
        pipes: bool,
    },
    Running(Arc<OuterWorkers>),
}

/// Starts the workers of a server's outer connections: with the server, or when its first fault is
/// added.
pub(crate) struct OuterHost {
    context: Arc<ServerContext>,
    most_workers: usize,
    state: Mutex<OuterState>,
}

impl OuterHost {
    pub(crate) fn new(context: &Arc<ServerContext>, most_workers: usize) -> Self {
        Self { context: Arc::clone(context), most_workers, state: Mutex::default() }
    }

    /// Allows the start of workers.
    pub(crate) fn allow(&self, pipes: bool) {
        *self.state.lock() = OuterState::NotStarted { pipes };
    }

    /// Starts the first worker, as part of the server's start. Fails with EMFILE or EAGAIN.
    pub(crate) fn start(&self, started: &mut Vec<Arc<Inbox>>) -> io::Result<()> {
        let workers = OuterWorkers::start(&self.context, self.most_workers, Some(started))?;
        *self.state.lock() = OuterState::Running(Arc::new(workers));
        Ok(())
    }

    /// Starts the first worker of a server that serves, unless it runs. None where no more
    /// connections come. Fails with EMFILE or EAGAIN.
    fn start_late(&self) -> io::Result<Option<Arc<OuterWorkers>>> {
        // Locked during the start: `close` comes before it, or ends that worker.
        let mut state = self.state.lock();
        let pipes = match &*state {
            OuterState::None => return Ok(None),
            OuterState::Running(workers) => return Ok(Some(Arc::clone(workers))),
            OuterState::NotStarted { pipes } => *pipes,
        };
        let limits = &self.context.limits;
        let limit = |open| limits.connections_again(OUTER_LEGS, pipes, open);
        let workers = OuterWorkers::start(&self.context, self.most_workers, None)?;
        self.context.admission.lower_limit(limit);
        let workers = Arc::new(workers);
        *state = OuterState::Running(Arc::clone(&workers));
        Ok(Some(workers))
    }

    /// The workers of the next connection; None where it is handed out itself.
    fn of_next(&self) -> io::Result<Option<Arc<OuterWorkers>>> {
        if self.context.hands_out_inner() { self.start_late() } else { Ok(None) }
    }

    /// Starts the first worker, so that new connections can have faults. No effect where it runs,
    /// or where no more connections come.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        self.start_late().map(drop)
    }

    /// Gives an accepted connection to a worker, where those of the server have workers.
    pub(super) fn take(&self, accepted: Accepted) -> Handed {
        match self.of_next() {
            Ok(None) => Handed::Itself(accepted),
            Ok(Some(workers)) => workers.take(accepted).map_or(Handed::Nothing, Handed::Inner),
            Err(error) => {
                refuse(&self.context, accepted, "start", &error);
                Handed::Nothing
            }
        }
    }

    /// The workers for a connection that was handed out itself, the first of which starts now.
    /// ESHUTDOWN where the server has ended; EMFILE, EAGAIN.
    pub(super) fn workers(&self) -> io::Result<Arc<OuterWorkers>> {
        let none = || io::Error::from_raw_os_error(libc::ESHUTDOWN);
        self.start_late()?.ok_or_else(none)
    }

    /// The start of the server has failed: its workers end, and those of another start follow.
    pub(crate) fn forget(&self) {
        *self.state.lock() = OuterState::None;
    }

    /// No more connections come: those that are there end when their handlers have closed them.
    pub(super) fn close(&self) {
        let state = std::mem::take(&mut *self.state.lock());
        if let OuterState::Running(workers) = state {
            workers.close();
        }
    }
}

/// What becomes of an accepted connection that a caller is to have.
pub(super) enum Handed {
    /// The caller gets its socket.
    Itself(Accepted),
    /// A worker has its socket. The caller gets the other end of the pair, with what connects its
    /// stream with the session, and the record.
    Inner((Socket, Arc<Link>, Arc<Record>)),
    /// There was no pair, or no worker, to be had: the connection is reset.
    Nothing,
}

/// Resets a connection, because of an error at a step of ours.
fn refuse(context: &ServerContext, accepted: Accepted, step: &str, error: &io::Error) {
    let Accepted { socket, entry_id, .. } = accepted;
    let text = format!("{step}: {error}");
    let close = SocketClose::Reset(socket.as_fd());
    context.close_record(entry_id, ClosedBy::Error, Some(text), None, close);
    context.count_error();
    socket.abort();
    context.admission.closed();
}

/// The workers of a server's outer connections.
pub(super) struct OuterWorkers {
    context: Arc<ServerContext>,
    pool: Mutex<WorkerPool>,
    /// They were started while the server served: its connections are accepted with descriptors
    /// that block.
    is_late: bool,
}

impl OuterWorkers {
    /// Starts the first worker. Without `started`, it is late. Fails with EMFILE or EAGAIN.
    pub(super) fn start(
        context: &Arc<ServerContext>,
        most_workers: usize,
        started: Option<&mut Vec<Arc<Inbox>>>,
    ) -> io::Result<Self> {
        // Every connection comes with its session.
        let service = Arc::new(Null) as Arc<dyn Service>;
        let mut pool = WorkerPool::new(context, &service, most_workers);
        let (first, is_late) = (pool.add()?, started.is_none());
        started.into_iter().for_each(|started| started.push(Arc::clone(&first)));
        Ok(Self { context: Arc::clone(context), pool: Mutex::new(pool), is_late })
    }

    /// Gives an accepted connection to a worker. Returns the handler's end of the pair, with what
    /// its stream is linked by; None where there is no pair to be had: the connection is reset.
    fn take(&self, accepted: Accepted) -> Option<(Socket, Arc<Link>, Arc<Record>)> {
        let (ours, theirs) = match self.pair() {
            Ok(pair) => pair,
            Err(error) => {
                refuse(&self.context, accepted, "socketpair", &error);
                return None;
            }
        };
        if self.is_late {
            // It was accepted as a caller's. Fails for a descriptor only that is not open.
            let _ = accepted.socket.options().set_nonblocking(true);
        }
        let link = Arc::new(Link::new(&accepted.socket).with_calls(&self.context.limits));
        let record = Arc::clone(&accepted.record);
        let session = Box::new(InnerSession::new(&link));
        self.send(accepted, Inner { socket: ours, session, faults: None, stages: Vec::new() });
        Some((theirs, link, record))
    }

    /// A socket pair: the worker's end, and the other one.
    pub(super) fn pair(&self) -> io::Result<(Socket, Socket)> {
        Socket::pair(self.context.limits.write_buffer)
    }

    /// Gives a connection to a worker. Returns the worker.
    pub(super) fn send(&self, accepted: Accepted, inner: Inner) -> Arc<Inbox> {
        let worker = self.pool.lock().pick();
        worker.load.fetch_add(1, Relaxed);
        worker.send_or_end(Message::AdoptOuter(accepted, inner), &self.context);
        worker
    }

    /// No more connections come: those that are there end when their callers have closed them.
    pub(super) fn close(&self) {
        self.pool.lock().drain();
    }
}

/// The owner of an inner stream.
pub(super) fn lease(
    context: &Arc<ServerContext>,
    handed_out: &Arc<HandedOut>,
    job: JobId,
    link: &Arc<Link>,
    stream: &Weak<Stream>,
) -> impl Owner + use<> {
    let stream: Weak<Stream> = Weak::clone(stream);
    link.set_inner(stream);
    InnerLease {
        context: Arc::clone(context),
        handed_out: Arc::clone(handed_out),
        job,
        link: Arc::clone(link),
    }
}
