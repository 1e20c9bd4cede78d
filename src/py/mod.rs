//! The engine shown to Python: the list of what `rsock._rsock` exports. Must never decide anything
//! about networking.

mod args;
mod buffer;
mod client;
mod connection;
mod error;
mod exit;
mod interpreter;
mod ledger;
mod process;
mod server;
mod service;
mod stream;
mod tcp_info;
mod wait;
mod written;

/// The compiled half of rsock; `python/rsock` is the other one, and the one to import.
#[pyo3::pymodule]
mod _rsock {
    #[pymodule_export]
    use super::client::Client;
    #[pymodule_export]
    use super::connection::{Connection, Datagram, Handed, Pool};
    #[pymodule_export]
    use super::interpreter::_end_thread;
    #[pymodule_export]
    use super::ledger::{Follower, Ledger, Record};
    #[pymodule_export]
    use super::process::{process_limits, raise_fd_limit};
    #[pymodule_export]
    use super::server::{Server, stop_all};
    #[pymodule_export]
    use super::service::{
        Accept, ByConnection, Chargen, Daytime, Discard, Echo, Forward, Greeting, Handler,
        LineEcho, Quote, Service, Time,
    };
    #[pymodule_export]
    use super::stream::Stream;

    /// Only the process's main interpreter may have it.
    #[pymodule_init]
    fn init(py: pyo3::Python<'_>) -> pyo3::PyResult<()> {
        super::interpreter::check(py)?;
        super::written::hold(py)
    }

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "the name Python looks for")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
