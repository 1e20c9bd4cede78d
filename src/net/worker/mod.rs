//! TODO

pub(crate) mod accept_errors;
pub(crate) mod acceptor;
pub(crate) mod admit;
pub(crate) mod inbox;
pub(crate) mod open_record;
pub(crate) mod pool;
pub(crate) mod sink;
pub(crate) mod worker;
