//! rsock: real sockets for Python, run by Rust threads.
//!
//! - `net`: the engine, plain Rust. Builds and tests without Python (`--no-default-features`). Its
//!   `mod.rs` shows the layers.
//! - `py`: the engine shown to Python, a few lines a method. Only there, and here, is pyo3 named.
//!
//! The Python half (displays, context managers, signals of `run`) is in `python/rsock`.

pub mod net;
#[cfg(feature = "python")]
mod py;
