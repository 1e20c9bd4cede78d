//! The file of a Unix socket: which one it is, how a stale one is cleared away, and that ours goes when
//! its listener does. Must never remove a file that a live socket has, one of another kind, or one that
//! this process did not make.
//!
//! A stale file is what a process leaves that was killed: its name cannot be bound, though nobody
//! listens. Whether somebody does is asked by connect(2) of a *datagram* socket: the kernel says
//! EPROTOTYPE for a stream that is there, even one that does not listen yet, and ECONNREFUSED for none;
//! and no listener ever sees a connection of it. Between that answer and the removal another server may
//! have bound the name, so both happen under a lock: flock(2) on the path with ".lock" behind it. A bind
//! that meets nothing needs no lock, for the kernel makes the file at once or not at all.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket as Raw, Type};

use crate::net::address::UnixName;
use crate::net::base::{Origin, Waiter};
use crate::net::error::{Error, Result, strerror};
use crate::net::sys;

/// How often a lock that another process holds is tried again: nothing announces its release.
const RETRY: Duration = Duration::from_millis(5);
/// Lock files are for us alone; by this, and by being empty, one is known for ours.
const LOCK_MODE: u32 = 0o600;

/// Which file it is, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The socket file of a name; None where it has none.
    pub(crate) fn of(name: &UnixName) -> Option<Self> {
        let metadata = fs::symlink_metadata(name.path()?).ok()?;
        metadata.file_type().is_socket().then(|| Self::from(&metadata))
    }
}

impl From<&Metadata> for FileId {
    fn from(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// The file that a bind of ours has made; removed when this is dropped, which must be before its socket
/// is closed: as long as that lives, no other server takes the file for stale.
#[derive(Debug)]
pub(crate) struct SocketFile {
    /// Absolute, for the working directory may change.
    path: PathBuf,
    id: FileId,
    origin: Origin,
}

impl SocketFile {
    /// The file at `path`, which was just bound, with the permission bits that were asked for.
    ///
    /// The socket had them before the bind, so that the file never had more; the umask may have taken
    /// some away, and these are given back here.
    pub(crate) fn new(path: &Path, mode: Option<u32>) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let metadata = fs::symlink_metadata(&path)?;
        let made = Self { path, id: FileId::from(&metadata), origin: Origin::here() };
        if let Some(mode) = mode.filter(|mode| *mode != metadata.permissions().mode() & 0o7777) {
            // By a handle, so that it is this file and no other.
            let file = handle(&made.path)?;
            if FileId::from(&file.metadata()?) != made.id {
                return Err(io::Error::from_raw_os_error(libc::ENOENT));
            }
            let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
            fs::set_permissions(itself, Permissions::from_mode(mode))?;
        }
        Ok(made)
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            return;
        }
        let now = fs::symlink_metadata(&self.path);
        if now.is_ok_and(|metadata| FileId::from(&metadata) == self.id) {
            // EACCES where the directory was closed to us meanwhile: it is stale from now on, and
            // cleared away by the next who may.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// O_PATH: the file itself, which is neither opened nor followed. While it is held, its number is nobody
/// else's.
fn handle(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW);
    options.open(path)
}

/// Sets what a socket's file may have at most, before bind(2): fchmod(2). Linux makes the file with
/// these bits, less those of the umask.
pub(crate) fn set_mode(socket: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    let duplicate = File::from(socket.try_clone_to_owned()?);
    duplicate.set_permissions(Permissions::from_mode(mode))
}

/// What is in the way of a bind.
enum Found {
    /// A socket's file, and the socket is there.
    Live,
    /// A socket's file, and the socket is not there any more.
    Stale(File),
    /// Anything else.
    Other(&'static str),
}

/// Looks at what has a path; None where nothing has it.
fn survey(path: &Path) -> io::Result<Option<Found>> {
    let file = match handle(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let kind = file.metadata()?.file_type();
    if !kind.is_socket() {
        return Ok(Some(Found::Other(match kind {
            _ if kind.is_file() => "a regular file",
            _ if kind.is_dir() => "a directory",
            _ if kind.is_symlink() => "a symbolic link",
            _ if kind.is_fifo() => "a pipe",
            _ => "a device",
        })));
    }
    let probe = Raw::new(Domain::UNIX, Type::DGRAM, None)?;
    let asked = probe.connect(&socket2::SockAddr::unix(path)?);
    match asked.map_err(|error| error.raw_os_error()) {
        Err(Some(libc::ECONNREFUSED)) => Ok(Some(Found::Stale(file))),
        Err(Some(libc::ENOENT)) => Ok(None),
        Err(Some(errno @ (libc::EACCES | libc::ELOOP | libc::ENOMEM))) => {
            Err(io::Error::from_raw_os_error(errno))
        }
        // EPROTOTYPE: a stream is there. Success: a datagram socket. Whatever else: not for us to judge.
        _ => Ok(Some(Found::Live)),
    }
}

/// Makes way for a bind that met EADDRINUSE: removes a stale file, or says what is in the way. Waits
/// until the deadline for a process that is at the same.
pub(crate) fn clear_way(name: &UnixName, deadline: Instant, waiter: &mut dyn Waiter) -> Result<()> {
    let taken = |hint: String| Error::Os {
        step: "bind",
        target: name.to_string(),
        errno: libc::EADDRINUSE,
        hint,
    };
    let in_doubt = |what: &str, error: &io::Error| {
        let why = strerror(error.raw_os_error().unwrap_or(libc::EIO));
        taken(format!("its file may be stale, but {what}: {why}"))
    };
    let Some(path) = name.path() else {
        return Err(taken("another process has it".to_owned()));
    };
    let stale = || match survey(path) {
        Ok(Some(Found::Live)) => Err(taken("a live socket has it".to_owned())),
        Ok(Some(Found::Other(kind))) => {
            Err(taken(format!("{kind} is there, which is never replaced")))
        }
        Ok(Some(Found::Stale(file))) => Ok(Some(file)),
        Ok(None) => Ok(None),
        Err(error) => Err(in_doubt("it cannot be asked", &error)),
    };
    // First without the lock, which need not be made for what is never replaced.
    if stale()?.is_none() {
        return Ok(());
    }
    let lock = match Lock::take(path, deadline, waiter)? {
        Ok(lock) => lock,
        Err(error) => {
            let lock = lock_path(path);
            return Err(in_doubt(&format!("its lock {} cannot be had", lock.display()), &error));
        }
    };
    // Another server may have been faster.
    if let Some(file) = stale()? {
        let id = FileId::from(&file.metadata().map_err(|error| in_doubt("it is gone", &error))?);
        let same = |now: Metadata| FileId::from(&now) == id;
        if fs::symlink_metadata(path).is_ok_and(same) {
            fs::remove_file(path).map_err(|error| in_doubt("it cannot be removed", &error))?;
        }
    }
    drop(lock);
    Ok(())
}

fn lock_path(path: &Path) -> PathBuf {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    lock.into()
}

/// The right to remove a stale file. The lock's own file is there only as long as the lock is held.
struct Lock {
    path: PathBuf,
    // Closed, and with it unlocked, after the file was removed.
    file: File,
}

impl Lock {
    /// flock(2), tried until the deadline. What the system says is the inner error.
    fn take(path: &Path, deadline: Instant, waiter: &mut dyn Waiter) -> Result<io::Result<Self>> {
        let path = lock_path(path);
        loop {
            let file = match Self::open(&path) {
                Ok(file) => file,
                // Removed between two calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Ok(Err(error)),
            };
            loop {
                match sys::try_lock(file.as_fd()) {
                    Ok(()) => break,
                    Err(error) if error.raw_os_error() != Some(libc::EWOULDBLOCK) => {
                        return Ok(Err(error));
                    }
                    Err(error) if deadline <= Instant::now() => return Ok(Err(error)),
                    Err(_) => {}
                }
                waiter.wait(&mut [], Some(deadline.min(Instant::now() + RETRY)))?;
            }
            // Whoever held it before has removed the file, and another may have been made since: a lock
            // on what no name leads to keeps nobody out.
            let held = file.metadata().map(|held| FileId::from(&held));
            match (fs::symlink_metadata(&path), held) {
                (Ok(now), Ok(held)) if FileId::from(&now) == held => {
                    return Ok(Ok(Self { path, file }));
                }
                (_, Err(error)) => return Ok(Err(error)),
                _ => {}
            }
        }
    }

    /// The lock's file, made where there is none. One of another kind is left alone.
    fn open(path: &Path) -> io::Result<File> {
        let mut made = OpenOptions::new();
        made.write(true).create_new(true).mode(LOCK_MODE).custom_flags(libc::O_NOFOLLOW);
        match made.open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            file => return file,
        }
        let mut found = OpenOptions::new();
        // Not waiting for a writer, should it be a pipe.
        found.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = found.open(path)?;
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // One that somebody else keeps there for a use of his own is his to remove.
        let ours = |metadata: Metadata| {
            metadata.len() == 0 && metadata.permissions().mode() & 0o7777 == LOCK_MODE
        };
        if self.file.metadata().is_ok_and(ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
