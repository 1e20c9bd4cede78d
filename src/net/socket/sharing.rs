//! Who uses a server's socket besides the server. Owns the file of a Unix socket while the server
//! is the only user; must never touch the socket itself.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::unix_file::{FileId, SocketFile};
use crate::net::base::Mutex;

/// The users of a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Users {
    /// The server alone.
    Server,
    /// The server was given the socket, which others may use: `fd=`.
    Given,
    /// The server has handed the socket on.
    HandedOver,
    /// None: the server has shut it down.
    Over,
}

struct State {
    users: Users,
    /// The file that a bind to a path has created.
    file: Option<SocketFile>,
}

/// The users of one socket. Shared by the socket's owner with those who may hand it on.
pub(crate) struct Sharing {
    state: Mutex<State>,
    /// Whether others may use the socket, for readers that take no lock.
    others: AtomicBool,
}

impl Sharing {
    /// `given` means that the caller has opened the socket.
    pub(super) fn new(given: bool) -> Self {
        let users = if given { Users::Given } else { Users::Server };
        Self { state: Mutex::new(State { users, file: None }), others: AtomicBool::new(given) }
    }

    /// Whether others may use the socket: it is then closed without shutdown(2), which would end it
    /// for them.
    pub(crate) fn has_others(&self) -> bool {
        self.others.load(SeqCst)
    }

    /// Whether the server has handed the socket on, so that what waits in its queue is for others.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.has_others() && self.state.lock().users == Users::HandedOver
    }

    /// Puts the file under the care of the server.
    pub(super) fn set_file(&self, file: SocketFile) {
        self.state.lock().file = Some(file);
    }

    /// The file that the server removes at its end.
    pub(super) fn file(&self) -> Option<FileId> {
        self.state.lock().file.as_ref().map(SocketFile::id)
    }

    /// The path of that file, and the file.
    pub(super) fn place(&self) -> Option<(PathBuf, FileId)> {
        self.state.lock().file.as_ref().map(|file| (file.path().to_owned(), file.id()))
    }

    /// Calls `duplicate`, and if it succeeds, notes that others use the socket from then on. None
    /// if the socket is shut down already.
    pub(crate) fn hand_over(
        &self,
        duplicate: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> Option<io::Result<OwnedFd>> {
        let mut state = self.state.lock();
        if state.users == Users::Over {
            return None;
        }
        let duplicate = duplicate();
        if duplicate.is_ok() {
            state.users = Users::HandedOver;
            self.others.store(true, SeqCst);
            // Others listen on it.
            state.file.take().into_iter().for_each(SocketFile::keep);
        }
        Some(duplicate)
    }

    /// Ends the server's use: removes the file. Whether the server is to shut the socket down.
    pub(super) fn end(&self) -> bool {
        let mut state = self.state.lock();
        let is_last = matches!(state.users, Users::Server | Users::Over);
        if is_last {
            state.users = Users::Over;
        }
        let file = state.file.take();
        drop(state);
        // Removes it.
        drop(file);
        is_last
    }
}
