//! The channel by which other threads reach a worker. Owns the flag that wakes the worker's poller;
//! must never block.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use crossbeam_channel::{Receiver, Sender};

use super::sink::{Accepted, Inner};
use crate::net::base::EventFd;
use crate::net::connection::LingeringSocket;
use crate::net::control::{ServerContext, ShutdownListener};
use crate::net::service::Notifier;
use crate::net::stage::faults::{Ack, FaultListener};

/// A request to a worker.
pub(crate) enum Message {
    Adopt(Accepted),
    /// The same, with the worker's end of a socket pair for its upstream leg.
    AdoptOuter(Accepted, Inner),
    /// One that a handler has closed, to be ended lingeringly.
    Linger(LingeringSocket),
    /// Wakes the session with this token.
    Wake(u64),
    /// The faults of the server have changed.
    Faults(Ack),
    /// No more connections follow. The worker ends those that it has, until the deadline of the
    /// shutdown.
    Drain,
    /// The deadline of the shutdown is earlier now.
    Deadline,
    /// The start of the server failed: the worker ends at once.
    Quit,
}

/// The sending end of a worker's channel.
///
/// The channel itself is unbounded. It holds at most one `Adopt` for each connection that the limit
/// admits, one `Wake` for each session, and one message for each call of `stop`
/// and for each change of the faults.
pub(crate) struct Inbox {
    sender: Sender<Message>,
    pub(super) flag: Arc<EventFd>,
    /// The worker polls or is about to, so that a sender must set the flag.
    pub(super) asleep: AtomicBool,
    /// The number of connections that this worker owns or is about to own.
    pub(crate) load: AtomicUsize,
}

impl Inbox {
    /// Creates the channel of a worker whose poller watches `flag`, and returns both ends.
    pub(super) fn new(flag: Arc<EventFd>) -> (Arc<Self>, Receiver<Message>) {
        let (sender, messages) = crossbeam_channel::unbounded();
        let (asleep, load) = (AtomicBool::new(false), AtomicUsize::new(0));
        (Arc::new(Self { sender, flag, asleep, load }), messages)
    }

    pub(crate) fn send(&self, message: Message) {
        // Fails only if the worker has ended. The message is dropped, which closes its socket.
        let _ = self.sender.send(message);
        if self.asleep.swap(false, SeqCst) {
            self.flag.set();
        }
    }

    /// The same. The server ends if the program has closed the flag, which wakes the worker.
    pub(crate) fn send_or_end(&self, message: Message, context: &ServerContext) {
        self.send(message);
        if self.is_lost() {
            context.lose();
        }
    }

    /// Whether the program has closed the flag, as far as that was noticed: the worker is not
    /// woken.
    pub(crate) fn is_lost(&self) -> bool {
        self.flag.is_lost()
    }

    /// Whether the worker waits in its poll.
    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep.load(Relaxed)
    }
}

impl ShutdownListener for Inbox {
    fn deadline_moved(&self) -> bool {
        self.send(Message::Deadline);
        !self.is_lost()
    }
}

impl FaultListener for Inbox {
    fn faults_changed(&self, ack: Ack) {
        self.send(Message::Faults(ack));
    }

    fn is_lost(&self) -> bool {
        self.flag.is_lost()
    }
}

impl Notifier for Inbox {
    fn notify(&self, token: u64) {
        self.send(Message::Wake(token));
    }
}
