//! Script: a service that plays one side of a dialogue, step by step, and tells where the peer
//! diverges from it. Must never go on behind a divergence.
//!
//! `program.rs` has the steps, `text.rs` their text form, `expectation.rs` what a step waits for,
//! `session.rs` the dialogue with one peer, `results.rs` how each of them went.

mod expectation;
mod mismatch;
mod program;
mod results;
mod session;
mod text;

use std::collections::VecDeque;
use std::sync::Arc;

pub use self::program::Program;
pub use self::results::{Results, ScriptResult};
use self::session::Dialogue;
use crate::net::base::{Mutex, Waiter};
use crate::net::error::Result;
use crate::net::service::{Peer, Service, Session, Site};

/// Plays a script with each client.
pub struct Script {
    program: Arc<Program>,
    results: Arc<Results>,
    /// The results of the last servers that were started with this script, by their numbers.
    of_servers: Mutex<VecDeque<(u64, Arc<Results>)>>,
}

/// How many servers' results a script keeps.
const MOST_SERVERS: usize = 1_000;

impl Script {
    /// A script in its text form. `Error::Value` names the line that is wrong.
    pub fn new(text: &str) -> Result<Self> {
        Ok(Self::of(&Arc::new(Program::parse(text)?), &Arc::default()))
    }

    /// The script's steps.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    fn of(program: &Arc<Program>, results: &Arc<Results>) -> Self {
        let (program, results) = (Arc::clone(program), Arc::clone(results));
        Self { program, results, of_servers: Mutex::default() }
    }

    /// How the dialogues with the clients of one server went, by the server's number.
    #[must_use]
    pub fn results_of(&self, server: u64) -> Vec<ScriptResult> {
        let of_servers = self.of_servers.lock();
        let found = of_servers.iter().find(|(number, _)| *number == server);
        found.map_or_else(Vec::new, |(_, results)| results.get())
    }

    /// How all dialogues went, those of one server after those of another.
    #[must_use]
    pub fn results(&self) -> Vec<ScriptResult> {
        self.of_servers.lock().iter().flat_map(|(_, results)| results.get()).collect()
    }

    /// Forgets the results so far.
    pub fn clear(&self) {
        self.of_servers.lock().iter().for_each(|(_, results)| results.clear());
    }
}

impl Service for Script {
    fn name(&self) -> String {
        match self.program.count() {
            0 => "Script()".to_owned(),
            1 => "Script(1 step)".to_owned(),
            count => format!("Script({count} steps)"),
        }
    }

    fn prepare(&self, site: &Site, _waiter: &mut dyn Waiter) -> Result<Option<Arc<dyn Service>>> {
        let results = Arc::default();
        let mut of_servers = self.of_servers.lock();
        if of_servers.len() == MOST_SERVERS {
            of_servers.pop_front();
        }
        of_servers.push_back((site.server, Arc::clone(&results)));
        Ok(Some(Arc::new(Self::of(&self.program, &results))))
    }

    fn open(&self, peer: &Peer) -> Box<dyn Session> {
        Box::new(Dialogue::new(&self.program, &self.results, peer.id))
    }
}
