//! The faults of one server or client, which can be changed while data flows. Owns their numbers, and
//! which of them a connection has; must never change a connection itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::fault_stage::FaultStage;
use super::installed::{Installed, Subject};
use super::kind::Accepting;
use crate::net::base::{EventFd, Mutex, Origin, Waiter, pause, wait_for_own};
use crate::net::error::{Error, Result};
use crate::net::ledger::Record;
use crate::net::stage::chain::Chain;
use crate::net::stage::stage::StageResult;

/// How often a call without an event flag looks whether the threads have confirmed a change.
const NO_FLAG: Duration = Duration::from_millis(10);

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

/// What has faults, as a caller changes them.
pub trait FaultHost: Sync {
    /// Adds a fault. Blocks until every connection has it, and the listener, if there is one. After
    /// an error, also an interruption of the wait, the fault is not there.
    fn add_fault(&self, fault: Fault, waiter: &mut dyn Waiter) -> Result<Arc<Installed>>;

    /// Removes faults by their numbers. Blocks until no connection has them. They are not there
    /// after an interruption of the wait either.
    fn remove_faults(&self, ids: &[u64], waiter: &mut dyn Waiter) -> Result<()>;

    /// How many open connections a fault would concern that it cannot reach, with the name of what
    /// has them; None for none.
    fn unreached(&self, _fault: &Fault) -> Result<Option<(usize, &str)>> {
        Ok(None)
    }

    /// Whether it belongs to the calling process.
    fn is_here(&self) -> bool;
}

/// What has a set, beside the threads that are told of its changes.
pub trait SetOwner {
    /// The set has changed, and the threads are not told yet.
    fn changed(&self) -> Result<()> {
        Ok(())
    }

    /// The threads were told. Wakes those that wait inside another call than a poll. Blocks for as
    /// long as they need to notice.
    fn announced(&self, _waiter: &mut dyn Waiter) -> Result<()> {
        Ok(())
    }

    /// A thread cannot be woken: the program has closed its event flag.
    fn lose(&self);
}

/// The faults of one server, or of the connection of one client.
pub struct FaultSet {
    seed: u64,
    high_water: usize,
    /// The number of its only connection; None for those of their records.
    number: Option<u64>,
    installed: Mutex<Vec<Arc<Installed>>>,
    added: AtomicU64,
    /// There are faults, or were some: connections have to be looked at.
    is_used: AtomicBool,
    /// The same of faults that need a stage in their connections.
    needs_stages: AtomicBool,
    listeners: Mutex<Vec<Weak<dyn FaultListener>>>,
}

impl FaultSet {
    /// A set without faults. `high_water` is that of its connections.
    #[must_use]
    pub fn new(seed: u64, high_water: usize) -> Self {
        Self {
            seed,
            high_water,
            number: None,
            installed: Mutex::new(Vec::new()),
            added: AtomicU64::new(0),
            is_used: AtomicBool::new(false),
            needs_stages: AtomicBool::new(false),
            listeners: Mutex::new(Vec::new()),
        }
    }

    /// A set for the connection of one client, whose number for the draws is 1: that of its record
    /// depends on the clients before it.
    #[must_use]
    pub fn of_client(seed: u64, high_water: usize) -> Self {
        Self { number: Some(1), ..Self::new(seed, high_water) }
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
        let accepted = AtomicU64::new(accepted);
        let added = Arc::new(Installed { id, fault, accepted });
        installed.push(Arc::clone(&added));
        if added.fault.kind.accepting().is_none() {
            self.needs_stages.store(true, SeqCst);
        }
        self.is_used.store(true, SeqCst);
        added
    }

    /// Has the faults begin again: the connections are numbered from 1 from now on.
    pub(crate) fn restart(&self) {
        for one in self.list() {
            one.accepted.store(0, Relaxed);
            one.fault.label.restart();
        }
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

    /// Whether the set has no fault now.
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_used() || self.installed.lock().is_empty()
    }

    /// Whether the set has, or had, a fault.
    pub(crate) fn is_used(&self) -> bool {
        self.is_used.load(SeqCst)
    }

    /// Whether the set has, or had, a fault that needs a stage in its connections.
    pub(crate) fn needs_stages(&self) -> bool {
        self.needs_stages.load(SeqCst)
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

    /// Tells every thread of a change, and waits until each has confirmed it or has ended.
    pub(crate) fn announce_and_wait(
        &self,
        owner: &dyn SetOwner,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        let origin = Origin::here();
        // Without a descriptor for a flag the change is made all the same.
        let flag = EventFd::new().ok().map(Arc::new);
        let ack = Ack::new(flag.clone());
        let pending = ack.pending();
        if !self.announce(&ack) {
            owner.lose();
        }
        drop(ack);
        // Behind the announcement: a thread that does not wait yet finds that first.
        owner.announced(waiter)?;
        while !pending.is_over() {
            let waited = match flag.as_ref().filter(|flag| !flag.is_lost()) {
                Some(flag) => wait_for_own(waiter, &mut [flag.polled()], None),
                None => pause(waiter, NO_FLAG, None),
            };
            // A signal handler may have forked.
            origin.check()?;
            match (waited, &flag) {
                // The program has closed it.
                (Err(Error::Os { errno: libc::EBADF, .. }), Some(flag)) => flag.lose(),
                (waited, _) => drop(waited?),
            }
        }
        Ok(())
    }

    /// Adds a fault, and waits as `announce_and_wait` does. After an error, also an interruption of
    /// the wait, the set does not have it.
    pub(crate) fn add_and_wait(
        &self,
        fault: Fault,
        accepted: u64,
        owner: &dyn SetOwner,
        waiter: &mut dyn Waiter,
    ) -> Result<Arc<Installed>> {
        let origin = Origin::here();
        let added = self.add(fault, accepted);
        let told = owner.changed().and_then(|()| self.announce_and_wait(owner, waiter));
        if told.is_err() && origin.is_here() {
            self.remove(added.id);
            let _ = owner.changed();
            // Each thread hears of both changes in their order.
            self.announce(&Ack::new(None));
        }
        told.map(|()| added)
    }

    /// Removes faults by their numbers, and waits as `announce_and_wait` does. The set has them no
    /// more after an interruption of the wait either.
    pub(crate) fn remove_and_wait(
        &self,
        ids: &[u64],
        owner: &dyn SetOwner,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        for &id in ids {
            self.remove(id);
        }
        let changed = owner.changed();
        self.announce_and_wait(owner, waiter).and(changed)
    }

    /// Whether a connection would have the stage of a fault.
    pub(crate) fn concerns(&self, connection: u64) -> bool {
        let connection = self.number.unwrap_or(connection);
        let concerns = |one: &Arc<Installed>| {
            one.fault.kind.accepting().is_none() && one.concerns(connection, self.seed)
        };
        self.is_used() && self.list().iter().any(concerns)
    }

    /// Takes the faults that were removed out of a chain. What they hold goes on.
    pub(crate) fn remove_old(&self, chain: &mut Chain, now: Instant) -> StageResult {
        Self::remove_all_but(&self.list(), chain, now)
    }

    fn remove_all_but(
        installed: &[Arc<Installed>],
        chain: &mut Chain,
        now: Instant,
    ) -> StageResult {
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
            connection: self.number.unwrap_or_else(|| record.id()),
            role: record.role(),
            opened: record.opened(),
            datagrams: record.transport().is_datagram(),
            high_water: self.high_water,
        };
        self.update_of(chain, &subject, now)
    }

    /// The same for a connection without a record.
    pub fn update_of(&self, chain: &mut Chain, subject: &Subject, now: Instant) -> StageResult {
        // One look, so that both steps see the same faults.
        let installed = self.list();
        Self::remove_all_but(&installed, chain, now)?;
        let there: Vec<u64> = chain.faults().collect();
        for one in installed.iter().filter(|one| !there.contains(&one.id)) {
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
