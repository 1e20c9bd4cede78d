//! A fault with what it concerns: which way, which connections, when. Owns these choices; must
//! never act on traffic itself.

use std::collections::BTreeSet;
use std::time::Duration;

use super::find;
use super::kind::Kind;
use super::label::Label;
use super::params::Params;
use crate::net::address::Transport;
use crate::net::error::{Error, Result};
use crate::net::ledger::Way;

/// The connections that a fault concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connections {
    /// All of them.
    All,
    /// The first ones that are accepted after the fault was added.
    First(u64),
    /// These, by their numbers in the server.
    Numbered(BTreeSet<u64>),
}

/// When a fault acts, in time since the start of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The beginning.
    pub from: Duration,
    /// The end; None for no end.
    pub to: Option<Duration>,
}

/// What a fault concerns.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Whether it acts from the client to the server.
    pub up: bool,
    /// Whether it acts from the server to the client.
    pub down: bool,
    /// How likely it concerns a connection that it could concern.
    pub probability: f64,
    /// The connections that it could concern.
    pub connections: Connections,
    /// When it acts; None for the whole time.
    pub window: Option<Window>,
}

/// A fault with what it concerns.
#[derive(Debug)]
pub struct Fault {
    /// Its names, with its counters.
    pub label: Label,
    /// What it does.
    pub kind: Box<dyn Kind>,
    /// What it concerns.
    pub scope: Scope,
}

impl Fault {
    /// A fault of the kind `name`. An error names the parameter that is wrong.
    pub fn new(name: &str, params: &Params, scope: Scope, text: &str) -> Result<Self> {
        let (name, make) = find(name)?;
        Ok(Self { label: Label::new(name, text), kind: make(params)?, scope })
    }

    /// Refuses a transport on which the fault can do nothing.
    pub fn check(&self, transport: Transport) -> Result<()> {
        let (fits, kind) = if transport.is_datagram() {
            (self.kind.fits_datagrams(), "datagrams")
        } else {
            (self.kind.fits_streams(), "streams")
        };
        let text = || format!("{}: not a fault of {kind}, and the server's are", self.label.text);
        if fits { Ok(()) } else { Err(Error::Value(text())) }
    }

    pub(super) fn concerns(&self, way: Way) -> bool {
        match way {
            Way::Up => self.scope.up,
            Way::Down => self.scope.down,
        }
    }
}
