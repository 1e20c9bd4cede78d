//! What lies between two neighbours of a chain in one direction: bytes in chunks, and ends. Must
//! never join or split a chunk by itself.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use super::event::Part;

/// Bytes already taken are removed once there are this many, and half of all.
const COMPACT: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// A chunk of this many bytes.
    Bytes(usize),
    End,
    /// An errno inbound, a reset outbound.
    Failure(i32),
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    taken: usize,
    marks: VecDeque<Mark>,
    /// A chunk is a datagram, which may be empty.
    keeps_empty: bool,
}

impl Queue {
    /// A queue whose chunks are datagrams.
    pub(super) fn of_datagrams() -> Self {
        Self { keeps_empty: true, ..Self::default() }
    }

    /// An empty queue of the same kind.
    pub(super) fn another(&self) -> Self {
        Self { keeps_empty: self.keeps_empty, ..Self::default() }
    }

    pub(super) fn push(&mut self, part: Part<'_>) {
        match part {
            Part::Bytes(bytes) => self.push_bytes(bytes),
            Part::End => self.marks.push_back(Mark::End),
            Part::Failure(errno) => self.marks.push_back(Mark::Failure(errno)),
        }
    }

    fn push_bytes(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() || self.keeps_empty {
            self.bytes.extend_from_slice(bytes);
            self.marks.push_back(Mark::Bytes(bytes.len()));
        }
    }

    /// A chunk that is written in place: what would be pushed needs no buffer of its own.
    pub(super) fn chunk(&mut self) -> Chunk<'_> {
        Chunk { start: self.bytes.len(), queue: self }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Bytes in it.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// How many chunks and ends are in it.
    pub(super) fn parts(&self) -> usize {
        self.marks.len()
    }

    /// What stands first.
    pub(super) fn front(&self) -> Option<Part<'_>> {
        Some(match *self.marks.front()? {
            Mark::Bytes(count) => Part::Bytes(&self.bytes[self.taken..self.taken + count]),
            Mark::End => Part::End,
            Mark::Failure(errno) => Part::Failure(errno),
        })
    }

    /// Whether its last event is a failure.
    pub(super) fn ends_with_failure(&self) -> bool {
        matches!(self.marks.back(), Some(Mark::Failure(_)))
    }

    /// Takes the first event away; of a chunk, that many bytes.
    pub(super) fn consume(&mut self, count: usize) {
        match self.marks.front_mut() {
            Some(Mark::Bytes(length)) if *length > count => *length -= count,
            _ => drop(self.marks.pop_front()),
        }
        self.taken += count;
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.taken = 0;
            if self.marks.is_empty() && self.bytes.capacity() > COMPACT {
                // What a burst has needed is not kept.
                self.bytes = Vec::new();
                self.marks = VecDeque::new();
            }
        } else if self.taken >= COMPACT.max(self.bytes.len() / 2) {
            // At least as many bytes are removed as are moved.
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

/// A chunk that is being written; dropped, it is in the queue, unless it is empty. A write into it
/// takes everything and does not fail.
pub(super) struct Chunk<'a> {
    queue: &'a mut Queue,
    start: usize,
}

impl Write for Chunk<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.queue.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let total = parts.iter().map(|part| part.len()).sum();
        self.queue.bytes.reserve(total);
        parts.iter().for_each(|part| self.queue.bytes.extend_from_slice(part));
        Ok(total)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Chunk<'_> {
    fn drop(&mut self) {
        let count = self.queue.bytes.len() - self.start;
        if count > 0 {
            self.queue.marks.push_back(Mark::Bytes(count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_stay_as_they_were_pushed_and_may_be_taken_in_parts() {
        let mut queue = Queue::default();
        queue.push_bytes(b"");
        assert!(queue.is_empty(), "an empty chunk is none");
        queue.push_bytes(b"abc");
        queue.push_bytes(b"de");
        queue.push(Part::End);
        queue.push(Part::Failure(5));
        assert!(queue.ends_with_failure());
        assert_eq!((queue.front(), queue.len()), (Some(Part::Bytes(b"abc")), 5));
        queue.consume(2);
        assert_eq!((queue.front(), queue.len()), (Some(Part::Bytes(b"c")), 3));
        queue.consume(1);
        queue.consume(2);
        assert_eq!((queue.front(), queue.len()), (Some(Part::End), 0));
        queue.consume(0);
        assert_eq!(queue.front(), Some(Part::Failure(5)));
        queue.consume(0);
        assert_eq!(queue.front(), None);
    }

    #[test]
    fn what_is_written_in_place_is_one_chunk() {
        let mut queue = Queue::default();
        queue.push_bytes(b"before");
        drop(queue.chunk());
        let mut chunk = queue.chunk();
        chunk.write_all(b"a").unwrap();
        let parts = [IoSlice::new(b"bc"), IoSlice::new(b""), IoSlice::new(b"d")];
        assert_eq!(chunk.write_vectored(&parts).unwrap(), 3);
        drop(chunk);
        queue.push(Part::End);
        assert_eq!(queue.parts(), 3, "an empty chunk is none");
        queue.consume(6);
        assert_eq!(queue.front(), Some(Part::Bytes(b"abcd")));
        queue.consume(4);
        assert_eq!(queue.front(), Some(Part::End));
    }

    #[test]
    fn a_queue_that_is_never_empty_does_not_grow() {
        let mut queue = Queue::default();
        queue.push_bytes(&[1; 1000]);
        for _ in 0..1000 {
            queue.push_bytes(&[2; 1000]);
            queue.consume(1000);
        }
        assert!(queue.bytes.capacity() <= 4 * COMPACT);
        assert_eq!(queue.len(), 1000);
    }
}
