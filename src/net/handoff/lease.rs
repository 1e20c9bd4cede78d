//! An accepted stream's link to its server: its ledger entry, its admission slot. Owns the end of
//! that entry; must never keep a descriptor open, nor end a connection by itself.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};

use socket2::Domain;

use super::handed_out::{HandedOut, JobId, PendingOpening};
use super::inner::{self, Handed, InnerSession, Link, OuterHost, OuterWorkers};
use super::linger::{LingerHost, PendingLinger};
use crate::net::base::EventFd;
use crate::net::connection::LingeringSocket;
use crate::net::control::ServerContext;
use crate::net::ledger::{ClosedBy, EntryId, Record, SocketClose};
use crate::net::socket::{Socket, Until};
use crate::net::stage::Stage;
use crate::net::stream::{DeferredClose, InnerEnd, Outer, OuterPlace, Owned, Owner, Stream};
use crate::net::worker::{Accepted, Inner};

/// A connection that a caller is to have.
pub(super) enum Leased {
    Now(JobId, Arc<Stream>),
    /// Only when its proxy has said whose connection it is, and the handshake of TLS is complete.
    Later(LaterLease),
    /// The process has no descriptors left for an inner socket: the connection is reset.
    Nothing,
}

/// A connection whose stages are not ready yet.
pub(super) struct LaterLease {
    link: Arc<Link>,
    job: JobId,
    stream: Arc<Stream>,
    pending: PendingOpening,
}

impl LaterLease {
    /// Gives the connection to a function when its stages are ready. It is dropped if it ends
    /// before.
    pub(super) fn then(self, give: impl FnOnce(JobId, Arc<Stream>) + Send + 'static) {
        let Self { link, job, stream, pending } = self;
        link.when_open(move || {
            give(job, stream);
            drop(pending);
        });
    }
}

/// Makes the leases of one server's connections.
pub(super) struct Leases {
    context: Arc<ServerContext>,
    handed_out: Arc<HandedOut>,
    /// None if a close never lingers, as for an ordinary socket.
    host: Option<Arc<LingerHost>>,
    /// The listener's family: an IPv4 peer of a dual-stack port has an IPv6 socket.
    family: Domain,
    /// Has the connections stay with workers, where they have stages or may get some, while callers
    /// get inner sockets.
    outer: Arc<OuterHost>,
    /// They do so from the start of the server on.
    is_prepared: bool,
}

impl Leases {
    pub(super) fn new(
        context: Arc<ServerContext>,
        handed_out: Arc<HandedOut>,
        host: Option<Arc<LingerHost>>,
        family: Domain,
        outer: &Arc<OuterHost>,
        is_prepared: bool,
    ) -> Self {
        Self { context, handed_out, host, family, outer: Arc::clone(outer), is_prepared }
    }

    /// Whether the descriptors of new connections are non-blocking, as workers need them.
    pub(super) fn nonblocking(&self) -> bool {
        self.is_prepared
    }

    /// No more connections come.
    pub(super) fn close(&self) {
        self.outer.close();
    }

    fn lease_inner(
        &self,
        socket: Socket,
        link: Arc<Link>,
        record: Arc<Record>,
    ) -> (JobId, Arc<Stream>) {
        let mut job = None;
        let stream = Arc::new_cyclic(|stream| {
            let id = *job.insert(self.handed_out.add(Weak::clone(stream)));
            let context = &self.context;
            let owner = inner::lease(context, &self.handed_out, id, &link, stream);
            let draining = self.handed_out.draining_flag();
            let (origin, limits) = (context.origin, &context.limits);
            let owned = Owned::inner(Box::new(owner), origin, draining, limits, link);
            Stream::accepted(socket, self.family, context.options.clone(), record, owned)
        });
        (job.expect("set when the stream was made"), stream)
    }

    /// The stream of an accepted connection, which is then one of the jobs that are handed out.
    pub(super) fn lease(&self, accepted: Accepted) -> Leased {
        let accepted = match self.outer.take(accepted) {
            Handed::Itself(accepted) => accepted,
            Handed::Inner((socket, link, record)) => {
                // A handshake takes no thread of the caller's.
                let waits = record.is_proxied() || self.context.tls.is_some();
                let (job, stream) = self.lease_inner(socket, Arc::clone(&link), record);
                if !waits {
                    return Leased::Now(job, stream);
                }
                let pending = PendingOpening::new(&self.handed_out, &self.context);
                return Leased::Later(LaterLease { link, job, stream, pending });
            }
            Handed::Nothing => return Leased::Nothing,
        };
        let Accepted { socket, record, entry_id } = accepted;
        if self.is_prepared {
            // It came while the server was ending. Fails for a descriptor only that is not open.
            let _ = socket.options().set_nonblocking(false);
        }
        let opened = record.opened();
        let mut job = None;
        let stream = Arc::new_cyclic(|stream| {
            let id = *job.insert(self.handed_out.add(Weak::clone(stream)));
            let lease = Lease {
                context: Arc::clone(&self.context),
                handed_out: Arc::clone(&self.handed_out),
                host: self.host.clone(),
                outer: Arc::clone(&self.outer),
                entry_id,
                job: id,
                state: AtomicU8::new(OPEN),
                link: OnceLock::new(),
            };
            let context = &self.context;
            let draining = self.handed_out.draining_flag();
            let owned = Owned::new(Box::new(lease), context.origin, draining, &context.limits);
            Stream::accepted(socket, self.family, context.options.clone(), record, owned)
        });
        if self.handed_out.plan_end(self.context.limits.lifetime, opened) {
            self.context.notifier.notify();
        }
        Leased::Now(job.expect("set when the stream was made"), stream)
    }
}

/// The states of a lease: who closes the record.
const OPEN: u8 = 0;
/// It is closed.
const SETTLED: u8 = 1;
/// A worker has the connection, and closes it.
const MOVED: u8 = 2;

/// One connection's link to its server.
struct Lease {
    context: Arc<ServerContext>,
    handed_out: Arc<HandedOut>,
    host: Option<Arc<LingerHost>>,
    outer: Arc<OuterHost>,
    entry_id: EntryId,
    job: JobId,
    state: AtomicU8,
    /// Set before the connection goes to a worker.
    link: OnceLock<Arc<Link>>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({:?})", self.job)
    }
}

impl Lease {
    fn close_record(&self, by: ClosedBy, error: Option<String>, close: SocketClose<'_>) -> bool {
        let first = self.leave_open(SETTLED);
        if first {
            self.context.close_record(self.entry_id, by, error, None, close);
        }
        first
    }

    /// Changes the state, once. Returns false where it was changed before.
    fn leave_open(&self, to: u8) -> bool {
        self.state.compare_exchange(OPEN, to, SeqCst, SeqCst).is_ok()
    }

    /// What connects it with the worker that has the connection now.
    fn moved(&self) -> Option<&Arc<Link>> {
        self.link.get().filter(|_| self.state.load(SeqCst) == MOVED)
    }
}

/// A place on a worker of the server for a connection that was handed out itself.
struct LatePlace<'a> {
    lease: &'a Lease,
    workers: Arc<OuterWorkers>,
    ours: Socket,
    stage: Box<dyn Stage>,
    opening: Arc<EventFd>,
}

impl OuterPlace for LatePlace<'_> {
    fn take(
        self: Box<Self>,
        outer: Socket,
        record: &Arc<Record>,
        inner: Weak<dyn InnerEnd>,
    ) -> Option<Arc<dyn Outer>> {
        let Self { lease, workers, ours, stage, opening } = *self;
        let link = Link::new(&outer).with_calls(&lease.context.limits);
        let link = Arc::new(link.with_opening(Some(opening)));
        link.set_inner(inner);
        let _ = lease.link.set(Arc::clone(&link));
        if !lease.leave_open(MOVED) {
            // A close by another thread has told the link nothing. The lease keeps that.
            link.forget_opening();
            return None;
        }
        let accepted =
            Accepted { socket: outer, record: Arc::clone(record), entry_id: lease.entry_id };
        let session = Box::new(InnerSession::new(&link));
        let inner = Inner { socket: ours, session, faults: None, stages: vec![stage] };
        let _ = workers.send(accepted, inner);
        Some(link)
    }
}

impl Owner for Lease {
    fn count_error(&self) {
        self.context.count_error();
    }

    fn settle(&self, by: ClosedBy, error: Option<String>, close: SocketClose<'_>) {
        if self.close_record(by, error.clone(), close) {
            self.context.count_stopped(close.is_reset() && by == ClosedBy::Stop);
        } else if let Some(link) = self.moved() {
            // The worker closes the record, and counts the connection for a stop.
            link.decide(by, error, close.is_reset());
        }
    }

    fn is_settled(&self) -> bool {
        match self.state.load(SeqCst) {
            OPEN => false,
            MOVED => self.link.get().is_some_and(|link| link.is_settled()),
            _ => true,
        }
    }

    fn end_input(&self) -> bool {
        self.moved().map(|link| link.end_input()).is_some()
    }

    fn reserve(&self, stage: Box<dyn Stage>) -> io::Result<(Socket, Box<dyn OuterPlace + '_>)> {
        let opening = Arc::new(EventFd::new()?);
        let workers = self.outer.workers()?;
        let (ours, theirs) = workers.pair()?;
        let place = LatePlace { lease: self, workers, ours, stage, opening };
        Ok((theirs, Box::new(place)))
    }

    fn may_linger(&self) -> bool {
        let host = self.host.as_ref().filter(|_| self.state.load(SeqCst) == OPEN);
        host.is_some_and(|host| host.is_open())
    }

    fn linger(
        &self,
        socket: Socket,
        record: Arc<Record>,
        until: Until,
        by: ClosedBy,
        error: Option<String>,
    ) -> DeferredClose {
        self.close_record(by, error, SocketClose::None);
        // The stop counts the connection when it has lingered.
        DeferredClose::new(PendingLinger {
            lingering: Some(LingeringSocket { socket, record, until }),
            context: Arc::clone(&self.context),
            handed_out: Arc::clone(&self.handed_out),
            host: Arc::clone(self.host.as_ref().expect("`may_linger` was true")),
            job: self.job,
        })
    }

    fn socket_closed(&self) {
        self.handed_out.remove(self.job);
        if self.moved().is_none() {
            self.context.admission.closed();
        }
        self.call_ended();
    }

    fn call_ended(&self) {
        if self.handed_out.is_draining() {
            self.context.notifier.notify();
        }
    }
}
