//! Time, RFC 868: sends the seconds since 1900 as 32 bits, then closes. Owns that number; must
//! never send more or fewer than four bytes.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::net::service::{Datagrams, Peer, Reply, Service, Session, SessionResult};
use crate::net::services::send_and_close::SendAndClose;

/// "2,208,988,800 corresponds to 00:00 1 Jan 1970 GMT."
const SECONDS_TO_1970: u64 = 2_208_988_800;

/// Sends the time as a number and closes; answers each datagram with it.
#[derive(PartialEq, Eq, Hash)]
pub struct Time;

/// "The number of seconds since 00:00 (midnight) 1 January 1900 GMT, such that the time 1 is
/// 12:00:01 am on 1 January 1900 GMT", most significant byte first.
///
/// "This base will serve until the year 2036": on 7 February of that year at 06:28:16 the 32 bits
/// overflow to 0, as the seconds of NTP do (RFC 5905, section 6).
#[must_use]
pub fn word(since_1970: Duration) -> [u8; 4] {
    ((since_1970.as_secs() + SECONDS_TO_1970) as u32).to_be_bytes()
}

fn now() -> [u8; 4] {
    // A clock before 1970 was never set: use 1970.
    word(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

impl Service for Time {
    fn name(&self) -> String {
        "Time()".to_owned()
    }

    fn open(&self, _peer: &Peer) -> Box<dyn Session> {
        Box::new(SendAndClose::new(now().into()))
    }

    fn datagrams(self: Arc<Self>) -> Option<Arc<dyn Datagrams>> {
        Some(self)
    }
}

/// "S: Receive the empty datagram. S: Send a datagram containing the time as a 32 bit binary
/// number."
impl Datagrams for Time {
    fn on_datagram(&self, _data: &[u8], _from: &Peer, reply: &mut dyn Reply) -> SessionResult {
        reply.send(&now());
        Ok(())
    }
}
