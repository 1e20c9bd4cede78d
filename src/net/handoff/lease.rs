//! An accepted stream's link to its server: its ledger entry, its admission slot. Owns the end of
//! that entry; must never keep a descriptor open, nor end a connection by itself.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use socket2::Domain;

use super::handed_out::{HandedOut, JobId, PendingOpening};
use super::inner::{self, Handed, Link, OuterHost};
use super::linger::{LingerHost, PendingLinger};
use crate::net::connection::LingeringSocket;
use crate::net::control::ServerContext;
use crate::net::ledger::{ClosedBy, EntryId, Record};
use crate::net::socket::{Socket, Until};
use crate::net::stream::{DeferredClose, Owned, Owner, Stream};
use crate::net::worker::Accepted;

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
            let owned = Owned::inner(Box::new(owner), context.origin, draining, link);
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
                entry_id,
                job: id,
                settled: AtomicBool::new(false),
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

/// One connection's link to its server.
struct Lease {
    context: Arc<ServerContext>,
    handed_out: Arc<HandedOut>,
    host: Option<Arc<LingerHost>>,
    entry_id: EntryId,
    job: JobId,
    settled: AtomicBool,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({:?})", self.job)
    }
}

impl Lease {
    fn close_record(&self, by: ClosedBy, error: Option<String>) -> bool {
        let first = !self.settled.swap(true, SeqCst);
        if first {
            self.context.close_record(self.entry_id, by, error, None);
        }
        first
    }
}

impl Owner for Lease {
    fn count_error(&self) {
        self.context.count_error();
    }

    fn settle(&self, by: ClosedBy, error: Option<String>, forced: bool) {
        if self.close_record(by, error) {
            self.context.count_stopped(forced);
        }
    }

    fn is_settled(&self) -> bool {
        self.settled.load(SeqCst)
    }

    fn may_linger(&self) -> bool {
        self.host.as_ref().is_some_and(|host| host.is_open()) && !self.is_settled()
    }

    fn linger(
        &self,
        socket: Socket,
        record: Arc<Record>,
        until: Until,
        by: ClosedBy,
        error: Option<String>,
    ) -> DeferredClose {
        self.close_record(by, error);
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
        self.context.admission.closed();
        self.call_ended();
    }

    fn call_ended(&self) {
        if self.handed_out.is_draining() {
            self.context.notifier.notify();
        }
    }
}
