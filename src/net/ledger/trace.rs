//! The trace of a connection's traffic, event by event. Must never exceed its limits: the oldest
//! data is dropped first, then the oldest events.

use std::collections::VecDeque;
use std::time::Duration;

use crate::net::base::Mutex;

/// Limits of one connection's trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceLimits {
    /// Bytes of data.
    pub bytes: usize,
    /// Number of events, at least one.
    pub events: usize,
}

/// The direction of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Received from the peer.
    In,
    /// Sent to the peer.
    Out,
}

/// One receive or send that carried data.
#[derive(Clone, Debug)]
pub struct Event {
    /// The event's number in the connection, from 1.
    pub number: u64,
    /// Time since the connection was opened.
    pub after: Duration,
    /// The direction.
    pub direction: Direction,
    /// Number of bytes it carried.
    pub size: usize,
    /// The bytes that are kept, from the first on.
    pub data: Box<[u8]>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    /// Total size of the events' data.
    bytes: usize,
    /// Number of events at the front whose data was dropped.
    bare: usize,
    seen: u64,
}

/// The trace of one connection.
#[derive(Debug)]
pub(crate) struct Trace {
    limits: TraceLimits,
    kept: Mutex<Kept>,
}

impl Trace {
    pub(crate) fn new(limits: TraceLimits) -> Self {
        Self { limits, kept: Mutex::default() }
    }

    /// Records an event of `size` bytes, which are the first ones of `parts`.
    pub(crate) fn note<'a>(
        &self,
        after: Duration,
        direction: Direction,
        size: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) {
        let room = size.min(self.limits.bytes);
        let mut data = Vec::with_capacity(room);
        for part in parts {
            data.extend_from_slice(&part[..part.len().min(room - data.len())]);
        }
        let mut kept = self.kept.lock();
        let kept = &mut *kept;
        kept.seen += 1;
        if kept.events.len() >= self.limits.events {
            if let Some(oldest) = kept.events.pop_front() {
                kept.bytes -= oldest.data.len();
                kept.bare = kept.bare.saturating_sub(1);
            }
        }
        while kept.bytes + data.len() > self.limits.bytes {
            let oldest = std::mem::take(&mut kept.events[kept.bare].data);
            kept.bytes -= oldest.len();
            kept.bare += 1;
        }
        kept.bytes += data.len();
        let data = data.into_boxed_slice();
        kept.events.push_back(Event { number: kept.seen, after, direction, size, data });
    }

    /// The events kept, oldest first.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.kept.lock().events.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(limits: TraceLimits, sizes: &[usize]) -> Vec<(u64, usize, usize)> {
        let trace = Trace::new(limits);
        for &size in sizes {
            trace.note(Duration::ZERO, Direction::In, size, [vec![7; size].as_slice()]);
            let kept = trace.kept.lock();
            assert!(kept.events.len() <= limits.events);
            assert!(kept.bytes <= limits.bytes);
            assert_eq!(kept.bytes, kept.events.iter().map(|event| event.data.len()).sum::<usize>());
        }
        trace.events().iter().map(|event| (event.number, event.size, event.data.len())).collect()
    }

    #[test]
    fn the_oldest_data_is_dropped_before_its_event() {
        let limits = TraceLimits { bytes: 10, events: 3 };
        assert_eq!(noted(limits, &[4, 4]), [(1, 4, 4), (2, 4, 4)]);
        assert_eq!(noted(limits, &[4, 4, 4]), [(1, 4, 0), (2, 4, 4), (3, 4, 4)]);
        assert_eq!(noted(limits, &[4, 4, 4, 3]), [(2, 4, 0), (3, 4, 4), (4, 3, 3)]);
        assert_eq!(noted(limits, &[4, 25]), [(1, 4, 0), (2, 25, 10)]);
        assert_eq!(noted(limits, &[1, 1, 1, 1, 25, 2]), [(4, 1, 0), (5, 25, 0), (6, 2, 2)]);
    }

    #[test]
    fn a_limit_of_no_bytes_holds() {
        assert_eq!(noted(TraceLimits { bytes: 0, events: 1 }, &[5, 6]), [(2, 6, 0)]);
    }

    #[test]
    fn data_in_several_parts_is_one_event() {
        let trace = Trace::new(TraceLimits { bytes: 5, events: 1 });
        trace.note(Duration::ZERO, Direction::Out, 7, [&b"abc"[..], b"", b"defg", b"not sent"]);
        let [event] = &trace.events()[..] else { panic!("one event") };
        assert_eq!((event.size, &*event.data), (7, &b"abcde"[..]));
    }
}
