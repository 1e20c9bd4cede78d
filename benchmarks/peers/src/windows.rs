//! The protocol of `load` and `churn`: their command line, their requests and their answers.
//!
//! Owns the format of their arguments and of their standard streams. Must never know what a
//! window counts, nor use a socket.

use std::io;
use std::str::FromStr;
use std::time::Duration;

/// The work done between two moments at which nothing was in flight.
pub struct Window {
    pub count: u64,
    pub seconds: f64,
}

/// Prints `ready`. Then each line of standard input, a number of seconds, is one window; its
/// answer is one line of JSON, in which `what` names the things counted. Ends with its standard
/// input.
pub fn answer(what: &str, mut run: impl FnMut(Duration) -> io::Result<Window>) -> io::Result<()> {
    println!("ready");
    for line in io::stdin().lines() {
        let seconds = line?.trim().parse().map_err(|_| other("a window is a number of seconds"))?;
        let window = run(Duration::from_secs_f64(seconds))?;
        println!(r#"{{"{what}": {}, "seconds": {}}}"#, window.count, window.seconds);
    }
    Ok(())
}

/// A message of `size` bytes. No two adjacent bytes are equal, so a shifted echo is detected.
pub fn message(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

/// The value after `--name` on the command line.
pub fn option<T: FromStr>(name: &str, default: Option<T>) -> io::Result<T> {
    let mut words = std::env::args().skip_while(|word| word.strip_prefix("--") != Some(name));
    match (words.next(), words.next()) {
        (None, _) => default.ok_or_else(|| other(&format!("--{name} is missing"))),
        (_, value) => value
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| other(&format!("--{name} wants a number"))),
    }
}

pub fn other(text: &str) -> io::Error {
    io::Error::other(text)
}
