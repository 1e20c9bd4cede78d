//! Daytime, RFC 867: sends the date with the time as readable text, then closes. Owns the calendar
//! computation; must never depend on the time zone of the process, which any thread may change.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::net::service::{Datagrams, Peer, Reply, Service, Session, SessionResult};
use crate::net::services::send_and_close::SendAndClose;

const WEEKDAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [(&str, u64); 12] = [
    ("January", 31),
    ("February", 28),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
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
    let (year, day_of_year) = year_of(days);
    let (month, day) = month_of(day_of_year, is_leap(year));
    // 1 January 1970 was a Thursday.
    let weekday = WEEKDAYS[(days as usize + 3) % 7];
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{weekday}, {month} {day}, {year} {hour:02}:{minute:02}:{second:02}-UTC\r\n")
}

fn is_leap(year: u64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// The year of a day since 1970, and the day's index in that year, from 0.
fn year_of(mut day: u64) -> (u64, u64) {
    // The calendar repeats every 400 years; skipping whole cycles bounds the loop for any clock.
    const CYCLE: u64 = 146_097;
    let mut year = 1970 + 400 * (day / CYCLE);
    day %= CYCLE;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if day < length {
            return (year, day);
        }
        day -= length;
        year += 1;
    }
}

/// The month of a day of the year, and the day's number in that month, from 1.
fn month_of(mut day: u64, leap: bool) -> (&'static str, u64) {
    for (index, (name, length)) in MONTHS.into_iter().enumerate() {
        let length = length + u64::from(leap && index == 1);
        if day < length {
            return (name, day + 1);
        }
        day -= length;
    }
    unreachable!("a year has no more days than its months");
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
