//! TODO

pub mod listener;
pub mod options;
pub mod probe;
pub mod socket;
pub mod splice_pipe;
pub mod unix_file;
