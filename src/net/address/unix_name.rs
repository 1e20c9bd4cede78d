//! Names of Unix sockets: a path, a name in Linux's abstract name space, or none. Must never touch
//! the file system; that is `unix_file`.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use socket2::SockAddr;

use crate::net::error::{Error, Result};

/// Size of a name in sockaddr_un, unix(7). A path needs one byte of it for the trailing NUL.
pub(super) const MAX_NAME: usize = 108;

/// The name of a Unix socket. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixName(Option<Arc<[u8]>>);

impl UnixName {
    /// A name to bind or connect to: a path, or an abstract name, whose first byte is NUL. Raises
    /// `Error::Value`, which says what is wrong with it.
    pub fn new(name: &[u8]) -> Result<Self> {
        let bad = |why: &str| {
            let text = String::from_utf8_lossy(name);
            let shown: String = text.chars().take(60).collect();
            let dots = if shown.len() < text.len() { "…" } else { "" };
            Err(Error::Value(format!("path {shown:?}{dots}: {why}")))
        };
        let room = match name {
            [] => return bad("a Unix socket needs a name; give a path such as \"/tmp/x.sock\""),
            [0] => return bad("an abstract name needs at least one byte behind its NUL"),
            [0, ..] => MAX_NAME,
            path if path.contains(&0) => {
                return bad("no NUL in a path; at its very start it makes an abstract name");
            }
            _ => MAX_NAME - 1,
        };
        if name.len() > room {
            let length = name.len();
            return bad(&format!("{length} bytes, where unix(7) has room for {room}"));
        }
        Ok(Self(Some(name.into())))
    }

    /// No name: the socket was never bound, as with most clients.
    #[must_use]
    pub const fn unnamed() -> Self {
        Self(None)
    }

    /// The name in the kernel's form, where no bytes mean no name.
    pub(crate) fn of_kernel(name: &[u8]) -> Self {
        Self(if name.is_empty() { None } else { Some(name.into()) })
    }

    /// The bytes of the name: empty for an unnamed socket, starting with NUL for an abstract name.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether the socket has no name.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the name is in the abstract name space, which has no files.
    #[must_use]
    pub fn is_abstract(&self) -> bool {
        self.bytes().first() == Some(&0)
    }

    /// The path of the socket's file; None for an abstract name or no name.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self.bytes() {
            [] | [0, ..] => None,
            path => Some(Path::new(OsStr::from_bytes(path))),
        }
    }

    pub(crate) fn to_raw(&self) -> io::Result<SockAddr> {
        SockAddr::unix(OsStr::from_bytes(self.bytes()))
    }

    pub(crate) fn from_raw(address: &SockAddr) -> Option<Self> {
        if !address.is_unix() {
            return None;
        }
        let path = address.as_pathname().map(|path| path.as_os_str().as_bytes());
        if let Some(name) = address.as_abstract_namespace() {
            return Some(Self::of_kernel(&[&[0], name].concat()));
        }
        Some(Self::of_kernel(path.unwrap_or_default()))
    }
}

/// A path unchanged; an abstract name with `@` for each NUL, as ss(8) and /proc/net/unix show it.
impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.bytes() {
            [] => return f.write_str("(unnamed)"),
            [0, name @ ..] => format!("@{}", String::from_utf8_lossy(name).replace('\0', "@")),
            path => String::from_utf8_lossy(path).into_owned(),
        };
        // On one line and without control characters for terminals, because a peer chooses its
        // name.
        for char in text.chars() {
            match char {
                '\n' | '\r' | '\t' => write!(f, "{}", char.escape_default())?,
                _ if char.is_control() => write!(f, "\\x{:02x}", u32::from(char))?,
                _ => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnixName({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_cut_or_misread() {
        for bad in [
            &b""[..],
            b"\0",
            b"/tmp/a\0b",
            &[b'x'; 108],
            &[b"\0".as_slice(), &[b'x'; 108]].concat(),
        ] {
            assert!(matches!(UnixName::new(bad), Err(Error::Value(_))), "{bad:?}");
        }
        assert!(UnixName::new(&[b'x'; 107]).is_ok());
        assert!(UnixName::new(&[b"\0".as_slice(), &[b'x'; 107]].concat()).is_ok());
    }

    #[test]
    fn names_round_trip_through_sockaddr_un() {
        for name in [&b"/tmp/x.sock"[..], b"\0abstract\0name", &[b'x'; 107], b"/tmp/\xff"] {
            let name = UnixName::new(name).unwrap();
            assert_eq!(UnixName::from_raw(&name.to_raw().unwrap()), Some(name));
        }
        assert_eq!(UnixName::new(b"\0a\0b").unwrap().to_string(), "@a@b");
        assert_eq!(UnixName::new(b"\0a").unwrap().path(), None);
    }
}
