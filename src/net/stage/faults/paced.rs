//! A lane that passes everything on at the pace of a line. Owns what waits for its turn; must never
//! split a datagram.

use std::time::{Duration, Instant};

use super::backlog::Backlog;
use super::kind::{Lane, LaneFlow, LaneSite};
use super::pacer::Pacer;
use crate::net::stage::event::Part;

/// The part of high water that has a sender wait. The lane then runs empty only for as long as the
/// sender takes to go on.
const FULL: usize = 4;

/// Several pieces fit into what is held, or the line would be unused while the next one comes.
const PIECES: usize = 8;

/// How long a sender that had to wait may take to go on.
const GAP: Duration = Duration::from_millis(1);

pub(super) struct PacedLane {
    pacer: Pacer,
    backlog: Backlog,
    datagrams: bool,
    piece: usize,
    /// A lane that holds this much has its sender wait.
    full: usize,
    /// Whether the peer is read only as fast as the line takes it.
    reads_slowly: bool,
    /// When the next bytes have gone through the line, and how many.
    reserved: Option<(Instant, usize)>,
    was_full: bool,
    emptied: Option<Instant>,
    has_noted: bool,
}

impl PacedLane {
    pub(super) fn new(pacer: Pacer, site: LaneSite, reads_slowly: bool) -> Self {
        let piece = pacer.piece(site.high_water / PIECES);
        Self {
            piece,
            full: if reads_slowly { piece } else { site.high_water / FULL },
            pacer,
            backlog: Backlog::new(site.datagrams),
            datagrams: site.datagrams,
            reads_slowly,
            reserved: None,
            was_full: false,
            emptied: None,
            has_noted: false,
        }
    }

    /// Reserves the line for the next bytes. Passes on the ends in front of them.
    fn reserve(&mut self, flow: &mut LaneFlow<'_, '_>, is_busy: bool) {
        while self.reserved.is_none() {
            let Some(Part::Bytes(front)) = self.backlog.front() else {
                if self.backlog.is_empty() {
                    return;
                }
                self.backlog.pass(flow, 0);
                continue;
            };
            let count = match self.datagrams {
                true => front.len(),
                // Ends come last: all that is held are bytes.
                false => self.backlog.bytes().min(self.piece),
            };
            let due = self.pacer.reserve(flow.now(), count, is_busy);
            self.reserved = Some((due, count));
        }
    }

    /// Passes on what has gone through the line.
    fn pass_due(&mut self, flow: &mut LaneFlow<'_, '_>) {
        let now = flow.now();
        while let Some((_, mut left)) = self.reserved.filter(|&(due, _)| due <= now) {
            self.reserved = None;
            loop {
                left -= self.backlog.pass(flow, left);
                if left == 0 {
                    break;
                }
            }
            if self.backlog.bytes() == 0 {
                self.emptied = self.was_full.then_some(now);
                self.was_full = false;
            }
            self.reserve(flow, true);
        }
    }
}

impl Lane for PacedLane {
    fn push(&mut self, flow: &mut LaneFlow<'_, '_>, part: Part<'_>) {
        if !self.has_noted && matches!(part, Part::Bytes(_)) {
            self.has_noted = true;
            flow.note("slowed", flow.offset(), 0);
        }
        self.backlog.push(part);
        self.was_full |= self.backlog.bytes() >= self.full;
        let is_busy = self.emptied.take().is_some_and(|emptied| flow.now() <= emptied + GAP);
        self.reserve(flow, is_busy);
        self.pass_due(flow);
    }

    fn turn(&mut self, flow: &mut LaneFlow<'_, '_>) {
        self.pass_due(flow);
    }

    fn next_call(&self) -> Option<Instant> {
        self.reserved.map(|(due, _)| due)
    }

    fn held(&self) -> usize {
        self.backlog.bytes()
    }

    fn room(&self) -> usize {
        if self.reads_slowly { self.piece.saturating_sub(self.backlog.bytes()) } else { usize::MAX }
    }

    fn parts(&self) -> usize {
        self.backlog.parts()
    }

    fn is_owed(&self) -> bool {
        !self.backlog.is_empty()
    }

    fn release(&mut self, flow: &mut LaneFlow<'_, '_>) {
        self.reserved = None;
        self.backlog.pass_all(flow);
    }
}
