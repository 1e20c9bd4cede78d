//! Daytime, RFC 867: sends the date with the time as readable text, then closes. Must never depend on
//! the time zone of the process, which any thread may change.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::net::base::{Date, date_of};
use crate::net::service::{Datagrams, Peer, Reply, Service, Session, SessionResult};
use crate::net::services::send_and_close::SendAndClose;

const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Sends the time in UTC and closes; answers each datagram with it.
#[derive(PartialEq, Eq, Hash)]
pub struct Daytime;

/// The time as text, in the first syntax of the RFC, "Weekday, Month Day, Year Time-Zone", in UTC
/// and with a final CR LF: `Monday, February 22, 1982 17:37:43-UTC`.
#[must_use]
pub fn text(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let days = seconds / 86_400;
    let Date { year, month, day } = date_of(days);
    let month = MONTHS[usize::from(month) - 1];
    // 1 January 1970 was a Thursday.
    let weekday = WEEKDAYS[(days as usize + 3) % 7];
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{weekday}, {month} {day}, {year} {hour:02}:{minute:02}:{second:02}-UTC\r\n")
}

fn now() -> String {
    // A clock before 1970 was never set: use 1970.
    text(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

impl Service for Daytime {
    fn name(&self) -> String {
        "Daytime()".to_owned()
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(SendAndClose::new(now().into_bytes().into()))
    }

    fn datagrams(self: Arc<Self>) -> Option<Arc<dyn Datagrams>> {
        Some(self)
    }
}

/// "When a datagram is received, an answering datagram is sent containing the current date and time
/// as a ASCII character string (the data in the received datagram is ignored)."
impl Datagrams for Daytime {
    fn on_datagram(&self, _data: &[u8], _from: &Peer, reply: &mut dyn Reply) -> SessionResult {
        reply.send(now().as_bytes());
        Ok(())
    }
}
