//! Replay: a service that plays the server's side of a recording, and tells where a client diverges
//! from it. Must never go on behind a divergence.
//!
//! `plan.rs` has the events of one connection as they are played, `player.rs` plays those of a
//! stream, `exchange.rs` those of datagrams; `session.rs` and `datagrams.rs` connect them with the
//! engine, and `position.rs` shows a dialogue to other threads. A client's side (`load/replay_client.rs`) is played by the same two.

mod datagrams;
mod exchange;
mod mismatch;
mod plan;
mod player;
mod position;
mod session;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use regex::bytes::Regex;

use self::datagrams::ReplayDatagrams;
pub use self::exchange::Exchange;
pub use self::plan::{Chunks, Plan, Playing, Side};
pub use self::player::{Next, Player};
use self::session::{Dialogue, Unrecorded};
use crate::net::base::{Mutex, Waiter};
use crate::net::error::{Error, Result};
use crate::net::recording::Recording;
use crate::net::service::{Datagrams, Peer, Service, Session, Site};
use crate::net::services::dialogue::{OfServers, Results, ScriptResult};

/// Which connection of the recording a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// The n-th client gets the n-th one.
    InOrder,
    /// The same, from the first one on again after the last.
    Repeat,
    /// Each client gets this one.
    Only(u64),
}

/// A recording as it is played.
struct Recorded {
    file: String,
    is_datagram: bool,
    plans: Vec<Arc<Plan>>,
    playing: Arc<Playing>,
    choice: Choice,
}

impl Recorded {
    /// The plan for the client with a number, from 1; or the report that there is none.
    fn plan(&self, number: u64) -> std::result::Result<Arc<Plan>, String> {
        let count = self.plans.len() as u64;
        let at = |index: u64| usize::try_from(index).ok().and_then(|index| self.plans.get(index));
        let plan = match self.choice {
            Choice::Only(connection) => {
                self.plans.iter().find(|plan| plan.connection() == connection)
            }
            Choice::Repeat if count > 0 => at((number - 1) % count),
            Choice::InOrder | Choice::Repeat => at(number - 1),
        };
        plan.cloned().ok_or_else(|| {
            format!(
                "connection {number}: {} has {} and no more",
                self.file,
                counted(self.plans.len(), "connection")
            )
        })
    }
}

/// The error for the number of a connection that is not in a recording.
fn no_connection(argument: &str, number: u64, path: &Path, plans: &[Arc<Plan>]) -> String {
    let path = path.display();
    let has = match plans {
        [] => "no connection".to_owned(),
        [only] => format!("connection {} only", only.connection()),
        [first, .., last] => format!("those from {} to {}", first.connection(), last.connection()),
    };
    format!("{argument} {number}: not in {path}, which has {has}")
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Plays the server's side of a recording with each client.
pub struct Replay {
    recorded: Arc<Recorded>,
    of_servers: OfServers,
    /// Those of datagrams that are not told to be over.
    open: Mutex<Vec<(u64, Arc<ReplayDatagrams>)>>,
}

impl Replay {
    /// Plays a recording that was read from `path`. `Error::Value` if the arguments do not fit it,
    /// or if one of the connections that it plays was recorded outside its TLS.
    pub fn new(
        path: &Path,
        recording: &Recording,
        choice: Choice,
        ignored: &[Regex],
        playing: &Arc<Playing>,
    ) -> Result<Self> {
        let plans = Plan::all(path, recording, Side::Server, ignored, playing)?;
        if let Choice::Only(connection) = choice {
            if !plans.iter().any(|plan| plan.connection() == connection) {
                return Err(Error::Value(no_connection("connections", connection, path, &plans)));
            }
        }
        let is_played = |plan: &&Arc<Plan>| match choice {
            Choice::Only(connection) => plan.connection() == connection,
            Choice::InOrder | Choice::Repeat => true,
        };
        plans.iter().filter(is_played).try_for_each(|plan| plan.check_clear())?;
        let recorded = Recorded {
            file: path.display().to_string(),
            is_datagram: recording.transport.is_datagram(),
            plans,
            playing: Arc::clone(playing),
            choice,
        };
        Ok(Self {
            recorded: Arc::new(recorded),
            of_servers: OfServers::default(),
            open: Mutex::default(),
        })
    }

    /// How many connections the recording has.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.recorded.plans.len()
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

    /// Forgets the results of one server so far, by the server's number. Its next peer of datagrams
    /// has the first dialogue of the recording.
    pub fn clear_of(&self, server: u64) {
        let open = self.open.lock();
        for (_, replay) in open.iter().filter(|(number, _)| *number == server) {
            replay.restart();
        }
        drop(open);
        self.of_servers.clear_of(server);
    }

    /// Forgets the results so far.
    pub fn clear(&self) {
        self.of_servers.clear();
    }

    /// A server has ended. Datagrams have no end, so that dialogues that are not over end here.
    pub fn end(&self, server: u64) {
        let mut open = self.open.lock();
        let (ended, others) = std::mem::take(&mut *open)
            .into_iter()
            .partition::<Vec<_>, _>(|(number, _)| *number == server);
        *open = others;
        drop(open);
        ended.iter().for_each(|(_, replay)| replay.end());
    }

    /// An error if the recording is of another kind of transport than the server.
    fn check(&self, site: &Site) -> Result<()> {
        let kind = |is_datagram| if is_datagram { "datagrams" } else { "streams" };
        let is_datagram = site.local.transport.is_datagram();
        if is_datagram == self.recorded.is_datagram {
            return Ok(());
        }
        Err(Error::Value(format!(
            "{}: a recording of {}, and the server's transport is {}",
            self.recorded.file,
            kind(self.recorded.is_datagram),
            site.local.transport.name()
        )))
    }
}

impl Service for Replay {
    fn name(&self) -> String {
        format!("Replay('{}')", self.recorded.file)
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        unreachable!("`prepare` returns the service to use")
    }

    fn prepare(&self, site: &Site, _waiter: &mut dyn Waiter) -> Result<Option<Arc<dyn Service>>> {
        self.check(site)?;
        let results = self.of_servers.begin(site.server);
        Ok(Some(Arc::new(PreparedReplay { recorded: Arc::clone(&self.recorded), results })))
    }

    fn datagrams(self: Arc<Self>) -> Option<Arc<dyn Datagrams>> {
        Some(self)
    }
}

impl Datagrams for Replay {
    fn on_datagram(
        &self,
        _data: &[u8],
        _from: &Peer,
        _reply: &mut dyn crate::net::service::Reply,
    ) -> crate::net::service::SessionResult {
        unreachable!("`prepare` returns the service to use")
    }

    fn prepare(&self, site: &Site, _waiter: &mut dyn Waiter) -> Result<Option<Arc<dyn Datagrams>>> {
        self.check(site)?;
        let results = self.of_servers.begin(site.server);
        let replay = Arc::new(ReplayDatagrams::new(&self.recorded, &results));
        self.open.lock().push((site.server, Arc::clone(&replay)));
        Ok(Some(replay))
    }
}

/// The replay of one server.
struct PreparedReplay {
    recorded: Arc<Recorded>,
    results: Arc<Results>,
}

impl Service for PreparedReplay {
    fn name(&self) -> String {
        format!("Replay('{}')", self.recorded.file)
    }

    fn open(&self, peer: &Peer) -> Box<dyn Session> {
        let playing = &self.recorded.playing;
        match self.recorded.plan(peer.id) {
            Ok(plan) => {
                let player = Player::new(&plan, playing, Some(peer.id), Instant::now());
                Box::new(Dialogue::new(player, &self.results, playing.timeout))
            }
            Err(report) => Box::new(Unrecorded {
                connection: peer.id,
                report,
                results: Arc::clone(&self.results),
            }),
        }
    }
}
