//! rsock: network sockets for Python, run by Rust threads. Owns the split into `net` and `py`;
//! must never contain code.
//!
//! - `net`: the engine in plain Rust. Builds and tests without Python (`--no-default-features`).
//!   Its `mod.rs` shows the layers.
//! - `py`: the engine presented to Python, a few lines per method. Only `py` and this file name
//!   pyo3.
//!
//! The Python half (displays, context managers, signals of `run`) is in `python/rsock`.

pub mod net;
#[cfg(feature = "python")]
mod py;
