//! Recordings: what crossed the connections of a server, both ways, with times, in a text file. Must
//! never know a socket, nor the stage that records.
//!
//! ```text
//! rsock recording 1
//! transport tcp
//! started 2026-11-28T09:05:00.000001Z
//! target 127.0.0.1:6379
//! 1 0.000000 open 127.0.0.1:53422 127.0.0.1:40000
//! 1 0.000123 > b"AUTH " any b"[redacted]" b"\r\n"
//! 1 0.000345 < b"+OK\r\n"
//! 1 0.100000 > end
//! 1 0.100100 < end
//! stop 2.000000
//! ```
//!
//! `recording.rs` has what a recording contains, `line.rs` the form of one line, `reader.rs` reads a
//! file, `timeline.rs` reads one without keeping it, `text.rs` writes a recording that is there as a
//! whole. `recorder.rs` takes what crosses
//! connections, `writer.rs` writes it, `lane.rs` holds what may have to be redacted by a rule of
//! `redaction.rs`.

mod content;
mod entry;
mod lane;
mod line;
mod numbers;
mod reader;
mod recorder;
mod recording;
mod redaction;
mod text;
mod timeline;
mod writer;

pub use self::content::{Content, Piece};
pub use self::entry::Plan;
pub use self::recorder::{Recorder, Track};
pub use self::recording::{Direction, Event, RecordedConnection, Recording, Torn, What};
pub use self::redaction::{REDACTED, Redaction};
pub use self::timeline::{Moment, Timeline};
