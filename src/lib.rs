//! rsock: network sockets for Python, run by Rust threads. Owns the split into `net` and `py`;
//! must never contain code.
//!
//! - `net`: the engine in plain Rust. Builds and tests without Python (`--no-default-features`).
//!   Its `mod.rs` shows the layers.
//! - `py`: the engine presented to Python, a few lines per method. Only `py` names pyo3;
//!   `py/error.rs` turns each `net::error::Error` into an exception.
//!
//! The Python half (displays, context managers, signals of `run`) is in `python/rsock`. Drawings
//! are in `python/rsock/_display`; a compiled class with a `_repr_html_` calls them.

pub mod net;
#[cfg(feature = "python")]
mod py;
