//! The trace of a connection's traffic, event by event. Must never exceed its limits: the oldest
//! data is dropped first, then the oldest events.

use std::collections::VecDeque;
use std::time::Duration;

use super::fault_event::FaultEvent;
use crate::net::address::Endpoint;
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

/// What an event was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A receive or a send that carried data.
    Data(Direction),
    /// A fault has done something.
    Fault(Box<FaultEvent>),
    /// Something on the leg to the target of a forwarder.
    Far(FarEvent),
}

/// What an event of the far leg was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FarEvent {
    /// A receive or a send that carried data; the peer is the target.
    Data(Direction),
    /// A connect to the target has begun.
    Connect(Box<Endpoint>),
    /// A connect is complete; our own end is bound to this address.
    Connected(Box<Endpoint>),
    /// A connect has failed: the target's address and the error.
    Failed(Box<str>),
}

/// One receive or send that carried data, one thing that a fault has done, or one step of a connect
/// to a target.
#[derive(Clone, Debug)]
pub struct Event {
    /// The event's number in the connection, from 1.
    pub number: u64,
    /// Time since the connection was opened.
    pub after: Duration,
    /// What it was.
    pub kind: EventKind,
    /// Number of bytes it carried; 0 where it carries none.
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
        kind: EventKind,
        size: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) {
        let room = size.min(self.limits.bytes);
        let mut data = Vec::with_capacity(room);
        for part in parts {
            data.extend_from_slice(&part[..part.len().min(room - data.len())]);
        }
        self.push(after, kind, size, data);
    }

    /// Records what a fault has done.
    pub(crate) fn note_fault(&self, after: Duration, event: FaultEvent) {
        self.push(after, EventKind::Fault(Box::new(event)), 0, Vec::new());
    }

    /// Records a step of a connect to the target.
    pub(crate) fn note_far(&self, after: Duration, event: FarEvent) {
        self.push(after, EventKind::Far(event), 0, Vec::new());
    }

    fn push(&self, after: Duration, kind: EventKind, size: usize, data: Vec<u8>) {
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
        kept.events.push_back(Event { number: kept.seen, after, kind, size, data });
    }

    /// The events kept, oldest first.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.kept.lock().events.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ledger::Way;

    const IN: EventKind = EventKind::Data(Direction::In);
    const OUT: EventKind = EventKind::Data(Direction::Out);

    fn noted(limits: TraceLimits, sizes: &[usize]) -> Vec<(u64, usize, usize)> {
        let trace = Trace::new(limits);
        for &size in sizes {
            trace.note(Duration::ZERO, IN, size, [vec![7; size].as_slice()]);
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
    fn a_fault_takes_the_room_of_one_event_and_no_data() {
        let trace = Trace::new(TraceLimits { bytes: 4, events: 2 });
        let fault = FaultEvent {
            fault: "reset:after=3".into(),
            action: "reset",
            way: Way::Down,
            after: Duration::ZERO,
            offset: 3,
            size: 0,
        };
        trace.note(Duration::ZERO, IN, 1, [b"a".as_slice()]);
        trace.note(Duration::ZERO, OUT, 3, [b"abc".as_slice()]);
        trace.note_fault(Duration::ZERO, fault.clone());
        let events = trace.events();
        assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(events[0].kind, OUT);
        assert_eq!(&*events[0].data, b"abc");
        assert_eq!(events[1].kind, EventKind::Fault(Box::new(fault)));
        assert_eq!((events[1].size, events[1].data.len()), (0, 0));
    }

    #[test]
    fn a_limit_of_no_bytes_holds() {
        assert_eq!(noted(TraceLimits { bytes: 0, events: 1 }, &[5, 6]), [(2, 6, 0)]);
    }

    #[test]
    fn data_in_several_parts_is_one_event() {
        let trace = Trace::new(TraceLimits { bytes: 5, events: 1 });
        trace.note(Duration::ZERO, OUT, 7, [&b"abc"[..], b"", b"defg", b"not sent"]);
        let [event] = &trace.events()[..] else { panic!("one event") };
        assert_eq!((event.size, &*event.data), (7, &b"abcde"[..]));
    }
}
