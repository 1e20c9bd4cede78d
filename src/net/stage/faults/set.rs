//! The faults of one server, which can be changed while it serves. Owns their numbers, and which of
//! them a connection has; must never wait for the threads that serve the connections.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::fault::Fault;
use super::fault_stage::FaultStage;
use super::installed::{Installed, Subject};
use super::kind::Accepting;
use crate::net::base::{EventFd, Mutex};
use crate::net::ledger::Record;
use crate::net::stage::chain::Chain;
use crate::net::stage::stage::StageResult;

/// Confirms a change of the set once the last copy is dropped.
#[derive(Clone)]
pub struct Ack {
    flag: Arc<SetOnDrop>,
}

struct SetOnDrop(Option<Arc<EventFd>>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        if let Some(flag) = &self.0 {
            flag.set();
        }
    }
}

impl Ack {
    /// A confirmation that sets `flag`, where there is one.
    #[must_use]
    pub fn new(flag: Option<Arc<EventFd>>) -> Self {
        Self { flag: Arc::new(SetOnDrop(flag)) }
    }

    /// What tells the caller of a change, who has no copy, whether one is left.
    #[must_use]
    pub fn pending(&self) -> Pending {
        Pending(Arc::downgrade(&self.flag))
    }
}

/// A change that threads have yet to confirm.
pub struct Pending(Weak<SetOnDrop>);

impl Pending {
    /// Whether every thread has confirmed the change, or has ended. The flag may tell that later.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// A thread that has connections, or a listener.
pub trait FaultListener: Send + Sync {
    /// The set has changed: the thread has its connections updated, then drops `ack`. Never blocks.
    fn faults_changed(&self, ack: Ack);

    /// Whether the thread is not woken, because the program has closed its event flag.
    fn is_lost(&self) -> bool {
        false
    }
}

/// The faults of one server.
pub struct FaultSet {
    seed: u64,
    high_water: usize,
    installed: Mutex<Vec<Arc<Installed>>>,
    added: AtomicU64,
    /// There are faults, or were some: connections have to be looked at.
    is_used: AtomicBool,
    listeners: Mutex<Vec<Weak<dyn FaultListener>>>,
}

impl FaultSet {
    /// A set without faults. `high_water` is that of its connections.
    #[must_use]
    pub fn new(seed: u64, high_water: usize) -> Self {
        Self {
            seed,
            high_water,
            installed: Mutex::new(Vec::new()),
            added: AtomicU64::new(0),
            is_used: AtomicBool::new(false),
            listeners: Mutex::new(Vec::new()),
        }
    }

    /// The seed of all draws.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Adds a fault, for connections that are looked at from now on. `accepted` is how many there
    /// were so far.
    pub fn add(&self, fault: Fault, accepted: u64) -> Arc<Installed> {
        let mut installed = self.installed.lock();
        let id = self.added.fetch_add(1, Relaxed);
        let added = Arc::new(Installed { id, fault, accepted });
        installed.push(Arc::clone(&added));
        self.is_used.store(true, SeqCst);
        added
    }

    /// Removes a fault by its number. Returns whether it was there.
    pub fn remove(&self, id: u64) -> bool {
        let mut installed = self.installed.lock();
        let before = installed.len();
        installed.retain(|one| one.id != id);
        installed.len() < before
    }

    /// The faults, in the order in which they were added.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Installed>> {
        self.installed.lock().clone()
    }

    /// What the last fault of accepting does to the listener.
    #[must_use]
    pub fn accepting(&self) -> Option<(Arc<Installed>, Accepting)> {
        if !self.is_used() {
            return None;
        }
        let installed = self.installed.lock();
        let found = |one: &Arc<Installed>| Some((Arc::clone(one), one.fault.kind.accepting()?));
        installed.iter().rev().find_map(found)
    }

    /// Whether the set has, or had, a fault.
    pub(crate) fn is_used(&self) -> bool {
        self.is_used.load(SeqCst)
    }

    /// Registers a thread that has to know of changes.
    pub(crate) fn listen(&self, listener: Weak<dyn FaultListener>) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|one| one.strong_count() > 0);
        listeners.push(listener);
    }

    /// Tells every thread that the set has changed. Returns at once; `ack` is dropped by the last
    /// one. False if a thread cannot be woken.
    pub(crate) fn announce(&self, ack: &Ack) -> bool {
        let listeners = self.listeners.lock().clone();
        let mut all_woken = true;
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            listener.faults_changed(ack.clone());
            all_woken &= !listener.is_lost();
        }
        all_woken
    }

    /// Whether a connection would have the stage of a fault.
    pub(crate) fn concerns(&self, connection: u64) -> bool {
        let concerns = |one: &Arc<Installed>| {
            one.fault.kind.accepting().is_none() && one.concerns(connection, self.seed)
        };
        self.is_used() && self.list().iter().any(concerns)
    }

    /// Takes the faults that were removed out of a chain. What they hold goes on.
    pub(crate) fn remove_old(&self, chain: &mut Chain, now: Instant) -> StageResult {
        let installed = self.list();
        let there: Vec<u64> = chain.faults().collect();
        for &id in there.iter().filter(|&&id| installed.iter().all(|one| one.id != id)) {
            chain.remove_fault(now, id)?;
        }
        Ok(())
    }

    /// Gives a chain the faults that its connection has now: what a removed one holds goes on, and
    /// added ones come next to the session.
    pub(crate) fn update(&self, chain: &mut Chain, record: &Record, now: Instant) -> StageResult {
        let subject = Subject {
            connection: record.id(),
            role: record.role(),
            opened: record.opened(),
            datagrams: record.transport().is_datagram(),
            high_water: self.high_water,
        };
        self.update_of(chain, &subject, now)
    }

    /// The same for a connection without a record.
    pub fn update_of(&self, chain: &mut Chain, subject: &Subject, now: Instant) -> StageResult {
        self.remove_old(chain, now)?;
        let there: Vec<u64> = chain.faults().collect();
        for one in self.list().iter().filter(|one| !there.contains(&one.id)) {
            // A fault that begins to act may end the connection at once.
            if !chain.takes_stages() || !one.concerns(subject.connection, self.seed) {
                continue;
            }
            if let Some(stage) = FaultStage::new(one, subject, self.seed) {
                one.fault.label.count_connection();
                chain.push(now, Box::new(stage))?;
            }
        }
        Ok(())
    }
}
