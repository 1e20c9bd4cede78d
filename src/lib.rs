//! rsock: network sockets for Python, run by Rust threads. Owns the split into `net` and `py`;
//! must never contain code.
//!
//! - `net`: the engine in plain Rust. Builds and tests without Python (`--no-default-features`).
//!   Its `mod.rs` shows the layers.
//! - `py`: the engine presented to Python, a few lines per method. Only `py` names pyo3;
//!   `py/error.rs` turns each `net::error::Error` into an exception.
//!
//! The Python half (context managers, signals of `run`, handler threads, the classes of faults,
//! recordings as pcapng) is in `python/rsock`, whose `__init__.py` shows its layers. Drawings are in
//! `python/rsock/_display`; a compiled class with a `_repr_html_` calls them. CONTRIBUTING.md says
//! how to add a service, a stage, a fault, a display or a command.

pub mod net;
#[cfg(feature = "python")]
mod py;
