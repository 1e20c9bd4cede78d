//! A forwarder whose target is resolved. Owns the addresses of the target, and the queries that
//! renew them; must never open a connection.
//!
//! A name is resolved when the server starts, and again when no address could be connected to. The
//! second time a separate thread does it, because a worker must not wait.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustls_pki_types::ServerName;

use crate::net::address::{Address, Endpoint, Target, Transport, resolve};
use crate::net::base::Mutex;
use crate::net::control::forward_loops;
use crate::net::ledger::ProxyHeader;
use crate::net::recording::Recorder;
use crate::net::service::{
    Datagrams, ForwarderId, Onward, Peer, Reply, SessionResult, Site, Waker,
};
use crate::net::stage::proxy_codec;
use crate::net::stage::tls::TlsClient;

/// Time for which an answer of the resolver is reused by all sessions that fail, so that an
/// unreachable target does not cause a flood of queries.
const FRESH: Duration = Duration::from_secs(1);

/// A forwarder whose target is resolved: the service of one server.
pub(super) struct PreparedForward {
    pub(super) shown: String,
    pub(super) recorder: Option<Arc<Recorder>>,
    /// The name to resolve again; None for an address.
    pub(super) name: Option<Target>,
    pub(super) connect_timeout: Duration,
    pub(super) proxy_protocol: Option<u8>,
    /// TLS of the target, with the name that its certificate must have.
    pub(super) tls: Option<(TlsClient, ServerName<'static>)>,
    pub(super) site: Site,
    pub(super) id: ForwarderId,
    pub(super) resolved: Mutex<Resolved>,
}

/// The last answer of the resolver.
pub(super) struct Resolved {
    addresses: Arc<[Address]>,
    /// Whether one of the addresses is this machine's, so that a connection may come back.
    ours: bool,
    answered: Instant,
    asking: bool,
    /// Sessions that wait for an answer, by the id of their connection.
    waiting: Vec<(u64, Waker)>,
}

impl Resolved {
    /// The first answer.
    pub(super) fn new(addresses: Vec<Address>) -> Self {
        Self {
            ours: addresses.iter().any(forward_loops::is_ours),
            addresses: addresses.into(),
            answered: Instant::now(),
            asking: false,
            waiting: Vec::new(),
        }
    }
}

impl PreparedForward {
    /// The target's addresses, and whether one of them is this machine's.
    pub(super) fn addresses(&self) -> (Arc<[Address]>, bool) {
        let resolved = self.resolved.lock();
        (Arc::clone(&resolved.addresses), resolved.ours)
    }

    /// The header that tells the target whose connection it gets, with what a proxy before us has
    /// told besides.
    pub(super) fn preface(&self, peer: &Peer) -> Option<Vec<u8>> {
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

    pub(super) fn endpoint(&self, address: Address) -> Endpoint {
        match (self.site.local.transport, address) {
            (Transport::Udp, Address::Ip(address)) => Endpoint::udp(address),
            (_, address) => Endpoint::stream(address),
        }
    }

    /// Starts a query to the resolver, and wakes the session `who`, if given, once there is a fresh
    /// answer.
    pub(super) fn ask(self: &Arc<Self>, who: Option<(u64, Waker)>) {
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
    pub(super) fn forget(&self, id: u64) {
        self.resolved.lock().waiting.retain(|&(waiting, _)| waiting != id);
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
