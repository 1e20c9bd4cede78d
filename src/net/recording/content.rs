//! The bytes of one event, with the parts of them that stand for any bytes. Must never say which
//! bytes were there instead.

use std::ops::Range;

/// Recorded bytes. A part of them may stand for other bytes: what was redacted, or what differs
/// from one dialogue to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    bytes: Vec<u8>,
    /// In order, apart from each other.
    any: Vec<Range<usize>>,
}

/// A part of a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// These bytes.
    Exactly(&'a [u8]),
    /// Any bytes, also none; these are the ones to send.
    Any(&'a [u8]),
}

impl Content {
    /// Adds bytes.
    pub fn push(&mut self, piece: Piece<'_>) {
        let start = self.bytes.len();
        match piece {
            Piece::Exactly(bytes) => self.bytes.extend_from_slice(bytes),
            Piece::Any(bytes) => {
                self.bytes.extend_from_slice(bytes);
                match self.any.last_mut() {
                    Some(last) if last.end == start => last.end = self.bytes.len(),
                    _ => self.any.push(start..self.bytes.len()),
                }
            }
        }
    }

    /// All bytes, those in place of others included: what is sent for this content.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it stands for its bytes and no others.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.any.is_empty()
    }

    /// Whether it has no bytes and stands for none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.any.is_empty()
    }

    /// Its parts in order. No two of the same kind are next to each other, and an exact one has at
    /// least a byte.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let mut done = 0;
        let mut any = self.any.iter();
        let mut next = any.next();
        std::iter::from_fn(move || match next {
            Some(range) if range.start == done => {
                done = range.end;
                next = any.next();
                Some(Piece::Any(&self.bytes[range.clone()]))
            }
            _ => {
                let end = next.map_or(self.bytes.len(), |range| range.start);
                let bytes = &self.bytes[done..end];
                done = end;
                (!bytes.is_empty()).then_some(Piece::Exactly(bytes))
            }
        })
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, any: Vec::new() }
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        bytes.to_vec().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_in_order_and_alternate() {
        let mut content = Content::from(b"a".as_slice());
        assert!(content.is_exact());
        content.push(Piece::Exactly(b"b"));
        content.push(Piece::Any(b""));
        content.push(Piece::Any(b"x"));
        content.push(Piece::Any(b"y"));
        content.push(Piece::Exactly(b""));
        content.push(Piece::Exactly(b"c"));
        content.push(Piece::Any(b""));
        let pieces: Vec<_> = content.pieces().collect();
        let (ab, xy, c) = (Piece::Exactly(b"ab"), Piece::Any(b"xy"), Piece::Exactly(b"c"));
        assert_eq!(pieces, [ab, xy, c, Piece::Any(b"")]);
        assert_eq!(content.bytes(), b"abxyc");
        assert_eq!(Content::default().pieces().next(), None);
        let mut nothing = Content::default();
        nothing.push(Piece::Any(b""));
        assert!(!nothing.is_empty());
        assert_eq!(nothing.pieces().collect::<Vec<_>>(), [Piece::Any(b"")]);
    }
}
