//! Forward: relays each client to one fixed target, in both directions. Owns the options, and the
//! checks of a target when a server starts; must never look at the bytes, which the engine moves,
//! nor let a client influence the target.
//!
//! `prepared.rs` has the forwarder of one server, whose target is resolved, `session.rs` the session
//! of one client. For datagrams it only returns the target: the engine opens a session for each
//! peer.

mod prepared;
mod session;

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;

use self::prepared::{PreparedForward, Resolved};
use self::session::ForwardSession;
use crate::net::address::{Address, Endpoint, Target, Transport, resolve};
use crate::net::base::{Mutex, Waiter};
use crate::net::control::{ServerHandle, forward_loops};
use crate::net::error::{Error, Result};
use crate::net::recording::{Plan, Recorder};
use crate::net::service::{
    Datagrams, ForwarderId, Onward, Peer, Reply, Service, Session, SessionResult, Site,
};
use crate::net::stage::tls::TlsClient;

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

impl Datagrams for Forward {
    fn on_datagram(&self, _data: &[u8], _from: &Peer, _reply: &mut dyn Reply) -> SessionResult {
        unreachable!("`prepare` returns the service to use")
    }

    fn prepare(&self, site: &Site, waiter: &mut dyn Waiter) -> Result<Option<Arc<dyn Datagrams>>> {
        Ok(Some(Arc::new(self.prepared(site, waiter)?)))
    }
}

impl Forward {
    /// The forwarder of a server that listens at `site`. Blocks while a name is resolved.
    /// An error if the target is not usable or leads back to the server.
    fn prepared(&self, site: &Site, waiter: &mut dyn Waiter) -> Result<Arc<PreparedForward>> {
        let transport = site.local.transport;
        self.check_transport(transport)?;
        let addresses = self.addresses(transport, waiter)?;
        let tls = self.verified_tls(&addresses)?;
        self.check_addresses(&addresses, site)?;
        // Last, so that an error before it leaves no file.
        let recorder = self.open_recorder(transport, &addresses)?;
        Ok(Arc::new(PreparedForward {
            shown: self.name(),
            recorder,
            name: self.name_to_resolve().cloned(),
            connect_timeout: self.connect_timeout,
            proxy_protocol: self.proxy_protocol,
            tls,
            site: site.clone(),
            id: ForwarderId::new(),
            resolved: Mutex::new(Resolved::new(addresses)),
        }))
    }

    /// The error that this forwarder cannot be used, and why.
    fn refusal(&self, why: &str) -> Error {
        Error::Value(format!("{}: {why}", self.name()))
    }

    /// Refuses clients of a transport whose data cannot be forwarded.
    fn check_transport(&self, transport: Transport) -> Result<()> {
        match (transport, self.proxy_protocol) {
            (Transport::UnixDatagram, _) => Err(self
                .refusal("it forwards streams, and datagrams of UDP; not those of a Unix socket")),
            (Transport::Udp, Some(version)) => Err(self
                .refusal(&format!("proxy_protocol='v{version}' is for streams, and UDP has none"))),
            _ => Ok(()),
        }
    }

    /// The addresses of the target. Blocks while a name is resolved.
    fn addresses(&self, transport: Transport, waiter: &mut dyn Waiter) -> Result<Vec<Address>> {
        match &self.to {
            To::Host(target) => resolve::addresses(target, false, None, waiter),
            To::Server(server) => Ok(vec![self.address_of(server, transport)?]),
        }
    }

    /// The address of a server of this process, which has to serve the same transport.
    fn address_of(&self, server: &ServerHandle, transport: Transport) -> Result<Address> {
        let address = server.reachable().ok_or_else(|| Error::State {
            asked: "start",
            state: format!("new, and Forward to the server {:?} needs its address", server.name()),
            hint: "start() that one first",
        })?;
        if (address.transport == Transport::Udp) != (transport == Transport::Udp) {
            return Err(self.refusal(&format!(
                "that server is reached by {}, and this one by {}",
                address.transport.name(),
                transport.name()
            )));
        }
        Ok(address.address)
    }

    /// TLS of the target, with the name that its certificate must have.
    fn verified_tls(
        &self,
        addresses: &[Address],
    ) -> Result<Option<(TlsClient, ServerName<'static>)>> {
        let Some(tls) = &self.tls else { return Ok(None) };
        let host = match &self.to {
            To::Host(target) => host_of(target).map(str::to_owned),
            To::Server(_) => {
                addresses.iter().find_map(Address::as_ip).map(|ip| ip.ip().to_string())
            }
        };
        Ok(Some((tls.clone(), tls.verified_name(host.as_deref())?)))
    }

    /// Refuses addresses that datagrams cannot be sent to, or that lead back to the server.
    fn check_addresses(&self, addresses: &[Address], site: &Site) -> Result<()> {
        let datagrams = site.local.transport == Transport::Udp;
        if datagrams && addresses.iter().any(|address| address.as_ip().is_none()) {
            return Err(
                self.refusal("a Unix socket is for streams; datagrams go to a host and a port")
            );
        }
        match addresses.iter().find(|address| forward_loops::leads_back(address, site)) {
            Some(back) => Err(self.refusal(&format!(
                "{back} leads back to this server, which listens on {}",
                site.local
            ))),
            None => Ok(()),
        }
    }

    /// Opens the file that the connections are recorded in.
    fn open_recorder(
        &self,
        transport: Transport,
        addresses: &[Address],
    ) -> Result<Option<Arc<Recorder>>> {
        let Some(plan) = &self.recording else { return Ok(None) };
        let target = match &self.to {
            To::Host(target) => target.to_string(),
            To::Server(_) => addresses[0].to_string(),
        };
        Ok(Some(Recorder::open(plan, transport, &target)?))
    }

    /// The target whose name is resolved again; None for an address.
    fn name_to_resolve(&self) -> Option<&Target> {
        match &self.to {
            To::Host(target) if target.known().is_none() => Some(target),
            _ => None,
        }
    }
}

impl Service for Arc<PreparedForward> {
    fn name(&self) -> String {
        self.shown.clone()
    }

    fn open(&self, peer: &Peer) -> Box<dyn Session> {
        Box::new(ForwardSession::new(self, peer))
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

/// The host that a certificate is verified for; None for a Unix socket.
fn host_of(target: &Target) -> Option<&str> {
    target.as_unix().is_none().then(|| target.host())
}
