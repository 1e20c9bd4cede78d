//! The socket of a stream, as one process has it. Owns the descriptor with what calls change of it;
//! must never use what a thread of another process may have locked.

use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use super::option::OptionValue;
use super::owner::InnerEnd;
use super::turn::Turn;
use crate::net::address::Address;
use crate::net::base::{EventFd, Mutex, Origin};
use crate::net::socket::Socket;
use crate::net::sys;

/// The socket of a stream.
#[derive(Debug)]
pub(crate) struct StreamSocket {
    socket: Option<Socket>,
    /// Whether a close leaves the connection to other copies of the descriptor.
    shared: AtomicBool,
}

impl StreamSocket {
    fn new(socket: Socket, shared: bool) -> Self {
        Self { socket: Some(socket), shared: AtomicBool::new(shared) }
    }

    /// From here on a close leaves the connection to other copies of the descriptor.
    pub(super) fn share(&self) {
        self.shared.store(true, Relaxed);
    }

    /// close(2), which waits for the peer as long as SO_LINGER says. A drop never waits.
    pub(super) fn close(mut self) {
        let shared = *self.shared.get_mut();
        if let Some(socket) = self.socket.take() {
            if shared { socket.close_copy() } else { socket.close() }
        }
    }

    /// The same on a thread of its own, if it waits.
    pub(super) fn close_apart(mut self) {
        let close = if *self.shared.get_mut() { Socket::close_copy } else { Socket::close };
        if let Some(socket) = self.socket.take() {
            socket.close_apart(close);
        }
    }

    /// Whether a close leaves the connection to other copies of the descriptor.
    pub(super) fn is_shared(&self) -> bool {
        self.shared.load(Relaxed)
    }

    /// The socket alone, whose close ends the connection.
    pub(super) fn into_socket(mut self) -> Socket {
        self.socket.take().expect("taken by this and drop only, and both consume")
    }
}

impl InnerEnd for StreamSocket {
    fn leave_unread(&self) {
        // EPIPE, EAGAIN: it has finished, or there is unread data already.
        let _ = sys::send(self.as_fd(), &[0], libc::MSG_DONTWAIT);
    }

    fn take_unread(&self) -> Vec<u8> {
        let mut taken = Vec::new();
        let mut part = [0; 4096];
        // EAGAIN: there is no more.
        while let Ok(count @ 1..) = sys::recv(self.as_fd(), &mut part, libc::MSG_DONTWAIT) {
            taken.extend_from_slice(&part[..count]);
        }
        taken
    }
}

impl Deref for StreamSocket {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        self.socket.as_ref().expect("taken by into_socket and drop only, and both consume")
    }
}

impl Drop for StreamSocket {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.take().filter(|_| *self.shared.get_mut()) {
            socket.close_apart(Socket::close_copy);
        }
    }
}

/// What calls change of a stream, in one process.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(super) origin: Origin,
    /// Taken by `close`. Running calls hold a clone; the last of them frees the descriptor.
    pub(crate) socket: Mutex<Option<Arc<StreamSocket>>>,
    /// The descriptor, for a forked child; -1 from before it is closed.
    number: AtomicI32,
    /// The options set with `setsockopt`, for a socket that replaces this one in `connect`.
    pub(crate) set_options: Mutex<Vec<(i32, i32, OptionValue)>>,
    pub(crate) peer: Mutex<Option<Address>>,
    /// The address of a `connect` whose outcome is not known yet.
    pub(crate) pending: Mutex<Option<Address>>,
    /// The host of the last connect, which a certificate has to name.
    pub(super) host: Mutex<Option<Box<str>>>,
    /// Set by a close, while `connect` waits for sockets that are not the stream's own yet.
    pub(super) racing: Mutex<Option<Arc<EventFd>>>,
    /// The order of threads that send frames.
    pub(super) turn: Arc<Turn>,
    /// The same in a forked child, from its first use on.
    inherited: OnceLock<Box<Self>>,
}

impl Slot {
    pub(super) fn new(socket: Socket, origin: Origin, peer: Option<Address>) -> Self {
        Self::of(origin, Some(StreamSocket::new(socket, false)), peer)
    }

    /// The slot of a stream that has no socket.
    pub(super) fn empty() -> Self {
        Self::of(Origin::here(), None, None)
    }

    fn of(origin: Origin, socket: Option<StreamSocket>, peer: Option<Address>) -> Self {
        let number = socket.as_ref().map_or(-1, |socket| socket.as_fd().as_raw_fd());
        Self {
            origin,
            number: AtomicI32::new(number),
            socket: Mutex::new(socket.map(Arc::new)),
            set_options: Mutex::default(),
            peer: Mutex::new(peer),
            pending: Mutex::default(),
            host: Mutex::default(),
            racing: Mutex::default(),
            turn: Arc::default(),
            inherited: OnceLock::new(),
        }
    }

    /// The slot of the calling process. A forked child makes its own: a thread that it does not
    /// have may have held the locks at the fork, or a clone of the socket.
    pub(super) fn here(&self) -> &Self {
        let mut slot = self;
        while !slot.origin.is_here() {
            slot = slot.inherited.get_or_init(|| Box::new(slot.inherit()));
        }
        slot
    }

    fn inherit(&self) -> Self {
        let socket = sys::adopt(self.number.load(SeqCst)).ok();
        let socket = socket.map(|fd| StreamSocket::new(Socket::new(fd), true));
        Self {
            set_options: copied(&self.set_options),
            peer: copied(&self.peer),
            pending: copied(&self.pending),
            host: copied(&self.host),
            ..Self::of(Origin::here(), socket, None)
        }
    }

    /// Takes the socket, which its last user closes.
    pub(super) fn take(&self) -> Option<Arc<StreamSocket>> {
        self.number.store(-1, SeqCst);
        self.socket.lock().take()
    }

    /// Takes the socket if no call uses it. Otherwise returns whether there is one.
    pub(super) fn take_idle(&self) -> std::result::Result<StreamSocket, bool> {
        let mut slot = self.socket.lock();
        let Some(socket) = slot.take() else { return Err(false) };
        match Arc::try_unwrap(socket) {
            Ok(socket) => {
                self.number.store(-1, SeqCst);
                Ok(socket)
            }
            Err(shared) => {
                *slot = Some(shared);
                Err(true)
            }
        }
    }

    /// The number of the descriptor. -1 once closed.
    pub(super) fn fileno(&self) -> RawFd {
        self.number.load(SeqCst)
    }

    /// Closes the descriptor in a forked child, and leaves alone what belongs to its parent.
    pub(super) fn leave(&mut self) {
        if self.origin.is_here() {
            return;
        }
        std::mem::forget(self.socket.get_mut().take());
        match self.inherited.get_mut() {
            Some(inherited) => inherited.leave(),
            None => drop(sys::adopt(self.number.load(SeqCst))),
        }
    }
}

/// A copy of what a parent process guarded; empty if it was locked at the fork.
fn copied<T: Clone + Default>(of: &Mutex<T>) -> Mutex<T> {
    Mutex::new(of.try_lock().map_or_else(T::default, |value| value.clone()))
}
