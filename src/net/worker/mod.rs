//! TODO

pub(crate) mod acceptor;
pub(crate) mod worker;
