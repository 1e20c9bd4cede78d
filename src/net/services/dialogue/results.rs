//! How the dialogues of a service went. Must never keep more of them than its limit.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::net::base::Mutex;

/// How many results are kept: as many as a ledger keeps records.
const MOST: usize = 10_000;
/// How many servers' results a service keeps.
const MOST_SERVERS: usize = 1_000;

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
}

/// The results of all dialogues, the oldest first.
#[derive(Debug, Default)]
pub struct Results(Mutex<VecDeque<ScriptResult>>);

impl Results {
    /// The results so far.
    #[must_use]
    pub fn get(&self) -> Vec<ScriptResult> {
        self.0.lock().iter().cloned().collect()
    }

    /// Forgets the results so far.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    pub(in crate::net) fn push(&self, result: ScriptResult) {
        let mut results = self.0.lock();
        if results.len() == MOST {
            results.pop_front();
        }
        results.push_back(result);
    }

    /// Keeps a result in place of the last one of the same connection.
    pub(in crate::net::services) fn replace(&self, result: ScriptResult) {
        let mut results = self.0.lock();
        let earlier = results.iter_mut().rev().find(|one| one.connection == result.connection);
        if let Some(earlier) = earlier {
            *earlier = result;
        }
    }
}

impl Results {
    /// Removes the last result of a connection.
    pub(in crate::net::services) fn take_back(&self, connection: u64) {
        let mut results = self.0.lock();
        let at = results.iter().rposition(|result| result.connection == connection);
        at.map(|at| results.remove(at));
    }
}

/// The results of the last servers that were started with a service, by their numbers.
#[derive(Debug, Default)]
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

    /// The results of one server.
    pub(in crate::net::services) fn of(&self, server: u64) -> Vec<ScriptResult> {
        let of_servers = self.0.lock();
        let found = of_servers.iter().find(|(number, _)| *number == server);
        found.map_or_else(Vec::new, |(_, results)| results.get())
    }

    /// All results, those of one server after those of another.
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
