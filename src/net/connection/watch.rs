//! The times that the limits of a connection count from. Must never be kept for a connection that
//! no limit concerns.

use std::time::Instant;

/// What the limits of a connection count from. A connection that no limit concerns has none.
pub(super) struct Watch {
    /// When one direction was closed.
    pub(super) half_closed: Option<Instant>,
    /// When something was last sent, or thrown away in a lingering close.
    pub(super) progress: Instant,
    /// When a byte last moved in either direction.
    pub(super) moved: Instant,
    /// The timer counts the write limit: something waits to be sent.
    pub(super) owing: bool,
    /// The first byte has arrived, although it was not read yet.
    pub(super) first_byte_arrived: bool,
}
