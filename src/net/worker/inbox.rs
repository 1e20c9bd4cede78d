//! How other threads reach a worker: a channel with a flag that wakes its poller. Must never block.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use crossbeam_channel::{Receiver, Sender};

use super::sink::Accepted;
use crate::net::base::EventFd;
use crate::net::connection::LingeringSocket;
use crate::net::control::ShutdownListener;
use crate::net::service::Notifier;
use crate::net::socket::Socket;

/// What a worker is asked to do.
pub(crate) enum Message {
    Adopt(Accepted),
    /// The same, with the worker's end of a socket pair for its upstream leg.
    AdoptOuter(Accepted, Socket),
    /// One that a handler has closed, to be ended lingeringly.
    Linger(LingeringSocket),
    /// A session is woken, by its token.
    Wake(u64),
    /// No more connections come; end the ones there are, until the deadline of the shutdown.
    Drain,
    /// That deadline has come nearer.
    Deadline,
    /// The server did not come to serve after all.
    Quit,
}

/// How others reach a worker.
///
/// The channel has no bound of its own: it holds at most one `Adopt` for each connection that the
/// limit admits, one `Wake` for each session, and one message for each call of `stop`.
pub(crate) struct Inbox {
    sender: Sender<Message>,
    pub(super) flag: Arc<EventFd>,
    /// The worker is about to poll, or polls: whoever sends must ring.
    pub(super) asleep: AtomicBool,
    /// Connections that this worker owns or is about to.
    pub(crate) load: AtomicUsize,
}

impl Inbox {
    /// A channel to a worker whose poller `flag` wakes, and the end that the worker reads.
    pub(super) fn new(flag: Arc<EventFd>) -> (Arc<Self>, Receiver<Message>) {
        let (sender, messages) = crossbeam_channel::unbounded();
        let (asleep, load) = (AtomicBool::new(false), AtomicUsize::new(0));
        (Arc::new(Self { sender, flag, asleep, load }), messages)
    }

    pub(crate) fn send(&self, message: Message) {
        // Fails only where the worker has ended; the message is dropped and with it its socket.
        let _ = self.sender.send(message);
        if self.asleep.swap(false, SeqCst) {
            self.flag.set();
        }
    }

    /// Whether the worker waits for something to do.
    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep.load(Relaxed)
    }
}

impl ShutdownListener for Inbox {
    fn deadline_moved(&self) {
        self.send(Message::Deadline);
    }
}

impl Notifier for Inbox {
    fn notify(&self, token: u64) {
        self.send(Message::Wake(token));
    }
}
