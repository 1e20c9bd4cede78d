//! The state shared by all parts of one server: limits, options, ledger, admission, shutdown. Must
//! never do a thread's work, nor know which parts exist.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::access::Access;
use super::admission::Admission;
use super::config::Config;
use super::limits::Limits;
use super::listening::Listening;
use super::resets::Resets;
use super::shutdown::{Cause, Shutdown, StopReport};
use crate::net::address::{Address, Network, Transport};
use crate::net::base::{EventFd, Mutex, Origin, Waiter, pause, wait_for_own};
use crate::net::error::{Error, Result};
use crate::net::ledger::{ClosedBy, EntryId, Ledger, Record, SocketClose, TraceLimits};
use crate::net::recording::Recorder;
use crate::net::service::Peer;
use crate::net::socket::{Algorithm, PipeAllowance, SocketOptions};
use crate::net::stage::faults::FaultSet;
use crate::net::stage::tls::TlsServer;
use crate::net::stage::{Chain, Gate, ProxyProtocol, RecorderStage, StageFactory};
use crate::net::sys::{self, PollFd};

/// A seed by chance, short enough to be typed again.
pub(crate) fn random_seed() -> u64 {
    // The keys of a hash map come from the system.
    RandomState::new().build_hasher().finish() >> 32
}

/// How many servers this process has made.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// How often a call that waits for the end of a server looks, where the program has closed
/// descriptors of it.
const LOST: Duration = Duration::from_millis(10);

/// The state shared by all parts of one server.
pub(crate) struct ServerContext {
    /// Its number in this process.
    pub(crate) number: u64,
    pub(crate) origin: Origin,
    pub(crate) name: String,
    pub(crate) transport: Transport,
    pub(crate) options: SocketOptions,
    pub(crate) limits: Limits,
    /// Whose connections, or datagrams, the server serves.
    pub(crate) access: Access,
    /// The networks of proxies, whose connections begin with a header of the PROXY protocol.
    proxies: Vec<Network>,
    /// Whether a handler gets the datagrams of a peer one after the other, in their order.
    pub(crate) ordered: bool,
    /// Creates the stages between each connection and its session; None for no stages.
    pub(crate) stages: Option<Arc<dyn StageFactory>>,
    /// TLS of each connection; None for clear text.
    pub(crate) tls: Option<Arc<TlsServer>>,
    /// Bounds the handshakes of its connections, from the accept on or later; None for any number.
    pub(crate) gate: Option<Arc<Gate>>,
    /// The faults of the connections and of the listener.
    pub(crate) faults: Arc<FaultSet>,
    /// Faults can be added to the connections of handlers: they stay with workers.
    prepared: bool,
    /// How long a stop drains by default.
    pub(crate) drain: Duration,
    pub(crate) ledger: Arc<Ledger>,
    /// Limits of each connection's trace; None for no trace.
    pub(crate) trace: Option<TraceLimits>,
    /// The listener's congestion control, which accepted sockets inherit; set by the start.
    pub(crate) algorithm: OnceLock<Algorithm>,
    /// Set if accepted sockets inherit an SO_LINGER by which a close is a reset.
    pub(crate) may_reset: OnceLock<()>,
    pub(crate) admission: Admission,
    /// The listener, as faults change it.
    pub(crate) listening: Listening,
    pub(crate) shutdown: Shutdown,
    /// Wakes the thread that accepts.
    pub(crate) notifier: AcceptNotifier,
    /// Pipes for splicing.
    pub(crate) pipes: Arc<PipeAllowance>,
    /// What begins again by `Server::reset`.
    pub(crate) resets: Resets,
    errors: AtomicU64,
    /// What its recorders wait for.
    recordings: Mutex<Weak<OpenRecordings>>,
    recording_errors: Mutex<Vec<Error>>,
    /// The error of the listener that ended the server, for calls of `accept`.
    failure: OnceLock<i32>,
}

impl ServerContext {
    /// Takes the faults out of the configuration.
    pub(crate) fn new(config: &mut Config) -> Self {
        let faults =
            FaultSet::new(config.seed.unwrap_or_else(random_seed), config.limits.write_buffer);
        let prepared = config.faults.is_some();
        for fault in config.faults.take().into_iter().flatten() {
            faults.add(fault, 0);
        }
        let faults = Arc::new(faults);
        Self {
            number: NUMBER.fetch_add(1, Relaxed),
            origin: Origin::here(),
            name: config.name.clone(),
            transport: config.transport,
            options: config.options.clone(),
            limits: config.limits.clone(),
            access: config.access.clone(),
            proxies: config.proxies.clone(),
            ordered: config.ordered,
            stages: config.stages.clone(),
            tls: config.tls.clone(),
            gate: config.limits.handshakes.map(|most| Arc::new(Gate::new(most))),
            faults: Arc::clone(&faults),
            prepared,
            drain: config.drain,
            ledger: Arc::new(Ledger::new(config.history)),
            trace: config.trace,
            algorithm: OnceLock::new(),
            may_reset: OnceLock::new(),
            admission: Admission::new(config.limits.per_host),
            listening: Listening::new(config, &faults),
            shutdown: Shutdown::new(),
            notifier: AcceptNotifier::default(),
            pipes: Arc::default(),
            resets: Resets::default(),
            errors: AtomicU64::new(0),
            recordings: Mutex::default(),
            recording_errors: Mutex::default(),
            failure: OnceLock::new(),
        }
    }

    /// Whether new connections that are handed out stay with workers, because they have stages or
    /// may get some. Never false again once it was true.
    pub(crate) fn hands_out_inner(&self) -> bool {
        self.stages.is_some()
            || !self.proxies.is_empty()
            || self.tls.is_some()
            || self.prepared
            || self.faults.needs_stages()
    }

    /// Whether a peer is a proxy, whose connections begin with a header.
    pub(crate) fn is_proxy(&self, peer: &Address) -> bool {
        self.proxies.iter().any(|network| network.contains(peer))
    }

    /// The stages of a new connection, which `recorder` records; None for none.
    pub(crate) fn stages_of(
        &self,
        peer: &Peer,
        record: &Record,
        recorder: Option<Arc<Recorder>>,
    ) -> Option<Box<Chain>> {
        let mut made = self.stages.as_ref().and_then(|factory| factory.stages(peer));
        let empty = || Box::new(Chain::new(Vec::new()));
        // From the socket up. A chain that is not open yet cannot fail.
        if record.awaits_proxy() {
            let stage = Box::new(ProxyProtocol::default());
            made.get_or_insert_with(empty).put_first(stage);
        }
        if let Some(tls) = &self.tls {
            record.begin_handshake();
            let _ = made.get_or_insert_with(empty).push(Instant::now(), tls.stage());
        }
        if let Some(recorder) = recorder {
            let now = Instant::now();
            let track = recorder.track(peer.id, &peer.remote, &peer.local, now);
            let stage = RecorderStage::new(track, now);
            let _ = made.get_or_insert_with(empty).push(now, Box::new(stage));
        }
        if self.faults.concerns(record.id()) {
            let _ = self.faults.update(made.get_or_insert_with(empty), record, Instant::now());
        }
        made
    }

    /// Whether a stop has begun and its last thread has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.shutdown.has_begun() && self.shutdown.is_done()
    }

    /// Ends the iteration of the ledger's followers once the server has ended. Called when a stop
    /// begins and when the last thread ends; the later call finds the server ended.
    pub(crate) fn finish_ledger(&self) {
        if self.has_ended() {
            self.ledger.finish();
        }
    }

    /// The last thread has ended, or the start has failed.
    fn last_thread_ended(&self) {
        self.ledger.close_flag();
        self.finish_ledger();
    }

    /// Closes a record, and gives back the slots of its connection. The socket is closed after
    /// that as `close` says, and then `admission.closed` called. `algorithm` as in
    /// `Record::last_tcp_info`.
    pub(crate) fn close_record(
        &self,
        entry_id: EntryId,
        by: ClosedBy,
        error: Option<String>,
        algorithm: Option<Algorithm>,
        close: SocketClose<'_>,
    ) {
        let close = if self.may_reset.get().is_some() { close.with_linger() } else { close };
        let leave = |record: &Record| self.admission.leave(record.host());
        self.ledger.close(entry_id, by, error, algorithm, close, leave);
    }

    /// Forgets what the server has done so far, its connections having ended. False, without
    /// effect, while one is open.
    pub(crate) fn forget(&self) -> bool {
        if !self.ledger.reset() {
            return false;
        }
        self.resets.restart_ids();
        self.faults.restart();
        self.errors.store(0, Relaxed);
        true
    }

    pub(crate) fn count_error(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    /// Begins a stop from one of the server's own threads, with the server's drain time.
    pub(crate) fn stop_by_itself(&self, cause: Cause) {
        self.shutdown.begin(cause, self.drain);
    }

    /// The same, because of an error of the listener. Without effect if a stop has begun.
    pub(crate) fn fail(&self, error: &std::io::Error) {
        if matches!(error.raw_os_error(), Some(libc::EBADF | libc::ENOTSOCK)) {
            self.lose();
            return;
        }
        if !self.shutdown.has_begun() {
            // The first error is kept.
            let _ = self.failure.set(error.raw_os_error().unwrap_or(libc::EIO));
            self.stop_by_itself(Cause::AcceptError);
        }
    }

    /// Ends the server, because the program has closed one of its descriptors.
    pub(crate) fn lose(&self) {
        let _ = self.failure.set(libc::EBADF);
        self.stop_by_itself(Cause::AcceptError);
        self.shutdown.lose();
    }

    /// Notes how a thread's work ended. An error of the listener, or a panic, ends the server.
    pub(crate) fn conclude<T>(&self, work: thread::Result<std::io::Result<T>>) -> Option<T> {
        match work {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(error)) => self.fail(&error),
            Err(_) => {
                self.count_error();
                self.stop_by_itself(Cause::AcceptError);
            }
        }
        None
    }

    /// Waits in a call from outside for descriptors of the server, which ends if the program has
    /// closed one of them. As `wait_for_own`; `Error::Forked` in a forked child.
    pub(crate) fn wait_for(
        &self,
        fds: &mut [PollFd],
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<bool> {
        let ready = wait_for_own(waiter, fds, deadline);
        // A signal handler may have forked.
        self.origin.check()?;
        ready.inspect_err(|error| {
            if error.raw() == Some(libc::EBADF) {
                self.lose();
            }
        })
    }

    /// The error of the listener that ended the server.
    pub(crate) fn failure(&self) -> Option<i32> {
        self.failure.get().copied()
    }

    /// Changes the listener as the faults ask for now. When this returns, the change is in force.
    pub(crate) fn update_listener(&self) -> Result<()> {
        if self.listening.update()? {
            // The thread that accepts waits for something else now.
            self.notifier.notify();
        }
        Ok(())
    }

    /// Counts a connection that has ended, if a stop has begun.
    pub(crate) fn count_stopped(&self, forced: bool) {
        if self.shutdown.has_begun() {
            self.shutdown.count(forced);
        }
    }

    /// Starts a thread that the stop joins. The thread blocks all signals, which are for Python's
    /// threads.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let alive = Alive::new(self);
        let recordings = self.recordings.lock().upgrade();
        let start = || {
            thread::Builder::new().name(name).spawn(move || {
                // Dropped last, so that the descriptors of the body are already closed.
                let _alive = alive;
                let _recordings = recordings;
                body();
            })
        };
        let thread = sys::with_signals_blocked(start)?;
        self.shutdown.add_thread(thread);
        Ok(())
    }

    /// Starts the threads of recorders. They end when the result has been dropped, and all threads
    /// that `spawn` has started meanwhile have ended.
    pub(crate) fn start_recorders(
        self: &Arc<Self>,
        recorders: Vec<Arc<Recorder>>,
    ) -> std::io::Result<Option<Arc<OpenRecordings>>> {
        if recorders.is_empty() {
            return Ok(None);
        }
        let open = Arc::new(OpenRecordings(recorders));
        for recorder in &open.0 {
            let (context, recorder) = (Arc::clone(self), Arc::clone(recorder));
            self.spawn("rsock-record".to_owned(), move || context.record(&recorder))?;
        }
        *self.recordings.lock() = Arc::downgrade(&open);
        Ok(Some(open))
    }

    /// The body of a recorder's thread.
    fn record(&self, recorder: &Recorder) {
        let deadline = || self.shutdown.has_begun().then(|| self.shutdown.deadline());
        let error = match catch_unwind(AssertUnwindSafe(|| recorder.run(&deadline))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => {
                // Its connections must not wait for it.
                recorder.fail();
                Error::file("write", recorder.path(), &std::io::Error::from_raw_os_error(libc::EIO))
            }
        };
        self.count_error();
        self.recording_errors.lock().push(error);
    }

    /// What went wrong with recordings, once.
    pub(crate) fn take_recording_errors(&self) -> Vec<Error> {
        std::mem::take(&mut *self.recording_errors.lock())
    }

    /// Detaches the flag of the accept thread, which has ended.
    pub(crate) fn clear_notifier(&self) {
        self.notifier.clear();
        self.admission.set_room_flag(None);
    }

    /// Waits for the end of the last thread; None after the deadline.
    pub(crate) fn wait(
        &self,
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Option<StopReport>> {
        while !self.has_ended() {
            // None if the last thread has just ended.
            let Some(done) = self.shutdown.done() else { continue };
            let ended = if self.shutdown.is_lost() {
                // The flag may be closed too, and a thread that was about to wait was not
                // interrupted.
                self.shutdown.lose();
                let ended = pause(waiter, LOST, deadline)?;
                self.origin.check()?;
                ended
            } else {
                match self.wait_for(&mut [done.polled()], deadline, waiter) {
                    Err(Error::Os { errno: libc::EBADF, .. }) => {
                        done.lose();
                        true
                    }
                    ended => ended?,
                }
            };
            if !ended {
                return Ok(None);
            }
        }
        let seed = self.faults.is_used().then(|| self.faults.seed());
        Ok(Some(self.shutdown.report(self.errors.load(Relaxed), seed, waiter)))
    }
}

/// Counts one thread of a server for as long as it exists.
pub(crate) struct Alive(Arc<ServerContext>);

impl Alive {
    pub(crate) fn new(context: &Arc<ServerContext>) -> Self {
        context.shutdown.thread_starts();
        Self(Arc::clone(context))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.shutdown.thread_ended(|| self.0.last_thread_ended());
    }
}

/// The recorders of a server, which end when this is dropped.
pub(crate) struct OpenRecordings(Vec<Arc<Recorder>>);

impl Drop for OpenRecordings {
    fn drop(&mut self) {
        self.0.iter().for_each(|recorder| recorder.finish());
    }
}

/// The flag of the accept thread, while that thread exists.
#[derive(Default)]
pub(crate) struct AcceptNotifier(Mutex<Option<Arc<EventFd>>>);

impl AcceptNotifier {
    /// Sets the flag that `notify` sets.
    pub(crate) fn set(&self, flag: &Arc<EventFd>) {
        *self.0.lock() = Some(Arc::clone(flag));
    }

    /// Wakes the thread, if it exists. Never blocks.
    pub(crate) fn notify(&self) {
        let flag = self.0.lock().clone();
        if let Some(flag) = flag {
            flag.set();
        }
    }

    /// Removes the flag, because its thread has ended.
    pub(crate) fn clear(&self) {
        *self.0.lock() = None;
    }
}
