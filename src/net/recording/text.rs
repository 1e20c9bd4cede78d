//! A whole recording as text. Must never write what the reader would refuse.

use std::time::Duration;

use super::line::{push_event, push_header, push_open, push_stop};
use super::recording::{Event, RecordedConnection, Recording};

/// What a line between the header and the stop line shows.
enum Shown<'a> {
    Open(&'a RecordedConnection),
    Event(u64, &'a Event),
}

/// The part of a time that is written.
fn written(at: Duration) -> u128 {
    at.as_micros()
}

impl Recording {
    /// The recording as a file, in the order of time. A time is written to the microsecond, and
    /// that of an event which is earlier than the event before it stays.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines: Vec<(Duration, Shown<'_>)> = Vec::new();
        let mut connections: Vec<_> = self.connections.iter().collect();
        connections.sort_by_key(|connection| written(connection.at));
        for connection in connections {
            let mut latest = connection.at;
            lines.push((latest, Shown::Open(connection)));
            for event in &connection.events {
                latest = latest.max(event.at);
                lines.push((latest, Shown::Event(connection.number, event)));
            }
        }
        // Stable: of one connection, the events stay in order.
        lines.sort_by_key(|&(at, _)| written(at));
        let mut text = String::new();
        push_header(&mut text, self.transport, self.started, &self.target);
        for (_, line) in lines {
            match line {
                Shown::Open(RecordedConnection { number, at, client, local, .. }) => {
                    let local = local.as_ref().map(|local| &local.address);
                    push_open(&mut text, *number, *at, &client.address, local);
                }
                Shown::Event(number, event) => push_event(&mut text, number, event),
            }
        }
        if let Some(at) = self.stopped {
            push_stop(&mut text, at);
        }
        text
    }
}
