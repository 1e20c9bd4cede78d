//! The faults of one client. Owns the session of its connection on the worker of all such clients;
//! must never act on traffic itself.

use std::fmt;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use super::client_worker::{self, ClientWorker, WorkerPlace};
use super::inner::{InnerSession, Link};
use rustls_pki_types::ServerName;

use crate::net::address::{Target, Transport};
use crate::net::base::{EventFd, Mutex, Origin, Waiter};
use crate::net::control::{Limits, random_seed};
use crate::net::error::{Error, Result};
use crate::net::ledger::{ClosedBy, Record, SocketClose};
use crate::net::service::{Io, Leg, Session, SessionResult, Waker};
use crate::net::socket::Socket;
use crate::net::stage::Stage;
use crate::net::stage::faults::{Fault, FaultHost, FaultListener, FaultSet, Installed, SetOwner};
use crate::net::stage::tls::TlsClient;
use crate::net::stream::{InnerEnd, Outer, Owned, Owner, Place, Staging, Stream};
use crate::net::worker::Inner;

/// The faults of one client, from before it connects.
pub struct ClientFaults {
    origin: Origin,
    transport: Transport,
    set: Arc<FaultSet>,
    tls: Option<TlsClient>,
    /// The name that the server's certificate must have, from the last connect on.
    name: Mutex<Option<ServerName<'static>>>,
}

impl fmt::Debug for ClientFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientFaults({})", self.set.seed())
    }
}

impl ClientFaults {
    /// The faults of a client that is not connected. None for `seed` draws one. Opens nothing.
    pub fn new(
        transport: Transport,
        faults: Vec<Fault>,
        seed: Option<u64>,
        tls: Option<TlsClient>,
    ) -> Result<Arc<Self>> {
        if transport.is_datagram() {
            if tls.is_some() {
                return Err(Error::Value(
                    "tls: TLS needs a stream, and datagrams are none".to_owned(),
                ));
            }
            return Err(Error::Value(
                "faults: a client of datagrams has none; a server of datagrams can".to_owned(),
            ));
        }
        let high_water = Limits::default().write_buffer;
        let set = FaultSet::of_client(seed.unwrap_or_else(random_seed), high_water);
        let (origin, set) = (Origin::here(), Arc::new(set));
        let own = Self { origin, transport, set, tls, name: Mutex::new(None) };
        for fault in &faults {
            own.check(fault)?;
        }
        for fault in faults {
            own.set.add(fault, 0);
        }
        Ok(Arc::new(own))
    }

    fn check(&self, fault: &Fault) -> Result<()> {
        if fault.kind.accepting().is_some() {
            let text = &fault.label.text;
            return Err(Error::Value(format!(
                "{text}: a fault of accepting, and a client accepts nothing"
            )));
        }
        fault.check(self.transport)
    }

    /// Has the connection of a client go through the faults.
    pub fn apply(self: &Arc<Self>, client: &mut Stream) {
        client.set_staging(Arc::clone(self) as Arc<dyn Staging>);
    }

    /// The faults.
    #[must_use]
    pub fn set(&self) -> &FaultSet {
        &self.set
    }
}

impl FaultHost for ClientFaults {
    fn add_fault(&self, fault: Fault, waiter: &mut dyn Waiter) -> Result<Arc<Installed>> {
        self.origin.check()?;
        self.check(&fault)?;
        self.set.add_and_wait(fault, 0, self, waiter)
    }

    fn remove_faults(&self, ids: &[u64], waiter: &mut dyn Waiter) -> Result<()> {
        self.origin.check()?;
        self.set.remove_and_wait(ids, self, waiter)
    }

    fn is_here(&self) -> bool {
        self.origin.is_here()
    }
}

impl SetOwner for ClientFaults {
    fn lose(&self) {
        client_worker::lose();
    }
}

impl Staging for ClientFaults {
    fn prepare(&self, target: &Target) -> Result<()> {
        if let Some(tls) = &self.tls {
            let name = tls.verified_name(target.as_unix().is_none().then(|| target.host()))?;
            *self.name.lock() = Some(name);
        }
        Ok(())
    }

    fn reserve(&self) -> io::Result<(Socket, Box<dyn Place>)> {
        let name = self.name.lock().clone();
        let tls = self.tls.as_ref().zip(name).map(|(tls, name)| tls.stage(name));
        reserve(Arc::clone(&self.set), tls)
    }
}

/// Makes a place on the worker for a connection with these faults, and with TLS.
fn reserve(
    set: Arc<FaultSet>,
    tls: Option<Box<dyn Stage>>,
) -> io::Result<(Socket, Box<dyn Place>)> {
    let opening = tls.as_ref().map(|_| EventFd::new().map(Arc::new)).transpose()?;
    let place = WorkerPlace::reserve()?;
    let (ours, theirs) = place.worker().pair()?;
    let stages = tls.into_iter().collect();
    Ok((theirs, Box::new(Reserved { place, ours, set, stages, opening })))
}

/// The same for a connection that is in use, and has no faults.
pub(super) fn reserve_for_tls(tls: Box<dyn Stage>) -> io::Result<(Socket, Box<dyn Place>)> {
    let set = FaultSet::of_client(0, Limits::default().write_buffer);
    reserve(Arc::new(set), Some(tls))
}

/// A place for the connection.
struct Reserved {
    place: WorkerPlace,
    ours: Socket,
    set: Arc<FaultSet>,
    stages: Vec<Box<dyn Stage>>,
    opening: Option<Arc<EventFd>>,
}

impl Place for Reserved {
    fn take(
        self: Box<Self>,
        outer: Socket,
        record: &Arc<Record>,
        inner: Weak<dyn InnerEnd>,
    ) -> Owned {
        let Self { place, ours, set, stages, opening } = *self;
        let worker = Arc::clone(place.worker());
        let listener: Arc<dyn FaultListener> = Arc::clone(worker.inbox()) as Arc<dyn FaultListener>;
        set.listen(Arc::downgrade(&listener));
        let link = Arc::new(Link::new(&outer).with_opening(opening));
        link.set_inner(inner);
        let session = ClientSession {
            inner: InnerSession::new(&link),
            worker: Arc::clone(&worker),
            _place: place,
        };
        let session = Box::new(session);
        worker.take(outer, record, Inner { socket: ours, session, faults: Some(set), stages });
        let owner = ClientOwner(Arc::clone(&link));
        let draining = Arc::new(AtomicBool::new(false));
        // No limit ends a client's calls.
        let limits = Limits::default();
        let link = link as Arc<dyn Outer>;
        Owned::inner(Box::new(owner), Origin::here(), draining, &limits, link)
    }
}

/// The session of a client's connection. Its drop gives the place back.
struct ClientSession {
    inner: InnerSession,
    worker: Arc<ClientWorker>,
    _place: WorkerPlace,
}

impl Session for ClientSession {
    fn opening(&mut self, waker: Waker) {
        self.inner.opening(waker);
    }

    fn gives_up(&self) -> bool {
        self.inner.gives_up()
    }

    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        self.inner.open(io)
    }

    fn bytes(&mut self, io: &mut dyn Io, leg: Leg, input: &[u8]) -> SessionResult<usize> {
        self.inner.bytes(io, leg, input)
    }

    fn eof(&mut self, io: &mut dyn Io, leg: Leg, rest: &[u8]) -> SessionResult {
        self.inner.eof(io, leg, rest)
    }

    fn wake(&mut self, io: &mut dyn Io) -> SessionResult {
        self.inner.wake(io)
    }

    fn take_back(&mut self) -> Vec<u8> {
        self.inner.take_back()
    }

    fn upgraded(&mut self, io: &mut dyn Io) -> SessionResult {
        self.inner.upgraded(io)
    }

    fn ends(&mut self, why: ClosedBy, error: Option<&str>) {
        self.inner.ends(why, error);
    }

    fn explain(&self, by: ClosedBy, error: Option<String>) -> (ClosedBy, Option<String>) {
        self.inner.explain(by, error)
    }

    fn closed(&mut self, why: ClosedBy) {
        self.inner.closed(self.worker.end_for_client(why));
    }
}

/// What a client's calls tell the session.
#[derive(Debug)]
struct ClientOwner(Arc<Link>);

impl Owner for ClientOwner {
    /// A client has no service.
    fn count_error(&self) {}

    /// The worker closes the record.
    fn settle(&self, by: ClosedBy, error: Option<String>, close: SocketClose<'_>) {
        self.0.decide(by, error, close.is_reset());
    }

    fn is_settled(&self) -> bool {
        self.0.is_settled()
    }

    fn abandon(&self) {
        self.0.abandon();
    }

    fn socket_closed(&self) {}

    fn call_ended(&self) {}
}
