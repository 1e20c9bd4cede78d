//! The one error type of the engine. Owns the wording that users read; must never be turned into an
//! exception anywhere but in `src/py/error.rs`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A result of the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// The errors that a caller of the engine can get.
#[derive(Debug)]
pub enum Error {
    /// A system call failed. The caller can read `errno`, and the step and address at which it
    /// failed.
    Os {
        /// The step, by its name in the socket API: bind, connect, recv.
        step: &'static str,
        /// The address of the step. Empty if there is none.
        target: String,
        /// errno(3).
        errno: i32,
        /// Further help, such as which server holds the port. Empty if there is none.
        hint: String,
    },
    /// A file cannot be opened, read or written. The caller can read `errno`, the step and the path.
    File {
        /// The step: open, read, write.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// errno(3).
        errno: i32,
    },
    /// The system's resolver found no address for a name. Correct the name, or wait for the
    /// network.
    Resolve {
        /// The name that was looked up.
        host: String,
        /// The EAI code of getaddrinfo(3).
        code: i32,
        /// The resolver's error text.
        text: String,
    },
    /// A deadline passed. The object can still be used; call again.
    TimedOut {
        /// The step that was waiting.
        step: &'static str,
        /// The address of the step. Empty if there is none.
        target: String,
    },
    /// The waiter stopped the wait, and keeps the reason.
    Interrupted,
    /// The peer ended the stream in the middle of a message.
    Incomplete {
        /// What was being read: "10 bytes", "a line".
        wanted: String,
        /// The number of bytes before the end.
        got: usize,
    },
    /// The delimiter was not found within the limit.
    OverLimit {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Any of these, raised by a call that collects bytes of the stream. Nothing is lost.
    Cut {
        /// The error that ended the call.
        cause: Box<Error>,
        /// The bytes that had been taken; empty if there were none.
        partial: Vec<u8>,
    },
    /// TLS has ended the connection, or refused the peer.
    Tls {
        /// The step at which that was found.
        step: &'static str,
        /// The address of the step.
        target: String,
        /// What the peer did, or how it was refused.
        text: String,
        /// Which of the exceptions of TLS it is.
        kind: TlsError,
    },
    /// A step that does not fit the server's state.
    State {
        /// The step.
        asked: &'static str,
        /// The state at the time of the call.
        state: String,
        /// What to do instead. Empty if there is nothing.
        hint: &'static str,
    },
    /// A step that does not fit the state of a stream.
    StreamState {
        /// The step.
        step: &'static str,
        /// The address of the peer.
        target: String,
        /// The state, and what to do instead.
        text: &'static str,
    },
    /// A value that is never valid. The text names it.
    Value(String),
    /// A number outside its range. The text names it.
    Overflow(String),
    /// An object used in a forked child of the process that created it.
    Forked {
        /// The process that created it.
        creator: u32,
        /// The process that uses it.
        here: u32,
    },
}

/// The kinds of errors of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The certificate of the peer was refused.
    Verify,
    /// The peer has closed without close_notify.
    Cut,
    /// Any other.
    Other,
}

impl Error {
    /// An error of a failed system call.
    pub fn os(step: &'static str, target: impl fmt::Display, error: &io::Error) -> Self {
        Self::errno(step, target, error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// The same, from an errno.
    pub fn errno(step: &'static str, target: impl fmt::Display, errno: i32) -> Self {
        Self::Os { step, target: target.to_string(), errno, hint: String::new() }
    }

    /// An error of a file.
    pub fn file(step: &'static str, path: &Path, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Self::File { step, path: path.to_owned(), errno }
    }

    /// An error for a closed stream: EBADF, as with any socket.
    #[must_use]
    pub fn closed(step: &'static str, hint: &str) -> Self {
        Self::Os { step, target: String::new(), errno: libc::EBADF, hint: hint.to_owned() }
    }

    /// This error, with the bytes that had been taken before it, if there were any.
    #[must_use]
    pub fn after(self, partial: Vec<u8>) -> Self {
        if partial.is_empty() { self } else { self.amid(partial) }
    }

    /// This error of a call that collects a message, with what had been taken of it, which may be
    /// nothing.
    #[must_use]
    pub fn amid(self, partial: Vec<u8>) -> Self {
        Self::Cut { cause: Box::new(self), partial }
    }

    /// errno(3), if a system call failed.
    #[must_use]
    pub fn raw(&self) -> Option<i32> {
        match self {
            Self::Os { errno, .. } | Self::File { errno, .. } => Some(*errno),
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
            // The path is told beside the text, as OSError does it.
            Self::File { step, errno, .. } => write!(f, "{step}: {}", strerror(*errno)),
            Self::Resolve { host, text, .. } => write!(f, "resolve {host:?}: {text}"),
            Self::TimedOut { step, target } if target.is_empty() => write!(f, "{step}: timed out"),
            Self::TimedOut { step, target } => write!(f, "{step} {target}: timed out"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Tls { step, target, text, .. } if target.is_empty() => {
                write!(f, "{step}: {text}")
            }
            Self::Tls { step, target, text, .. } => write!(f, "{step} {target}: {text}"),
            Self::Incomplete { wanted, got } => {
                write!(f, "the stream ended after {got} bytes of {wanted}")
            }
            Self::OverLimit { limit } => {
                write!(f, "no delimiter within the limit of {limit} bytes")
            }
            Self::Cut { cause, partial } => {
                cause.fmt(f)?;
                match (&**cause, partial.len()) {
                    (Self::TimedOut { .. }, 1) => f.write_str(" after 1 byte"),
                    (Self::TimedOut { .. }, got @ 2..) => write!(f, " after {got} bytes"),
                    _ => Ok(()),
                }
            }
            Self::State { asked, state, hint } => {
                write!(f, "{asked}: the server is {state}")?;
                if hint.is_empty() { Ok(()) } else { write!(f, "; {hint}") }
            }
            Self::StreamState { step, target, text } if target.is_empty() => {
                write!(f, "{step}: {text}")
            }
            Self::StreamState { step, target, text } => write!(f, "{step} {target}: {text}"),
            Self::Value(text) | Self::Overflow(text) => f.write_str(text),
            Self::Forked { creator, here } => write!(
                f,
                "made in process {creator} and not usable in its forked child {here}; \
                 make a new one there"
            ),
        }
    }
}

impl std::error::Error for Error {}
