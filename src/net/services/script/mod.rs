//! Script: a service that plays one side of a dialogue, step by step, and tells where the peer
//! diverges from it. Must never go on behind a divergence.
//!
//! `program.rs` has the steps, `text.rs` their text form, whose lines `words.rs` reads;
//! `expectation.rs` what a step waits for (`header.rs` a frame, `pattern.rs` a match), `choice.rs`
//! several at once, `verdict.rs` what they say of the input; `session.rs` the dialogue with one
//! peer, `cursor.rs` where it is, `position.rs` how other threads see that.

mod choice;
mod cursor;
mod expectation;
mod header;
mod mismatch;
mod pattern;
mod position;
mod program;
mod session;
mod text;
mod verdict;
mod words;

use std::sync::Arc;

pub use self::program::Program;
use self::session::Dialogue;
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};
use crate::net::service::{Peer, Service, Session, Site};
use crate::net::services::dialogue::{OfServers, Results, ScriptResult};
use crate::net::stage::tls::TlsServer;

/// Plays a script with each client.
pub struct Script {
    program: Arc<Program>,
    /// For its steps that begin TLS.
    tls: Option<Arc<TlsServer>>,
    results: Arc<Results>,
    of_servers: OfServers,
}

impl Script {
    /// A script in its text form. `Error::Value` names the line that is wrong.
    pub fn new(text: &str) -> Result<Self> {
        Self::longer(text, &[], None)
    }

    /// As `new`, but patterns that `parts` have too are not compiled again. A script of many steps
    /// is built step by step. `tls` is for steps that begin TLS, without which they are an error.
    pub fn longer(text: &str, parts: &[&Program], tls: Option<Arc<TlsServer>>) -> Result<Self> {
        let program = Program::parse(text, parts)?;
        if let (Some(line), None) = (program.tls_line, &tls) {
            return Err(Error::Value(format!(
                "script, line {line}: start_tls needs a certificate: Script(…, tls=TLS(cert, key))"
            )));
        }
        Ok(Self::of(&Arc::new(program), tls.as_ref(), &Arc::default()))
    }

    /// The script's steps.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    fn of(program: &Arc<Program>, tls: Option<&Arc<TlsServer>>, results: &Arc<Results>) -> Self {
        let (program, results) = (Arc::clone(program), Arc::clone(results));
        Self { program, tls: tls.map(Arc::clone), results, of_servers: OfServers::default() }
    }

    /// How the dialogues with the clients of one server went, by the server's number.
    #[must_use]
    pub fn results_of(&self, server: u64) -> Vec<ScriptResult> {
        self.of_servers.of(server)
    }

    /// How all dialogues went, those of one server after those of another.
    #[must_use]
    pub fn results(&self) -> Vec<ScriptResult> {
        self.of_servers.all()
    }

    /// Forgets the results of one server so far, by the server's number.
    pub fn clear_of(&self, server: u64) {
        self.of_servers.clear_of(server);
    }

    /// Forgets the results so far.
    pub fn clear(&self) {
        self.of_servers.clear();
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
        let results = self.of_servers.begin(site.server);
        Ok(Some(Arc::new(Self::of(&self.program, self.tls.as_ref(), &results))))
    }

    fn open(&self, peer: &Peer) -> Box<dyn Session> {
        Box::new(Dialogue::new(&self.program, self.tls.as_ref(), &self.results, peer.id))
    }
}
