//! The engine's tests: one binary, one module a behaviour, over real sockets of the loopback
//! (`shape` needs none). Builds without Python: `cargo test --no-default-features`.

#![allow(unreachable_pub, reason = "one binary: nothing of it is reached from outside")]

mod call_limits;
mod content;
mod datagram_faults;
mod datagrams;
mod edges;
mod fake_io;
mod fault_changes;
mod faults;
mod forward;
mod fuzz;
mod handoff;
mod hostile_tls;
mod proxy;
mod recorder;
mod recording;
mod replay;
mod script;
mod services;
mod shape;
mod stage_fuzz;
mod stages;
mod steps;
mod support;
mod test_services;
mod tls;
