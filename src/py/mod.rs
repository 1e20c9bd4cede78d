//! The extension module `rsock._rsock`: its list of exports. Owns that list; must never decide
//! anything about networking.

mod args;
mod buffer;
mod by_connection;
mod client;
mod client_arguments;
mod connection;
mod control;
mod datagram;
mod error;
mod exit;
mod fault_block;
mod fault_objects;
mod faults;
mod forward;
mod handler_error;
mod imports;
mod interpreter;
mod keywords;
mod ledger;
mod load;
mod pool;
mod process;
mod proxy;
mod recording;
mod replay;
mod script;
mod server;
mod server_arguments;
mod service;
mod services;
mod socket_options;
mod stream;
mod tcp_info;
mod tls;
mod wait;
mod watch;

/// The compiled half of rsock.
///
/// Programs import the package `rsock`, which re-exports its names.
#[pyo3::pymodule]
mod _rsock {
    #[pymodule_export]
    use super::by_connection::ByConnection;
    #[pymodule_export]
    use super::client::Client;
    #[pymodule_export]
    use super::connection::{Connection, Handed};
    #[pymodule_export]
    use super::datagram::Datagram;
    #[pymodule_export]
    use super::fault_block::FaultBlock;
    #[pymodule_export]
    use super::forward::Forward;
    #[pymodule_export]
    use super::interpreter::_end_thread;
    #[pymodule_export]
    use super::ledger::{Follower, Ledger, Record};
    #[pymodule_export]
    use super::load::drive;
    #[pymodule_export]
    use super::pool::Pool;
    #[pymodule_export]
    use super::process::{process_limits, raise_fd_limit};
    #[pymodule_export]
    use super::recording::{_parse_recording, _read_recording, Timeline};
    #[pymodule_export]
    use super::replay::{Replay, ReplayClient};
    #[pymodule_export]
    use super::script::Script;
    #[pymodule_export]
    use super::server::{Server, stop_all};
    #[pymodule_export]
    use super::service::{Accept, Handler, Service};
    #[pymodule_export]
    use super::services::{Chargen, Daytime, Discard, Echo, Greeting, LineEcho, Quote, Time};
    #[pymodule_export]
    use super::stream::Stream;
    #[pymodule_export]
    use super::tls::Tls;
    #[pymodule_export]
    use super::watch::Watch;

    /// Fails with ImportError in a sub-interpreter.
    #[pymodule_init]
    fn init(py: pyo3::Python<'_>) -> pyo3::PyResult<()> {
        super::interpreter::check(py)?;
        super::imports::hold(py)
    }

    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "the name that Python looks up")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
