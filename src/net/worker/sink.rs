//! Where an accepted connection goes. Must never close one.

use std::sync::Arc;

use crate::net::ledger::ledger::Place;
use crate::net::ledger::record::Record;
use crate::net::socket::socket::Socket;

/// An accepted connection on its way to a worker.
pub(crate) struct Accepted {
    pub(crate) socket: Socket,
    pub(crate) record: Arc<Record>,
    pub(crate) place: Place,
}
