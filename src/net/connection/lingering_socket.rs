//! A socket that outlives its closed record until its last bytes have arrived. A handler's
//! lingering close gives it to a worker. Must never be dropped before `never_wait` was called on
//! it.

use std::sync::Arc;

use crate::net::ledger::Record;
use crate::net::socket::{Socket, Until};

/// A socket whose record is closed, on its way to the worker.
pub(crate) struct LingeringSocket {
    pub(crate) socket: Socket,
    pub(crate) record: Arc<Record>,
    pub(crate) until: Until,
}
