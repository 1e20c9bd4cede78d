//! How the dialogues of a script went. Must never keep more of them than its limit.

use std::collections::VecDeque;

use crate::net::base::Mutex;

/// How many results are kept: as many as a ledger keeps records.
const MOST: usize = 10_000;

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

    pub(super) fn push(&self, result: ScriptResult) {
        let mut results = self.0.lock();
        if results.len() == MOST {
            results.pop_front();
        }
        results.push_back(result);
    }
}
