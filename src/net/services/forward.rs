//! Forward: relays each client to one fixed target, in both directions. Owns the choice among the
//! target's addresses, and the connect time-out; must never look at the bytes, which the engine
//! moves, nor let a client influence the target.
//!
//! For datagrams it only returns the target: the engine opens a session for each peer.
//!
//! The addresses of a name are tried as RFC 8305 says: the next one as well if the one before has
//! not answered for a moment, and the first that answers is taken.
//!
//! A name is resolved when the server starts, and again when no address could be connected to. The
//! second time a separate thread does it, because a worker must not wait.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;

use crate::net::address::{Address, Endpoint, STAGGER, Target, Transport, resolve};
use crate::net::base::{Mutex, Waiter};
use crate::net::control::{Opened, Opening, ServerHandle, forward_loops};
use crate::net::error::{Error, Result, strerror};
use crate::net::ledger::{ClosedBy, ProxyHeader};
use crate::net::recording::{Plan, Recorder};
use crate::net::service::{
    Datagrams, Drain, ForwarderId, Io, Leg, LegStages, Onward, Peer, Reply, Service, Session,
    SessionError, SessionResult, Site, Waker,
};
use crate::net::stage::tls::TlsClient;
use crate::net::stage::{Chain, proxy_codec};

/// Time for which an answer of the resolver is reused by all sessions that fail, so that an
/// unreachable target does not cause a flood of queries.
const FRESH: Duration = Duration::from_secs(1);
/// The timer of one address, or of the resolver.
const TIMER: u32 = 0;
/// The timer of a retry after EAGAIN: no event announces that a Unix socket's queue has room again.
const RETRY: u32 = 1;
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// The destination of a forwarder.
#[derive(Clone, Debug)]
pub enum To {
    /// A host, by name or address, with a port; or a Unix socket's name.
    Host(Target),
    /// A server of this process, at its address when the forwarder starts.
    Server(ServerHandle),
}

/// Forwards each connection to a target.
#[derive(Clone, Debug)]
pub struct Forward {
    to: To,
    connect_timeout: Duration,
    /// The version of the PROXY protocol's header that the target gets first.
    proxy_protocol: Option<u8>,
    tls: Option<TlsClient>,
    /// Where each server with this service records its connections.
    recording: Option<Plan>,
}

impl Forward {
    /// A forwarder that gives up after `connect_timeout` for all addresses of the target together.
    /// `Error::Value` if the target can never be connected to.
    /// With `tls`, the target is reached by TLS.
    pub fn new(to: To, connect_timeout: Duration, tls: Option<TlsClient>) -> Result<Self> {
        if let (To::Host(target), Some(tls)) = (&to, &tls) {
            tls.verified_name(host_of(target))?;
        }
        match &to {
            To::Host(target) if target.port() == 0 && target.as_unix().is_none() => {
                Err(Error::Value(format!(
                    "Forward to {target}: port 0 cannot be connected to; give the target's port"
                )))
            }
            // A year is longer than any server waits, and an `Instant` can hold it.
            _ => Ok(Self {
                to,
                connect_timeout: connect_timeout.min(Duration::from_secs(86_400 * 365)),
                proxy_protocol: None,
                tls,
                recording: None,
            }),
        }
    }
}

impl Forward {
    /// Sends the target a header of the PROXY protocol first, of this version: the addresses of the
    /// client's connection.
    #[must_use]
    pub fn with_proxy_protocol(self, version: Option<u8>) -> Self {
        Self { proxy_protocol: version, ..self }
    }

    /// Has each server with this service record its connections.
    #[must_use]
    pub fn with_recording(self, plan: Option<Plan>) -> Self {
        Self { recording: plan, ..self }
    }
}

impl Service for Forward {
    fn name(&self) -> String {
        let target = match &self.to {
            To::Host(target) => match target.as_unix() {
                Some(name) => format!("path='{name}'"),
                None => format!("'{}', {}", target.host(), target.port()),
            },
            To::Server(server) => format!("<Server {}>", server.name()),
        };
        match &self.recording {
            Some(plan) => format!("Forward({target}, recording='{}')", plan.path.display()),
            None => format!("Forward({target})"),
        }
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        unreachable!("`prepare` returns the service to use")
    }

    fn prepare(&self, site: &Site, waiter: &mut dyn Waiter) -> Result<Option<Arc<dyn Service>>> {
        Ok(Some(Arc::new(self.prepared(site, waiter)?)))
    }

    fn datagrams(self: Arc<Self>) -> Option<Arc<dyn Datagrams>> {
        // TLS needs a stream.
        self.tls.is_none().then_some(self as Arc<dyn Datagrams>)
    }
}

/// The host that a certificate is verified for; None for a Unix socket.
fn host_of(target: &Target) -> Option<&str> {
    target.as_unix().is_none().then(|| target.host())
}

impl Datagrams for Forward {
    fn on_datagram(&self, _data: &[u8], _from: &Peer, _reply: &mut dyn Reply) -> SessionResult {
        unreachable!("`prepare` returns the service to use")
    }

    fn prepare(&self, site: &Site, waiter: &mut dyn Waiter) -> Result<Option<Arc<dyn Datagrams>>> {
        Ok(Some(Arc::new(self.prepared(site, waiter)?)))
    }
}

impl Forward {
    /// The target of a forwarder whose server listens at `site`. Blocks while a name is resolved.
    /// An error if the target is not usable or leads back to the server.
    fn prepared(&self, site: &Site, waiter: &mut dyn Waiter) -> Result<Arc<PreparedForward>> {
        let datagrams = site.local.transport == Transport::Udp;
        if site.local.transport == Transport::UnixDatagram {
            return Err(Error::Value(format!(
                "{}: it forwards streams, and datagrams of UDP; not those of a Unix socket",
                self.name()
            )));
        }
        if let Some(version) = self.proxy_protocol.filter(|_| datagrams) {
            return Err(Error::Value(format!(
                "{}: proxy_protocol='v{version}' is for streams, and UDP has none",
                self.name()
            )));
        }
        let (name, addresses) = match &self.to {
            To::Host(target) => {
                let found = resolve::addresses(target, false, None, waiter)?;
                (target.known().is_none().then(|| target.clone()), found)
            }
            To::Server(server) => {
                let address = server.reachable().ok_or_else(|| Error::State {
                    asked: "start",
                    state: format!(
                        "new, and Forward to the server {:?} needs its address",
                        server.name()
                    ),
                    hint: "start() that one first",
                })?;
                if (address.transport == Transport::Udp) != datagrams {
                    return Err(Error::Value(format!(
                        "{}: that server is reached by {}, and this one by {}",
                        self.name(),
                        address.transport.name(),
                        site.local.transport.name()
                    )));
                }
                (None, vec![address.address])
            }
        };
        let tls = match &self.tls {
            None => None,
            Some(tls) => {
                let host = match &self.to {
                    To::Host(target) => host_of(target).map(str::to_owned),
                    To::Server(_) => {
                        addresses.iter().find_map(Address::as_ip).map(|ip| ip.ip().to_string())
                    }
                };
                Some((tls.clone(), tls.verified_name(host.as_deref())?))
            }
        };
        if datagrams && addresses.iter().any(|address| address.as_ip().is_none()) {
            return Err(Error::Value(format!(
                "{}: a Unix socket is for streams; datagrams go to a host and a port",
                self.name()
            )));
        }
        if let Some(back) =
            addresses.iter().find(|address| forward_loops::leads_back(address, site))
        {
            return Err(Error::Value(format!(
                "{}: {back} leads back to this server, which listens on {}",
                self.name(),
                site.local
            )));
        }
        // Last, so that an error before it leaves no file.
        let recorder = match &self.recording {
            Some(plan) => {
                let target = match &self.to {
                    To::Host(target) => target.to_string(),
                    To::Server(_) => addresses[0].to_string(),
                };
                Some(Recorder::open(plan, site.local.transport, &target)?)
            }
            None => None,
        };
        Ok(Arc::new(PreparedForward {
            shown: self.name(),
            recorder,
            name,
            connect_timeout: self.connect_timeout,
            proxy_protocol: self.proxy_protocol,
            tls,
            site: site.clone(),
            id: ForwarderId::new(),
            resolved: Mutex::new(Resolved {
                ours: addresses.iter().any(forward_loops::is_ours),
                addresses: addresses.into(),
                answered: Instant::now(),
                asking: false,
                waiting: Vec::new(),
            }),
        }))
    }
}

/// A forwarder whose target is resolved: the service of one server.
struct PreparedForward {
    shown: String,
    recorder: Option<Arc<Recorder>>,
    /// The name to resolve again; None for an address.
    name: Option<Target>,
    connect_timeout: Duration,
    proxy_protocol: Option<u8>,
    /// TLS of the target, with the name that its certificate must have.
    tls: Option<(TlsClient, ServerName<'static>)>,
    site: Site,
    id: ForwarderId,
    resolved: Mutex<Resolved>,
}

/// The last answer of the resolver.
struct Resolved {
    addresses: Arc<[Address]>,
    /// Whether one of the addresses is this machine's, so that a connection may come back.
    ours: bool,
    answered: Instant,
    asking: bool,
    /// Sessions that wait for an answer, by the id of their connection.
    waiting: Vec<(u64, Waker)>,
}

impl PreparedForward {
    fn addresses(&self) -> (Arc<[Address]>, bool) {
        let resolved = self.resolved.lock();
        (Arc::clone(&resolved.addresses), resolved.ours)
    }

    /// The header that tells the target whose connection it gets, with what a proxy before us has
    /// told besides.
    fn preface(&self, peer: &Peer) -> Option<Vec<u8>> {
        let version = self.proxy_protocol?;
        let passed_on = |(kind, _): &&(u8, _)| version == 2 && proxy_codec::is_passed_on(*kind);
        let mut header = ProxyHeader {
            version,
            source: Some(peer.remote.address.clone()),
            destination: Some(peer.local.address.clone()),
            tlvs: peer.tlvs.iter().filter(passed_on).cloned().collect(),
            length: 0,
        };
        proxy_codec::encode(&header).ok().or_else(|| {
            // The addresses may be longer than those that the TLVs came with.
            header.tlvs.clear();
            Some(proxy_codec::encode(&header).expect("two addresses fit into a header"))
        })
    }

    fn endpoint(&self, address: Address) -> Endpoint {
        match (self.site.local.transport, address) {
            (Transport::Udp, Address::Ip(address)) => Endpoint::udp(address),
            (_, address) => Endpoint::stream(address),
        }
    }

    /// Starts a query to the resolver, and wakes the session `who`, if given, once there is a fresh
    /// answer.
    fn ask(self: &Arc<Self>, who: Option<(u64, Waker)>) {
        let Some(name) = &self.name else { return };
        let mut resolved = self.resolved.lock();
        if !resolved.asking && resolved.answered.elapsed() < FRESH {
            drop(resolved);
            if let Some((_, waker)) = who {
                waker.wake();
            }
            return;
        }
        resolved.waiting.extend(who);
        if std::mem::replace(&mut resolved.asking, true) {
            return;
        }
        drop(resolved);
        let forward = Arc::downgrade(self);
        let asked = resolve::ask(name, false, move |answer| Self::answered(&forward, answer.ok()));
        if asked.is_err() {
            // No thread could be started: keep the resolved addresses.
            self.learn(None);
        }
    }

    fn answered(forward: &Weak<Self>, answer: Option<Vec<Address>>) {
        if let Some(forward) = forward.upgrade() {
            forward.learn(answer);
        }
    }

    fn learn(&self, answer: Option<Vec<Address>>) {
        let good = answer.map(|mut found| {
            found.retain(|address| !forward_loops::leads_back(address, &self.site));
            let ours = found.iter().any(forward_loops::is_ours);
            (found, ours)
        });
        let mut resolved = self.resolved.lock();
        resolved.asking = false;
        resolved.answered = Instant::now();
        if let Some((found, ours)) = good.filter(|(found, _)| !found.is_empty()) {
            resolved.addresses = found.into();
            resolved.ours = ours;
        }
        let waiting = std::mem::take(&mut resolved.waiting);
        drop(resolved);
        waiting.iter().for_each(|(_, waker)| waker.wake());
    }

    /// Removes a session that has ended from those that wait.
    fn forget(&self, id: u64) {
        self.resolved.lock().waiting.retain(|&(waiting, _)| waiting != id);
    }
}

impl Service for Arc<PreparedForward> {
    fn name(&self) -> String {
        self.shown.clone()
    }

    fn open(&self, peer: &Peer) -> Box<dyn Session> {
        let (addresses, ours) = self.addresses();
        let own = peer.proxy.as_ref().unwrap_or(&peer.remote);
        let attempts = Attempts {
            id: peer.id,
            trail: ours.then(|| forward_loops::trail(peer.local.clone(), own.clone())),
            preface: self.preface(peer),
            left: resolve::interleaved(&addresses).into_iter().rev().collect(),
            tried: Vec::new(),
            failed: Vec::new(),
            until: Instant::now() + self.connect_timeout,
            asked: false,
            error: None,
        };
        Box::new(ForwardSession {
            forward: Arc::clone(self),
            opened: Vec::new(),
            attempts: Some(Box::new(attempts)),
            shakes_hands: false,
        })
    }

    fn legs(&self) -> usize {
        2
    }

    fn pipes(&self) -> bool {
        true
    }

    fn recorder(&self, _connection: u64) -> Option<Arc<Recorder>> {
        self.recorder.clone()
    }

    fn recorders(&self) -> Vec<Arc<Recorder>> {
        self.recorder.iter().cloned().collect()
    }

    fn leads_to(&self) -> Vec<Endpoint> {
        Onward::leads_to(&**self)
    }
}

impl Datagrams for Arc<PreparedForward> {
    fn on_datagram(&self, _data: &[u8], _from: &Peer, _reply: &mut dyn Reply) -> SessionResult {
        unreachable!("the engine forwards datagrams by `onward`")
    }

    fn onward(&self) -> Option<Arc<dyn Onward>> {
        Some(Arc::clone(self) as Arc<dyn Onward>)
    }
}

impl Onward for PreparedForward {
    fn target(&self) -> Endpoint {
        self.endpoint(self.resolved.lock().addresses[0].clone())
    }

    fn leads_to(&self) -> Vec<Endpoint> {
        self.addresses().0.iter().map(|address| self.endpoint(address.clone())).collect()
    }

    fn recorder(&self) -> Option<Arc<Recorder>> {
        self.recorder.clone()
    }

    fn forwarder(&self) -> ForwarderId {
        self.id
    }

    fn refused(self: Arc<Self>, target: Endpoint) {
        let mut resolved = self.resolved.lock();
        if resolved.addresses[0] == target.address {
            // It is tried again after the other addresses.
            let mut addresses = resolved.addresses.to_vec();
            addresses.rotate_left(1);
            resolved.addresses = addresses.into();
        }
        drop(resolved);
        self.ask(None);
    }
}

/// The session of one forwarded connection.
struct ForwardSession {
    forward: Arc<PreparedForward>,
    /// Registers the upstream connection, and those in progress, by our side of each, so that they
    /// are recognised if they come back.
    opened: Vec<(Endpoint, Opened)>,
    /// Present until the target is connected.
    attempts: Option<Box<Attempts>>,
    /// The target is connected, and TLS is not agreed on yet.
    shakes_hands: bool,
}

/// The progress of connecting to the target.
struct Attempts {
    id: u64,
    /// The forwarders of this process that the connection has passed; None if it cannot come back.
    trail: Option<Arc<[ForwarderId]>>,
    /// The header that the target gets first.
    preface: Option<Vec<u8>>,
    /// Addresses not yet tried, the next one last.
    left: Vec<Address>,
    tried: Vec<Address>,
    /// Those of them whose failure is recorded.
    failed: Vec<Address>,
    until: Instant,
    /// Whether the resolver was queried again.
    asked: bool,
    /// The first error, which concerns the address that the system prefers.
    error: Option<String>,
}

impl ForwardSession {
    /// Tries the next address, or queries the resolver again, or gives up.
    fn connect_next(&mut self, io: &mut dyn Io) -> SessionResult {
        let Some(attempts) = &mut self.attempts else { return Ok(()) };
        let going_on = io.connecting();
        // First, because the port of a socket that was closed may be reused at once.
        self.opened.retain(|(local, _)| going_on.iter().any(|(ours, _)| ours == local));
        let rest = attempts.until.saturating_duration_since(Instant::now());
        if let Some(address) = attempts.left.pop().filter(|_| !rest.is_zero()) {
            attempts.tried.push(address.clone());
            // The last address has all the time that is left, as the others have had since their
            // turn.
            let share = match attempts.left.len() as u32 {
                0 => rest,
                left => STAGGER.min(rest / (left + 1)),
            };
            io.set_timer(TIMER, Some(share));
            let target = self.forward.endpoint(address);
            let opening = attempts.trail.as_ref().map(|trail| (trail, Opening::begin()));
            if going_on.is_empty() {
                io.connect(target.clone());
            } else {
                io.connect_too(target.clone());
            }
            if let (Some((trail, opening)), Some(local)) = (opening, io.local(Leg::Upstream)) {
                if !self.opened.iter().any(|(ours, _)| *ours == local) {
                    let opened = opening.done(local.clone(), target, trail, self.forward.id);
                    self.opened.push((local, opened));
                }
            }
            return Ok(());
        }
        if !going_on.is_empty() && !rest.is_zero() {
            return Ok(());
        }
        if self.forward.name.is_some() && !attempts.asked && !rest.is_zero() {
            attempts.asked = true;
            io.set_timer(TIMER, Some(rest));
            self.forward.ask(Some((attempts.id, io.waker())));
            return Ok(());
        }
        let error = attempts.error.take();
        Err(SessionError(error.unwrap_or_else(|| format!("{}: timed out", self.forward.shown))))
    }

    /// Records the failure of an address, and tries the next.
    fn failed(&mut self, io: &mut dyn Io, why: &str) -> SessionResult {
        let going_on = io.connecting();
        if let Some(attempts) = &mut self.attempts {
            let has_failed = |address: &&Address| {
                !going_on.iter().any(|(_, target)| target.address == **address)
                    && !attempts.failed.contains(address)
            };
            // The last one, if a time-out ends all that are left.
            let which = attempts.tried.iter().find(has_failed).or(attempts.tried.last());
            if let Some(address) = which.cloned() {
                let text = format!("connect {address}: {why}");
                attempts.error.get_or_insert(text);
                attempts.failed.push(address);
            }
        }
        self.connect_next(io)
    }
}

impl Session for ForwardSession {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        let trail = self.attempts.as_ref().and_then(|attempts| attempts.trail.as_ref());
        if trail.is_some_and(|trail| trail.contains(&self.forward.id)) {
            let text = format!("{}: a connection of its own came back to it", self.forward.shown);
            return Err(SessionError(text));
        }
        // No input is read before it can be sent.
        io.pause(Leg::Client);
        self.connect_next(io)
    }

    fn connected(
        &mut self,
        io: &mut dyn Io,
        result: std::result::Result<(), i32>,
    ) -> SessionResult {
        if let Err(errno) = result {
            let tried = self.attempts.as_mut().and_then(|attempts| attempts.tried.last());
            if errno == libc::EAGAIN && tried.is_some_and(|address| address.as_unix().is_some()) {
                io.set_timer(RETRY, Some(RETRY_AFTER));
                return Ok(());
            }
            if errno == libc::ELOOP {
                return Err(SessionError(forward_loops::too_many_hops(&self.forward.shown)));
            }
            return self.failed(io, &strerror(errno));
        }
        let attempts = self.attempts.take();
        let until = attempts.as_ref().map_or_else(Instant::now, |attempts| attempts.until);
        if let Some(preface) = attempts.and_then(|attempts| attempts.preface) {
            // In front of TLS.
            let taken = io.write(Leg::Upstream, &preface);
            debug_assert_eq!(taken, preface.len(), "an empty outbox takes it");
        }
        let own = io.local(Leg::Upstream);
        self.opened.retain(|(local, _)| own.as_ref() == Some(local));
        if let Some((tls, name)) = &self.forward.tls {
            self.shakes_hands = true;
            io.set_timer(TIMER, Some(until.saturating_duration_since(Instant::now())));
            io.put_stages(LegStages::new(Chain::new(vec![tls.stage(name.clone())])));
            return Ok(());
        }
        self.staged(io)
    }

    fn staged(&mut self, io: &mut dyn Io) -> SessionResult {
        self.shakes_hands = false;
        io.set_timer(TIMER, None);
        io.pipe(Leg::Client, Leg::Upstream);
        io.pipe(Leg::Upstream, Leg::Client);
        io.resume(Leg::Client);
        Ok(())
    }

    fn timer(&mut self, io: &mut dyn Io, key: u32) -> SessionResult {
        if self.shakes_hands {
            let text = format!("{}: the handshake of TLS timed out", self.forward.shown);
            return Err(SessionError(text));
        }
        if key == RETRY {
            let Some(attempts) = &mut self.attempts else { return Ok(()) };
            attempts.left.extend(attempts.tried.pop());
            return self.connect_next(io);
        }
        let left = self.attempts.as_ref().map_or(0, |attempts| attempts.left.len());
        if left > 0 && !io.connecting().is_empty() {
            // The attempts so far have not failed. The next address is tried beside them.
            return self.connect_next(io);
        }
        io.set_timer(RETRY, None);
        // The time-out of an address, or of the resolver, whose failure is never the first.
        self.failed(io, "timed out")
    }

    fn wake(&mut self, io: &mut dyn Io) -> SessionResult {
        let Some(attempts) = &mut self.attempts else { return Ok(()) };
        let (fresh, _) = self.forward.addresses();
        attempts.left = resolve::interleaved(&fresh)
            .iter()
            .rev()
            .filter(|address| !attempts.tried.contains(address))
            .cloned()
            .collect();
        self.connect_next(io)
    }

    fn drain(&mut self, _io: &mut dyn Io) -> SessionResult<Drain> {
        Ok(Drain::Answered)
    }

    fn closed(&mut self, _why: ClosedBy) {
        if let Some(attempts) = self.attempts.as_ref().filter(|attempts| attempts.asked) {
            self.forward.forget(attempts.id);
        }
    }
}
