//! Names of Unix sockets: a path, a name in Linux's abstract name space, or none; and who is at the
//! other end. Must never touch the file system; that is `socket_file`.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use socket2::SockAddr;

use crate::net::error::{Error, Result};

/// Room for a name in sockaddr_un, unix(7). A path needs one byte of it for the NUL behind it.
pub(super) const MAX_NAME: usize = 108;

/// What a Unix socket is called. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixName(Option<Arc<[u8]>>);

impl UnixName {
    /// A name to bind or to connect to: a path, or an abstract name, whose first byte is NUL. The error
    /// names what is wrong with it.
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

    /// No name: that of a socket which was never bound, as most clients' are.
    #[must_use]
    pub const fn unnamed() -> Self {
        Self(None)
    }

    /// The name that the kernel gives.
    pub(crate) fn of_kernel(name: &[u8]) -> Self {
        Self(if name.is_empty() { None } else { Some(name.into()) })
    }

    /// Its bytes: none where it has no name, a NUL first where it is abstract.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it is one of the abstract name space, which has no files.
    #[must_use]
    pub fn is_abstract(&self) -> bool {
        self.bytes().first() == Some(&0)
    }

    /// The file it is the name of.
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

/// A path as it is; an abstract name with `@` in place of its NUL, as ss(8) and /proc/net/unix show it.
impl fmt::Display for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.bytes() {
            [] => return f.write_str("(unnamed)"),
            [0, name @ ..] => format!("@{}", String::from_utf8_lossy(name).replace('\0', "@")),
            path => String::from_utf8_lossy(path).into_owned(),
        };
        // On one line, with nothing that a terminal would obey: a peer chooses its name.
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
    fn a_name_survives_the_way_through_the_kernels_form() {
        for name in [&b"/tmp/x.sock"[..], b"\0abstract\0name", &[b'x'; 107], b"/tmp/\xff"] {
            let name = UnixName::new(name).unwrap();
            assert_eq!(UnixName::from_raw(&name.to_raw().unwrap()), Some(name));
        }
        assert_eq!(UnixName::new(b"\0a\0b").unwrap().to_string(), "@a@b");
        assert_eq!(UnixName::new(b"\0a").unwrap().path(), None);
    }
}
