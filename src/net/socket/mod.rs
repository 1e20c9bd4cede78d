//! TODO

pub mod lingering;
pub mod listener;
pub mod options;
pub mod peer_credentials;
pub mod probe;
pub mod socket;
pub mod splice_pipe;
pub mod tcp_info;
pub mod unix_file;
