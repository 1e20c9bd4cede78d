//! Forward: what a client sends goes on to one fixed target, and what comes back to the client. Owns
//! the choice among a target's addresses and the time a connection may take; must never look at the
//! bytes, which the engine moves, nor let a client have a say in where they go.
//!
//! Of datagrams it only says where they go: the engine opens a session for each peer.
//!
//! A name is resolved when the server starts, and again when none of its addresses could be
//! connected to: by a thread of its own, for a worker must not wait.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::net::address::{Address, Endpoint, Target, Transport, resolve};
use crate::net::base::{Mutex, Waiter};
use crate::net::control::{Opened, Opening, ServerHandle, forward_loops};
use crate::net::error::{Error, Result, strerror};
use crate::net::ledger::ClosedBy;
use crate::net::service::{
    Datagrams, Drain, ForwarderId, Io, Leg, Onward, Peer, Reply, Service, Session, SessionError,
    SessionResult, Site, Waker,
};

/// An answer of the resolver is good for all who fail within this time: a target that is down must
/// not become a flood of questions.
const FRESH: Duration = Duration::from_secs(1);
/// How long one address, or the resolver, is waited for.
const TIMER: u32 = 0;
/// When a Unix socket whose queue is full is tried again: no event tells when it is not any more.
const RETRY: u32 = 1;
const RETRY_AFTER: Duration = Duration::from_millis(20);

/// Where a forwarder leads to.
#[derive(Clone, Debug)]
pub enum To {
    /// A host, by name or number, and a port; or a Unix socket's name.
    Host(Target),
    /// A server of this process, wherever it is when the forwarder starts.
    Server(ServerHandle),
}

/// Passes each connection on to a target.
#[derive(Clone, Debug)]
pub struct Forward {
    to: To,
    connect_timeout: Duration,
}

impl Forward {
    /// A forwarder that gives up on a target after `connect_timeout`, all its addresses together.
    /// `Error::Value` for a target that can never be connected to.
    pub fn new(to: To, connect_timeout: Duration) -> Result<Self> {
        match &to {
            To::Host(target) if target.port() == 0 && target.as_unix().is_none() => {
                Err(Error::Value(format!(
                    "Forward to {target}: nobody can be reached on port 0; name the target's port"
                )))
            }
            // Longer than a clock can count is for ever, or near enough.
            _ => Ok(Self {
                to,
                connect_timeout: connect_timeout.min(Duration::from_secs(86_400 * 365)),
            }),
        }
    }
}

impl Service for Forward {
    fn name(&self) -> String {
        match &self.to {
            To::Host(target) => match target.as_unix() {
                Some(name) => format!("Forward(path='{name}')"),
                None => format!("Forward('{}', {})", target.host(), target.port()),
            },
            To::Server(server) => format!("Forward(<Server {}>)", server.name()),
        }
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        unreachable!("what `prepare` returns serves in its place")
    }

    fn prepare(&self, site: &Site, waiter: &mut dyn Waiter) -> Result<Option<Arc<dyn Service>>> {
        Ok(Some(Arc::new(Passing(self.route(site, waiter)?))))
    }

    fn datagrams(self: Arc<Self>) -> Option<Arc<dyn Datagrams>> {
        Some(self)
    }
}

impl Datagrams for Forward {
    fn on_datagram(&self, _data: &[u8], _from: &Peer, _reply: &mut dyn Reply) -> SessionResult {
        unreachable!("what `prepare` returns serves in its place")
    }

    fn prepare(&self, site: &Site, waiter: &mut dyn Waiter) -> Result<Option<Arc<dyn Datagrams>>> {
        Ok(Some(Arc::new(Passing(self.route(site, waiter)?))))
    }
}

impl Forward {
    /// The way of a server at `site` to the target, where there is one.
    fn route(&self, site: &Site, waiter: &mut dyn Waiter) -> Result<Arc<Route>> {
        let datagrams = site.local.transport == Transport::Udp;
        let (name, addresses) = match &self.to {
            To::Host(target) => {
                let found = resolve::addresses(target, false, None, waiter)?;
                (target.known().is_none().then(|| target.clone()), found)
            }
            To::Server(server) => {
                let address = server.address().ok_or_else(|| Error::State {
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
                (None, vec![forward_loops::reached(address.address)])
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
        Ok(Arc::new(Route {
            shown: self.name(),
            name,
            connect_timeout: self.connect_timeout,
            site: site.clone(),
            hop: ForwarderId::new(),
            known: Mutex::new(Known {
                ours: addresses.iter().any(forward_loops::is_ours),
                addresses: addresses.into(),
                answered: Instant::now(),
                asking: false,
                waiting: Vec::new(),
            }),
        }))
    }
}

/// One server's way to its target.
struct Route {
    shown: String,
    /// What can be resolved again; None for a number.
    name: Option<Target>,
    connect_timeout: Duration,
    site: Site,
    hop: ForwarderId,
    known: Mutex<Known>,
}

/// What the resolver has said.
struct Known {
    addresses: Arc<[Address]>,
    /// Whether one of them is this machine's, so that what is opened might come back.
    ours: bool,
    answered: Instant,
    asking: bool,
    /// Sessions that wait for the answer, by the numbers of their connections.
    waiting: Vec<(u64, Waker)>,
}

impl Route {
    fn addresses(&self) -> (Arc<[Address]>, bool) {
        let known = self.known.lock();
        (Arc::clone(&known.addresses), known.ours)
    }

    fn endpoint(&self, address: Address) -> Endpoint {
        match (self.site.local.transport, address) {
            (Transport::Udp, Address::Ip(address)) => Endpoint::udp(address),
            (_, address) => Endpoint::stream(address),
        }
    }

    /// Has the resolver asked, and the one who waits, if any, woken when there is a fresh answer.
    fn ask(self: &Arc<Self>, who: Option<(u64, Waker)>) {
        let Some(name) = &self.name else { return };
        let mut known = self.known.lock();
        if !known.asking && known.answered.elapsed() < FRESH {
            drop(known);
            if let Some((_, waker)) = who {
                waker.wake();
            }
            return;
        }
        known.waiting.extend(who);
        if std::mem::replace(&mut known.asking, true) {
            return;
        }
        drop(known);
        let route = Arc::downgrade(self);
        let asked = resolve::ask(name, false, move |answer| Self::answered(&route, answer.ok()));
        if asked.is_err() {
            // No thread is to be had: what was known has to do.
            self.learn(None);
        }
    }

    fn answered(route: &Weak<Self>, answer: Option<Vec<Address>>) {
        if let Some(route) = route.upgrade() {
            route.learn(answer);
        }
    }

    fn learn(&self, answer: Option<Vec<Address>>) {
        let good = answer.map(|mut found| {
            found.retain(|address| !forward_loops::leads_back(address, &self.site));
            let ours = found.iter().any(forward_loops::is_ours);
            (found, ours)
        });
        let mut known = self.known.lock();
        known.asking = false;
        known.answered = Instant::now();
        if let Some((found, ours)) = good.filter(|(found, _)| !found.is_empty()) {
            known.addresses = found.into();
            known.ours = ours;
        }
        let waiting = std::mem::take(&mut known.waiting);
        drop(known);
        waiting.iter().for_each(|(_, waker)| waker.wake());
    }

    /// A session that has ended waits for nothing.
    fn forget(&self, id: u64) {
        self.known.lock().waiting.retain(|&(waiting, _)| waiting != id);
    }
}

/// Serves by a route.
struct Passing(Arc<Route>);

impl Service for Passing {
    fn name(&self) -> String {
        self.0.shown.clone()
    }

    fn open(&self, peer: &Peer) -> Box<dyn Session> {
        let (addresses, ours) = self.0.addresses();
        let dial = Dial {
            id: peer.id,
            trail: ours.then(|| forward_loops::trail(peer.local.clone(), peer.remote.clone())),
            left: addresses.iter().rev().cloned().collect(),
            tried: Vec::new(),
            until: Instant::now() + self.0.connect_timeout,
            asked: false,
            error: None,
        };
        Box::new(Passage { route: Arc::clone(&self.0), opened: None, dial: Some(Box::new(dial)) })
    }

    fn legs(&self) -> usize {
        2
    }

    fn pipes(&self) -> bool {
        true
    }

    fn leads_to(&self) -> Vec<Endpoint> {
        self.0.leads_to()
    }
}

impl Datagrams for Passing {
    fn on_datagram(&self, _data: &[u8], _from: &Peer, _reply: &mut dyn Reply) -> SessionResult {
        unreachable!("the engine passes datagrams on by `onward`")
    }

    fn onward(&self) -> Option<Arc<dyn Onward>> {
        Some(Arc::clone(&self.0) as Arc<dyn Onward>)
    }
}

impl Onward for Route {
    fn target(&self) -> Endpoint {
        self.endpoint(self.known.lock().addresses[0].clone())
    }

    fn leads_to(&self) -> Vec<Endpoint> {
        self.addresses().0.iter().map(|address| self.endpoint(address.clone())).collect()
    }

    fn hop(&self) -> ForwarderId {
        self.hop
    }

    fn refused(self: Arc<Self>, target: Endpoint) {
        let mut known = self.known.lock();
        if known.addresses[0] == target.address {
            // It has its turn again after the others.
            let mut addresses = known.addresses.to_vec();
            addresses.rotate_left(1);
            known.addresses = addresses.into();
        }
        drop(known);
        self.ask(None);
    }
}

/// One connection on its way through.
struct Passage {
    route: Arc<Route>,
    /// So that it is known where it comes back.
    opened: Option<Opened>,
    /// Until the target is reached.
    dial: Option<Box<Dial>>,
}

/// How far the search for the target has come.
struct Dial {
    id: u64,
    /// The forwarders of this process that it has come through; None where it does not matter.
    trail: Option<Arc<[ForwarderId]>>,
    /// Addresses still to be tried, the next one last.
    left: Vec<Address>,
    tried: Vec<Address>,
    until: Instant,
    /// The resolver has been asked again.
    asked: bool,
    /// The first failure: that of the address which the system put first.
    error: Option<String>,
}

impl Passage {
    /// Tries the next address, or gives up.
    fn dial(&mut self, io: &mut dyn Io) -> SessionResult {
        let Some(dial) = &mut self.dial else { return Ok(()) };
        // Forgotten first: the number of its socket's port may be given out again at once.
        self.opened = None;
        let rest = dial.until.saturating_duration_since(Instant::now());
        if let Some(address) = dial.left.pop().filter(|_| !rest.is_zero()) {
            // Of the time that is left, its share: an address that does not answer must not use up
            // that of the others.
            let share = rest / (dial.left.len() as u32 + 1);
            dial.tried.push(address.clone());
            io.set_timer(TIMER, Some(share));
            let target = self.route.endpoint(address);
            let opening = dial.trail.as_ref().map(|trail| (trail, Opening::begin()));
            io.connect(target.clone());
            if let (Some((trail, opening)), Some(local)) = (opening, io.local(Leg::Upstream)) {
                self.opened = Some(opening.done(local, target, trail, self.route.hop));
            }
            return Ok(());
        }
        if self.route.name.is_some() && !dial.asked && !rest.is_zero() {
            dial.asked = true;
            io.set_timer(TIMER, Some(rest));
            self.route.ask(Some((dial.id, io.waker())));
            return Ok(());
        }
        let error = dial.error.take();
        Err(SessionError(error.unwrap_or_else(|| format!("{}: timed out", self.route.shown))))
    }

    /// The address that was being tried is none.
    fn failed(&mut self, io: &mut dyn Io, why: &str) -> SessionResult {
        if let Some(dial) = &mut self.dial {
            if let (None, Some(address)) = (&dial.error, dial.tried.last()) {
                dial.error = Some(format!("connect {address}: {why}"));
            }
        }
        self.dial(io)
    }
}

impl Session for Passage {
    fn open(&mut self, io: &mut dyn Io) -> SessionResult {
        let trail = self.dial.as_ref().and_then(|dial| dial.trail.as_ref());
        if trail.is_some_and(|trail| trail.contains(&self.route.hop)) {
            let text = format!("{}: a connection of its own came back to it", self.route.shown);
            return Err(SessionError(text));
        }
        // Nothing is read before there is somewhere to send it.
        io.pause(Leg::Client);
        self.dial(io)
    }

    fn connected(
        &mut self,
        io: &mut dyn Io,
        result: std::result::Result<(), i32>,
    ) -> SessionResult {
        if let Err(errno) = result {
            let tried = self.dial.as_mut().and_then(|dial| dial.tried.last());
            if errno == libc::EAGAIN && tried.is_some_and(|address| address.as_unix().is_some()) {
                io.set_timer(RETRY, Some(RETRY_AFTER));
                return Ok(());
            }
            return self.failed(io, &strerror(errno));
        }
        self.dial = None;
        io.set_timer(TIMER, None);
        io.pipe(Leg::Client, Leg::Upstream);
        io.pipe(Leg::Upstream, Leg::Client);
        io.resume(Leg::Client);
        Ok(())
    }

    fn timer(&mut self, io: &mut dyn Io, key: u32) -> SessionResult {
        if key == RETRY {
            let Some(dial) = &mut self.dial else { return Ok(()) };
            dial.left.extend(dial.tried.pop());
            return self.dial(io);
        }
        io.set_timer(RETRY, None);
        // Of an address, or of the resolver, whose failure is not the first.
        self.failed(io, "timed out")
    }

    fn wake(&mut self, io: &mut dyn Io) -> SessionResult {
        let Some(dial) = &mut self.dial else { return Ok(()) };
        let (fresh, _) = self.route.addresses();
        dial.left =
            fresh.iter().rev().filter(|address| !dial.tried.contains(address)).cloned().collect();
        self.dial(io)
    }

    fn drain(&mut self, _io: &mut dyn Io) -> SessionResult<Drain> {
        Ok(Drain::Answered)
    }

    fn closed(&mut self, _why: ClosedBy) {
        if let Some(dial) = self.dial.as_ref().filter(|dial| dial.asked) {
            self.route.forget(dial.id);
        }
    }
}
