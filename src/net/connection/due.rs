//! What is due to a session apart from bytes. Must never be kept when nothing is due: an idle
//! connection has a null pointer.

/// What is due to a session apart from bytes.
#[derive(Default)]
pub(crate) struct Due {
    pub(super) open: bool,
    /// The stages are ready for a session, which the worker has to make.
    pub(super) make_session: bool,
    pub(crate) wake: bool,
    pub(crate) drain: bool,
    /// The faults of the server have changed.
    pub(crate) faults: bool,
    pub(crate) engine_timer: bool,
    /// `Io::connect` failed on the spot.
    pub(super) refused: Option<i32>,
    pub(crate) timers: Vec<u32>,
}
