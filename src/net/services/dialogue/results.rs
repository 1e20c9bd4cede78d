//! How the dialogues of a service went. Must never keep more of them than its limit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;

use crate::net::base::Mutex;

/// How many results are kept: as many as a ledger keeps records.
const MOST: usize = 10_000;
/// How many servers' results a service keeps.
const MOST_SERVERS: usize = 1_000;

/// How many of the last bytes of a dialogue are sent when its result is there.
const MOST_LAST: usize = 16 * 1024;

/// How the dialogue with one peer went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptResult {
    /// The connection's number.
    pub connection: u64,
    /// Whether the script was played to its end.
    pub done: bool,
    /// The number of the last step that was begun, from 1; 0 for none.
    pub step: usize,
    /// How many steps the script has.
    pub steps: usize,
    /// Why it was not played to its end.
    pub error: Option<String>,
    /// What expectations have captured.
    pub captures: Vec<(String, Vec<u8>)>,
    /// Bytes that came and that no step has used.
    pub unused: Vec<u8>,
    /// Where a dialogue is that goes on; None once it has ended.
    pub position: Option<String>,
}

/// A dialogue that goes on, as other threads see it.
pub(in crate::net::services) trait Ongoing: Send + Sync {
    /// How it has gone so far, with its position.
    fn result(&self) -> ScriptResult;
}

/// The results of all dialogues, the oldest first.
#[derive(Default)]
pub struct Results {
    ended: Mutex<VecDeque<ScriptResult>>,
    /// By the numbers of their connections.
    ongoing: Mutex<BTreeMap<u64, Arc<dyn Ongoing>>>,
}

impl Results {
    /// The results so far, of dialogues that have ended.
    #[must_use]
    pub fn get(&self) -> Vec<ScriptResult> {
        self.ended.lock().iter().cloned().collect()
    }

    /// The same, and how those go that have not.
    fn get_all(&self) -> Vec<ScriptResult> {
        // These first: one that ends meanwhile is among the others.
        let ongoing: Vec<_> = self.ongoing.lock().values().cloned().collect();
        let mut results = self.get();
        let has_ended: BTreeSet<_> = results.iter().map(|result| result.connection).collect();
        let going = ongoing.iter().map(|dialogue| dialogue.result());
        results.extend(going.filter(|result| !has_ended.contains(&result.connection)));
        results
    }

    /// Forgets the results so far.
    pub fn clear(&self) {
        self.ended.lock().clear();
    }

    pub(in crate::net) fn push(&self, result: ScriptResult) {
        let mut results = self.ended.lock();
        if results.len() == MOST {
            results.pop_front();
        }
        results.push_back(result);
    }

    /// Keeps a result in place of the last one of the same connection.
    pub(in crate::net::services) fn replace(&self, result: ScriptResult) {
        let mut results = self.ended.lock();
        let earlier = results.iter_mut().rev().find(|one| one.connection == result.connection);
        if let Some(earlier) = earlier {
            *earlier = result;
        }
    }

    /// Removes the last result of a connection.
    fn take_back(&self, connection: u64) {
        let mut results = self.ended.lock();
        let at = results.iter().rposition(|result| result.connection == connection);
        at.map(|at| results.remove(at));
    }
}

/// The entry of a dialogue: one that goes on until its result is kept, or this is dropped.
pub(in crate::net::services) struct Entry {
    results: Arc<Results>,
    connection: u64,
    dialogue: Arc<dyn Ongoing>,
    is_told: bool,
}

impl Entry {
    pub(in crate::net::services) fn new(
        results: &Arc<Results>,
        connection: u64,
        dialogue: Arc<dyn Ongoing>,
    ) -> Self {
        let entry = Self { results: Arc::clone(results), connection, dialogue, is_told: false };
        entry.show();
        entry
    }

    pub(in crate::net::services) fn connection(&self) -> u64 {
        self.connection
    }

    /// Whether the result is kept.
    pub(in crate::net::services) fn is_told(&self) -> bool {
        self.is_told
    }

    /// Keeps the result, which replaces an earlier one. It has to be there before the client gets
    /// the last bytes or the end.
    pub(in crate::net::services) fn tell(&mut self, result: ScriptResult) {
        if mem::replace(&mut self.is_told, true) {
            self.results.replace(result);
        } else {
            self.results.push(result);
        }
        self.hide();
    }

    /// Takes the result back: the dialogue goes on.
    pub(in crate::net::services) fn take_back(&mut self) {
        self.show();
        self.results.take_back(self.connection);
        self.is_told = false;
    }

    fn show(&self) {
        self.results.ongoing.lock().insert(self.connection, Arc::clone(&self.dialogue));
    }

    fn hide(&self) {
        let mut ongoing = self.results.ongoing.lock();
        // After a reset of the server another connection has the same number.
        let is_own = |found: &Arc<dyn Ongoing>| Arc::ptr_eq(found, &self.dialogue);
        if ongoing.get(&self.connection).is_some_and(is_own) {
            ongoing.remove(&self.connection);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.hide();
    }
}

/// How many of the last bytes of a dialogue to send now: those that the result has to precede are
/// sent apart, for they are most likely taken whole.
pub(in crate::net::services) fn ahead_of_last(size: usize) -> usize {
    if size > MOST_LAST { size - MOST_LAST } else { size }
}

/// The results of the last servers that were started with a service, by their numbers.
#[derive(Default)]
pub(in crate::net::services) struct OfServers(Mutex<VecDeque<(u64, Arc<Results>)>>);

impl OfServers {
    /// The results of a server that starts.
    pub(in crate::net::services) fn begin(&self, server: u64) -> Arc<Results> {
        let mut of_servers = self.0.lock();
        // The service may be several of a server's: `ByConnection`.
        if let Some((_, results)) = of_servers.iter().find(|(number, _)| *number == server) {
            return Arc::clone(results);
        }
        let results = Arc::default();
        if of_servers.len() == MOST_SERVERS {
            of_servers.pop_front();
        }
        of_servers.push_back((server, Arc::clone(&results)));
        results
    }

    /// The results of one server, and how those dialogues go that have not ended.
    pub(in crate::net::services) fn of(&self, server: u64) -> Vec<ScriptResult> {
        let of_servers = self.0.lock();
        let found = of_servers.iter().find(|(number, _)| *number == server);
        found.map_or_else(Vec::new, |(_, results)| results.get_all())
    }

    /// All results of dialogues that have ended, those of one server after those of another.
    pub(in crate::net::services) fn all(&self) -> Vec<ScriptResult> {
        self.0.lock().iter().flat_map(|(_, results)| results.get()).collect()
    }

    /// Forgets the results of one server so far.
    pub(in crate::net::services) fn clear_of(&self, server: u64) {
        let of_servers = self.0.lock();
        if let Some((_, results)) = of_servers.iter().find(|(number, _)| *number == server) {
            results.clear();
        }
    }

    /// Forgets the results so far.
    pub(in crate::net::services) fn clear(&self) {
        self.0.lock().iter().for_each(|(_, results)| results.clear());
    }
}
