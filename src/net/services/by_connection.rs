//! ByConnection: selects a service for each connection by its number, so that a test defines what
//! the first and later attempts get. Must never count by itself: it uses the engine's number, which
//! is also in the ledger.

use std::sync::Arc;

use crate::net::address::Endpoint;
use crate::net::base::Waiter;
use crate::net::error::Result;
use crate::net::service::{Peer, Service, Session, Site};

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

    fn all(&self) -> impl Iterator<Item = &Arc<dyn Service>> {
        self.first.iter().chain(&self.rest)
    }
}

impl Service for ByConnection {
    fn name(&self) -> String {
        let rest = self.rest.iter().map(|rest| format!("rest={}", rest.name()));
        let names: Vec<_> = self.first.iter().map(|service| service.name()).chain(rest).collect();
        format!("ByConnection({})", names.join(", "))
    }

    fn open(&self, peer: &Peer) -> Box<dyn Session> {
        let index = usize::try_from(peer.id).unwrap_or(usize::MAX).saturating_sub(1);
        let service = self.first.get(index).or(self.rest.as_ref()).or(self.first.last());
        service.expect("`new` requires a service").open(peer)
    }

    fn prepare(&self, site: &Site, waiter: &mut dyn Waiter) -> Result<Option<Arc<dyn Service>>> {
        let mut prepared = |service: &Arc<dyn Service>| -> Result<Arc<dyn Service>> {
            Ok(service.prepare(site, waiter)?.unwrap_or_else(|| Arc::clone(service)))
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

    fn leads_to(&self) -> Vec<Endpoint> {
        self.all().flat_map(|service| service.leads_to()).collect()
    }
}
