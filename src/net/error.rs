//! The one error type of the engine. Owns the wording of what users read; must never be turned into
//! an exception anywhere but in `src/py/error.rs`.

use std::fmt;
use std::io;

/// A result of the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong for a caller.
#[derive(Debug)]
pub enum Error {
    /// A system call failed. The caller reads `errno`, or the step and the address it failed at.
    Os {
        /// What was being done, by its name in the socket API: bind, connect, recv.
        step: &'static str,
        /// The address it was done to; empty where there is none.
        target: String,
        /// errno(3).
        errno: i32,
        /// What else helps: who holds the port, for example. Empty where nothing does.
        hint: String,
    },
    /// The system's resolver has no address for a name. Correct the name, or wait for the network.
    Resolve {
        /// The name asked for.
        host: String,
        /// The EAI code of getaddrinfo(3).
        code: i32,
        /// The resolver's own words.
        text: String,
    },
    /// A deadline passed. The object is usable; call again.
    TimedOut {
        /// What was being waited for.
        step: &'static str,
        /// Where; empty where there is no address.
        target: String,
    },
    /// The waiter was told to stop waiting; it keeps the reason.
    Interrupted,
    /// The peer finished in the middle of a message.
    Incomplete {
        /// What was being read, in words: "10 bytes", "a line".
        wanted: String,
        /// How many bytes came before the end.
        got: usize,
    },
    /// The delimiter did not come within the limit.
    OverLimit {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Any of these, after bytes had been taken from the stream: nothing is lost.
    Cut {
        /// What ended the call.
        cause: Box<Error>,
        /// What had been taken.
        partial: Vec<u8>,
    },
    /// A step that does not fit the state.
    State {
        /// What was asked.
        asked: &'static str,
        /// The state it was asked in.
        state: String,
        /// What to do instead; empty where nothing is to be said.
        hint: &'static str,
    },
    /// A value that can never be right. Names it.
    Value(String),
    /// A number out of its range. Names it.
    Overflow(String),
    /// Use in a forked child of an object that its parent created.
    Forked {
        /// Process that created it.
        creator: u32,
        /// Process that uses it.
        here: u32,
    },
}

impl Error {
    /// A failed system call.
    pub fn os(step: &'static str, target: impl fmt::Display, error: &io::Error) -> Self {
        Self::errno(step, target, error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// The same from a bare number.
    pub fn errno(step: &'static str, target: impl fmt::Display, errno: i32) -> Self {
        Self::Os { step, target: target.to_string(), errno, hint: String::new() }
    }

    /// Use of a closed stream: EBADF, as with any socket.
    #[must_use]
    pub fn closed(step: &'static str, hint: &str) -> Self {
        Self::Os { step, target: String::new(), errno: libc::EBADF, hint: hint.to_owned() }
    }

    /// This error, with what had been taken when it came.
    #[must_use]
    pub fn after(self, partial: Vec<u8>) -> Self {
        if partial.is_empty() { self } else { Self::Cut { cause: Box::new(self), partial } }
    }

    /// errno(3) where a system call failed.
    #[must_use]
    pub fn raw(&self) -> Option<i32> {
        match self {
            Self::Os { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// strerror(3) without the number that Rust appends.
#[must_use]
pub fn strerror(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os { step, target, errno, hint } => {
                f.write_str(step)?;
                if !target.is_empty() {
                    write!(f, " {target}")?;
                }
                write!(f, ": {}", strerror(*errno))?;
                if hint.is_empty() { Ok(()) } else { write!(f, " ({hint})") }
            }
            Self::Resolve { host, text, .. } => write!(f, "resolve {host:?}: {text}"),
            Self::TimedOut { step, target } if target.is_empty() => write!(f, "{step}: timed out"),
            Self::TimedOut { step, target } => write!(f, "{step} {target}: timed out"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Incomplete { wanted, got } => {
                write!(f, "the peer finished after {got} bytes of {wanted}")
            }
            Self::OverLimit { limit } => {
                write!(f, "no delimiter within the limit of {limit} bytes")
            }
            Self::Cut { cause, .. } => cause.fmt(f),
            Self::State { asked, state, hint } => {
                write!(f, "{asked}: the server is {state}")?;
                if hint.is_empty() { Ok(()) } else { write!(f, "; {hint}") }
            }
            Self::Value(text) | Self::Overflow(text) => f.write_str(text),
            Self::Forked { creator, here } => write!(
                f,
                "made in process {creator} and not usable in its forked child {here}; make a new one there"
            ),
        }
    }
}

impl std::error::Error for Error {}
