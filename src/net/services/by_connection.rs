//! ByConnection: selects a service for each connection by its number, so that a test defines what
//! the first and later attempts get. Must never count by itself: it uses the engine's number, which
//! is also in the ledger.

use std::sync::Arc;

use crate::net::address::Endpoint;
use crate::net::base::Waiter;
use crate::net::error::Result;
use crate::net::recording::Recorder;
use crate::net::service::{Null, Peer, Service, Session, Shape, Site};

/// The place of a handler among the services: its connections are handed out, and never served
/// here.
struct HandlerPlace(String);

impl Service for HandlerPlace {
    fn name(&self) -> String {
        self.0.clone()
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(Null)
    }
}

/// What serves a connection.
pub enum Choice {
    /// A service, on a worker.
    Service(Arc<dyn Service>),
    /// A handler, with its name as users write it.
    Handler(String),
}

/// Serves the n-th connection with the n-th service.
pub struct ByConnection {
    first: Vec<Arc<dyn Service>>,
    /// The service of all later connections; None repeats the last of `first`.
    rest: Option<Arc<dyn Service>>,
}

impl ByConnection {
    /// None if no service is given.
    #[must_use]
    pub fn new(first: Vec<Arc<dyn Service>>, rest: Option<Arc<dyn Service>>) -> Option<Self> {
        (!first.is_empty() || rest.is_some()).then_some(Self { first, rest })
    }

    /// The shape of a server that serves the n-th connection with the n-th choice, and all later
    /// ones with `rest`, or with the last of `first`. None without a choice.
    #[must_use]
    pub fn shape(first: Vec<Choice>, rest: Option<Choice>) -> Option<Shape> {
        let is_handler = |choice: &Choice| matches!(choice, Choice::Handler(_));
        let handed_out: Vec<bool> = first.iter().map(is_handler).collect();
        let later = rest.as_ref().map(is_handler).or(handed_out.last().copied())?;
        let service = |choice| match choice {
            Choice::Service(service) => service,
            Choice::Handler(name) => Arc::new(HandlerPlace(name)) as Arc<dyn Service>,
        };
        let any = later || handed_out.contains(&true);
        let made = Self::new(first.into_iter().map(service).collect(), rest.map(service))?;
        let made: Arc<dyn Service> = Arc::new(made);
        if !any {
            return Some(Shape::Stream(made));
        }
        let is_handed_out = move |id: u64| handed_out.get(index_of(id)).copied().unwrap_or(later);
        Some(Shape::Mixed(made, Arc::new(is_handed_out)))
    }

    fn service_of(&self, connection: u64) -> &Arc<dyn Service> {
        let own = self.first.get(index_of(connection));
        own.or(self.rest.as_ref()).or(self.first.last()).expect("`new` requires a service")
    }

    fn all(&self) -> impl Iterator<Item = &Arc<dyn Service>> {
        self.first.iter().chain(&self.rest)
    }
}

/// The place among the services of the connection with a number, from 1.
fn index_of(id: u64) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX).saturating_sub(1)
}

impl Service for ByConnection {
    fn name(&self) -> String {
        let rest = self.rest.iter().map(|rest| format!("rest={}", rest.name()));
        let names: Vec<_> = self.first.iter().map(|service| service.name()).chain(rest).collect();
        format!("ByConnection({})", names.join(", "))
    }

    fn open(&self, peer: &Peer) -> Box<dyn Session> {
        self.service_of(peer.id).open(peer)
    }

    fn prepare(&self, site: &Site, waiter: &mut dyn Waiter) -> Result<Option<Arc<dyn Service>>> {
        // A service that is given twice is prepared once: it may open a file.
        let mut done: Vec<(Arc<dyn Service>, Arc<dyn Service>)> = Vec::new();
        let mut prepared = |service: &Arc<dyn Service>| -> Result<Arc<dyn Service>> {
            if let Some((_, own)) = done.iter().find(|(given, _)| Arc::ptr_eq(given, service)) {
                return Ok(Arc::clone(own));
            }
            let own = service.prepare(site, waiter)?.unwrap_or_else(|| Arc::clone(service));
            done.push((Arc::clone(service), Arc::clone(&own)));
            Ok(own)
        };
        let first = self.first.iter().map(&mut prepared).collect::<Result<_>>()?;
        let rest = self.rest.as_ref().map(&mut prepared).transpose()?;
        Ok(Some(Arc::new(Self { first, rest })))
    }

    fn legs(&self) -> usize {
        self.all().map(|service| service.legs()).max().unwrap_or(1)
    }

    fn pipes(&self) -> bool {
        self.all().any(|service| service.pipes())
    }

    fn recorder(&self, connection: u64) -> Option<Arc<Recorder>> {
        self.service_of(connection).recorder(connection)
    }

    fn recorders(&self) -> Vec<Arc<Recorder>> {
        let mut found: Vec<Arc<Recorder>> = Vec::new();
        for recorder in self.all().flat_map(|service| service.recorders()) {
            if !found.iter().any(|one| Arc::ptr_eq(one, &recorder)) {
                found.push(recorder);
            }
        }
        found
    }

    fn leads_to(&self) -> Vec<Endpoint> {
        self.all().flat_map(|service| service.leads_to()).collect()
    }
}
