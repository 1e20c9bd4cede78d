//! Faults: what is done to traffic on purpose. Owns the list of their kinds; must never name a
//! socket, a poller or a thread.
//!
//! `kind.rs` has the traits of a fault, `fault.rs` a fault with the connections that it concerns,
//! `set.rs` those of one server, and `fault_stage.rs` the stage that puts one into a chain. Each
//! other file is one kind.

mod accepting;
mod after;
mod backlog;
mod bandwidth;
mod blackhole;
mod close;
mod corrupt;
mod draws;
mod drop;
mod duplicate;
mod fault;
mod fault_stage;
mod garbage;
mod installed;
mod kind;
mod label;
mod latency;
mod paced;
mod pacer;
mod params;
mod rate;
mod reorder;
mod reset;
mod set;
mod slice;
mod slow_close;
mod slow_reader;
mod truncate;

pub use self::draws::Draws;
pub use self::fault::{Connections, Fault, Scope, Window};
pub use self::installed::{Installed, Subject};
pub use self::kind::{Accepting, Kind, Lane, LaneFlow, LaneSite};
pub use self::label::Label;
pub use self::params::{Params, Value};
use self::rate::Rate;
pub use self::set::{Ack, FaultHost, FaultListener, FaultSet, Pending, SetOwner};
use std::time::{Duration, Instant};

use crate::net::error::{Error, Result};

/// Longer than any connection lasts, and short enough for every clock.
const FAR_AWAY: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The time that comes `after` another one.
fn later(at: Instant, after: Duration) -> Instant {
    at + after.min(FAR_AWAY)
}

/// Makes a kind of fault from its parameters.
type Make = fn(&Params) -> Result<Box<dyn Kind>>;

/// The kinds of faults, by their names in text. A new kind is a file and a line here.
const KINDS: &[(&str, Make)] = &[
    ("acceptdelay", accepting::delay),
    ("bandwidth", bandwidth::make),
    ("blackhole", blackhole::make),
    ("close", close::make),
    ("corrupt", corrupt::make),
    ("drop", drop::make),
    ("duplicate", duplicate::make),
    ("full", accepting::full),
    ("garbage", garbage::make),
    ("latency", latency::make),
    ("neveraccept", accepting::never),
    ("refuse", accepting::refuse),
    ("reorder", reorder::make),
    ("reset", reset::make),
    ("slice", slice::make),
    ("slowclose", slow_close::make),
    ("slowreader", slow_reader::make),
    ("truncate", truncate::make),
];

/// The name of a kind as the engine keeps it, with what makes one.
fn find(name: &str) -> Result<(&'static str, Make)> {
    KINDS
        .iter()
        .find(|(known, _)| *known == name)
        .copied()
        .ok_or_else(|| Error::Value(format!("fault {name:?}: no such kind")))
}
