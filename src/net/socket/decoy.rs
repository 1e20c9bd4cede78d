//! A socket that takes the place of a Unix listener's file, so that connects are refused. Owns the
//! file that stands there, and the name under which the listener's own file is kept; must never
//! replace a file that is not the listener's.
//!
//! shutdown(2) of a Unix listener cannot be taken back, and a name can be bound once. So another
//! socket, which does not listen, is moved over the path by rename(2), while a second name keeps
//! the file of the listener. Another rename(2) puts that back. The decoy is a socket and not an
//! empty file, so that no server takes it for a stale file and replaces it.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use socket2::{Domain, SockAddr, Socket as Raw, Type};

use super::unix_file::{FileId, handle};
use crate::net::base::{Listed, Origin};

/// How many names are tried for a file of ours.
const TRIES: usize = 16;

/// What stands at the path of a listener.
pub(super) struct Decoy {
    _listed: Listed,
    /// Open, so that the file is not stale.
    _socket: OwnedFd,
    /// The path of the listener, where the decoy stands.
    path: PathBuf,
    /// The decoy's file.
    id: FileId,
    /// The other name of the listener's file.
    kept: PathBuf,
    origin: Origin,
}

/// A name in the directory of `path` that is most likely free.
fn other_name(path: &Path) -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Relaxed);
    path.with_file_name(format!(".rsock-{}-{number}", std::process::id()))
}

/// Calls `make` with names in the directory of `path` until one is free.
fn at_free_name(path: &Path, mut make: impl FnMut(&Path) -> io::Result<()>) -> io::Result<PathBuf> {
    let mut tries = 0;
    loop {
        let name = other_name(path);
        tries += 1;
        match make(&name).map_err(|error| (error.raw_os_error(), error)) {
            Ok(()) => return Ok(name),
            Err((Some(libc::EEXIST | libc::EADDRINUSE), _)) if tries < TRIES => {}
            Err((_, error)) => return Err(error),
        }
    }
}

/// The file at a path, without following a link.
fn file_at(path: &Path) -> io::Result<FileId> {
    fs::symlink_metadata(path).map(|found| FileId::from(&found))
}

impl Decoy {
    /// Puts a decoy in the place of a listener's file `id` at `path`. ENOENT if the file is not
    /// there any more. On an error everything is as it was.
    pub(super) fn put(path: &Path, id: FileId) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        if FileId::from(&found) != id {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        let socket = Raw::new(Domain::UNIX, Type::STREAM, None)?;
        let directory = handle(path.parent().unwrap_or(Path::new("/")))?;
        let standing = at_free_name(path, |name| {
            // By way of the directory: a path of more than 107 bytes cannot be bound.
            let name = name.file_name().unwrap_or_default().to_string_lossy();
            let number = directory.as_raw_fd();
            socket.bind(&SockAddr::unix(format!("/proc/self/fd/{number}/{name}"))?)
        })?;
        let placed = Self::place(path, &standing, found.permissions());
        let (id, kept) = placed.inspect_err(|_| drop(fs::remove_file(&standing)))?;
        let (listed, path) = (Listed::new(&socket), path.to_owned());
        let origin = Origin::here();
        Ok(Self { _listed: listed, _socket: socket.into(), path, id, kept, origin })
    }

    /// Gives the file at `path` another name, and moves `standing` over it.
    fn place(path: &Path, standing: &Path, mode: Permissions) -> io::Result<(FileId, PathBuf)> {
        // A user who may connect to the listener gets ECONNREFUSED rather than EACCES.
        fs::set_permissions(standing, Permissions::from_mode(mode.mode() & 0o7777))?;
        let id = file_at(standing)?;
        let kept = at_free_name(path, |name| fs::hard_link(path, name))?;
        fs::rename(standing, path).inspect_err(|_| drop(fs::remove_file(&kept)))?;
        Ok((id, kept))
    }

    /// The name by which the listener can be reached meanwhile.
    pub(super) fn kept(&self) -> &Path {
        &self.kept
    }

    /// Puts the listener's file back. If the path is not the decoy's any more, it is left as it is.
    pub(super) fn put_back(&self) -> io::Result<()> {
        if file_at(&self.path).is_ok_and(|found| found == self.id) {
            fs::rename(&self.kept, &self.path)
        } else {
            fs::remove_file(&self.kept)
        }
    }
}

impl Drop for Decoy {
    /// Removes the files that are still there.
    fn drop(&mut self) {
        if self.origin.is_here() {
            if file_at(&self.path).is_ok_and(|found| found == self.id) {
                let _ = fs::remove_file(&self.path);
            }
            let _ = fs::remove_file(&self.kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn refused(path: &Path) -> bool {
        UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    }

    #[test]
    fn a_decoy_refuses_and_goes_without_a_trace() {
        let directory = std::env::temp_dir().join(format!("rsock-decoy-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        // Longer than an address can be with another name beside it.
        let path = directory.join("s".repeat(90 - directory.as_os_str().len()));
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        let id = file_at(&path).unwrap();
        let _before = UnixStream::connect(&path).unwrap();
        let decoy = Decoy::put(&path, id).unwrap();
        assert!(refused(&path));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o777);
        // What was connected before can be accepted, and the listener has a name.
        listener.accept().unwrap();
        UnixStream::connect(decoy.kept()).unwrap();
        decoy.put_back().unwrap();
        drop(decoy);
        assert_eq!(file_at(&path).unwrap(), id);
        UnixStream::connect(&path).unwrap();
        drop(Decoy::put(&path, id).unwrap());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        assert!(Decoy::put(&path, id).is_err_and(|error| error.kind() == io::ErrorKind::NotFound));
        fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn a_file_that_has_taken_the_place_of_the_decoy_stays() {
        let directory = std::env::temp_dir().join(format!("rsock-decoy2-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let decoy = Decoy::put(&path, file_at(&path).unwrap()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        decoy.put_back().unwrap();
        drop(decoy);
        assert_eq!(fs::read(&path).unwrap(), b"another's");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(&directory).unwrap();
    }
}
