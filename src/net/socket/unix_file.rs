//! The file of a Unix socket: its identity, the removal of a stale one, its removal with the
//! listener. Must never remove the file of a live socket, a file of another kind, or one that this
//! process did not create.
//!
//! A process that is killed leaves a stale file: its name cannot be bound, though no socket listens
//! on it. Whether one does is tested by connect(2) of a *datagram* socket. The kernel returns
//! EPROTOTYPE if a stream socket is bound there, even one that does not listen yet, and
//! ECONNREFUSED if none is. No listener ever sees such a connection. Between that test and the
//! removal another server may bind the name, so both happen under a lock: flock(2) on the path with
//! ".lock" appended. A bind that finds no file needs no lock, because the kernel creates the file
//! atomically.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket as Raw, Type};

use super::probe::bound_inode;
use crate::net::address::UnixName;
use crate::net::base::{Origin, Waiter};
use crate::net::error::{Error, Result, strerror};
use crate::net::sys;

/// Interval between attempts to lock, because the release by another process causes no event.
const RETRY: Duration = Duration::from_millis(5);
/// Mode of our lock files. A lock file is recognised as ours by this mode and by being empty.
const LOCK_MODE: u32 = 0o600;

/// The identity of a file, independent of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The identity of a name's socket file; None if there is none.
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

/// The file that our bind created, removed when this is dropped. It must be dropped before the
/// socket is closed: while the socket is open, no other server treats the file as stale.
#[derive(Debug)]
pub(crate) struct SocketFile {
    /// Absolute, because the working directory may change.
    path: PathBuf,
    id: FileId,
    origin: Origin,
}

impl SocketFile {
    /// The file of `socket`, which was just bound to `path`, with the requested permission bits.
    /// ENOENT if another file has taken the path since, which is neither changed nor removed.
    ///
    /// The socket had these bits before the bind, so the file never had more. The umask may have
    /// removed some, which are restored here.
    pub(crate) fn new(socket: BorrowedFd<'_>, path: &Path, mode: Option<u32>) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        // One descriptor for all that follows, so that each step concerns the same file.
        let file = handle(&path)?;
        let metadata = file.metadata()?;
        if !metadata.file_type().is_socket() || is_file_of(&file, socket) == Some(false) {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        let made = Self { path, id: FileId::from(&metadata), origin: Origin::here() };
        if let Some(mode) = mode.filter(|mode| *mode != metadata.permissions().mode() & 0o7777) {
            let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
            if let Err(error) = fs::set_permissions(itself, Permissions::from_mode(mode)) {
                // The bind fails, so the file goes.
                drop(made);
                return Err(error);
            }
        }
        Ok(made)
    }

    pub(crate) fn id(&self) -> FileId {
        self.id
    }

    /// Its absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the file where it is.
    pub(super) fn keep(self) {
        let mut this = ManuallyDrop::new(self);
        // Only the memory of the path is freed.
        drop(std::mem::take(&mut this.path));
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.origin.is_here() {
            return;
        }
        let now = fs::symlink_metadata(&self.path);
        if now.is_ok_and(|metadata| FileId::from(&metadata) == self.id) {
            // EACCES if the directory is no longer writable: the file is then stale, and the next
            // server with permission removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// O_PATH: a reference to the file itself, without opening it or following a link. While it is
/// held, no other file gets its inode number.
pub(super) fn handle(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW);
    options.open(path)
}

/// Whether a file is the one that the kernel created for the bind of `socket`; None if the kernel
/// does not tell. The numbers compared are the kernel's own: those of stat(2) differ on some file
/// systems.
fn is_file_of(file: &File, socket: BorrowedFd<'_>) -> Option<bool> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let inode =
        info.lines().find_map(|line| line.strip_prefix("ino:"))?.trim().parse::<u64>().ok()?;
    // The answer has 32 bits of it.
    Some(bound_inode(socket.as_raw_fd()).ok()? == inode as u32)
}

/// fchmod(2) before bind(2): sets the maximum permissions of a socket's file. Linux creates the
/// file with these bits, less those of the umask.
pub(crate) fn set_mode(socket: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    let duplicate = File::from(socket.try_clone_to_owned()?);
    duplicate.set_permissions(Permissions::from_mode(mode))
}

/// The obstacle to a bind.
enum Found {
    /// The file of an existing socket.
    Live,
    /// The file of a socket that no longer exists.
    Stale(File),
    /// Any other kind of file.
    Other(&'static str),
}

/// Examines the file at a path; None if there is none.
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
        // EPROTOTYPE: a stream socket. Success: a datagram socket. Any other error: assume a live
        // socket.
        _ => Ok(Some(Found::Live)),
    }
}

/// Prepares a new attempt after a bind failed with EADDRINUSE: removes a stale file, or returns an
/// error that names the obstacle. Waits until the deadline for another process that does the same.
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
    // First without the lock, whose file is not needed if the obstacle is never replaced.
    if stale()?.is_none() {
        return Ok(());
    }
    let lock = match Lock::take(path, deadline, waiter)? {
        Ok(lock) => lock,
        // The directory is gone, which the next attempt reports.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let lock = lock_path(path);
            return Err(in_doubt(&format!("its lock {} cannot be had", lock.display()), &error));
        }
    };
    // Another server may have removed or replaced the file meanwhile.
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

/// The right to remove a stale file. The lock's own file exists only while the lock is held.
struct Lock {
    path: PathBuf,
    // Closed after the file is removed, which releases the lock.
    file: File,
}

impl Lock {
    /// flock(2), retried until the deadline. The inner error is that of a system call.
    fn take(path: &Path, deadline: Instant, waiter: &mut dyn Waiter) -> Result<io::Result<Self>> {
        let path = lock_path(path);
        loop {
            let file = match Self::open(&path) {
                Ok(Some(file)) => file,
                Err(error) => return Ok(Err(error)),
                // Removed by another process between two calls.
                Ok(None) if Instant::now() < deadline => {
                    waiter.wait(&mut [], Some(Instant::now()))?;
                    continue;
                }
                Ok(None) => return Ok(Err(io::Error::from_raw_os_error(libc::EWOULDBLOCK))),
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
            // The previous holder has removed the file, and another process may have created a new
            // one. A lock on a file without a name excludes no other process.
            let held = file.metadata().map(|held| FileId::from(&held));
            match (fs::symlink_metadata(&path), held) {
                (Ok(now), Ok(held)) if FileId::from(&now) == held => {
                    return Ok(Ok(Self { path, file }));
                }
                (_, Err(error)) => return Ok(Err(error)),
                _ if deadline <= Instant::now() => {
                    return Ok(Err(io::Error::from_raw_os_error(libc::EWOULDBLOCK)));
                }
                // Looks for signals.
                _ => {
                    waiter.wait(&mut [], Some(Instant::now()))?;
                }
            }
        }
    }

    /// Opens the lock's file, creating it if needed. None if it was there and has just been
    /// removed. A file of another kind is an error, and so is ENOENT of the directory.
    fn open(path: &Path) -> io::Result<Option<File>> {
        let mut made = OpenOptions::new();
        made.write(true).create_new(true).mode(LOCK_MODE).custom_flags(libc::O_NOFOLLOW);
        match made.open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            file => return file.map(Some),
        }
        let mut found = OpenOptions::new();
        // O_NONBLOCK, so that opening a pipe does not wait for a writer.
        found.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = match found.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        if file.metadata()?.is_file() {
            return Ok(Some(file));
        }
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // A lock file that a user keeps there for another purpose is not removed.
        let ours = |metadata: Metadata| {
            metadata.len() == 0 && metadata.permissions().mode() & 0o7777 == LOCK_MODE
        };
        if self.file.metadata().is_ok_and(ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
