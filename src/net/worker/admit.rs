//! One attempt to accept a connection: accept4, admission, record. Owns the order of these steps;
//! must never wait, nor decide what follows an error.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::accept_errors::{Failure, classify};
use super::open_record::open_record;
use super::sink::Accepted;
use crate::net::address::Address;
use crate::net::base::Mutex;
use crate::net::control::{Overflow, ServerContext};
use crate::net::socket::{Listener, Socket, Taken};

/// The result of an attempt.
pub(crate) enum Attempt {
    Accepted(Accepted),
    /// The connection exceeded a limit, and was reset.
    Refused,
    /// The limit of connections is reached. The next connection stays in the queue.
    Full,
    /// The queue is empty.
    Empty,
    /// The listener holds back what is in the queue.
    Held,
    /// This connection was lost; the next one may succeed.
    Lost(io::Error),
    /// The process or the system is out of descriptors or memory.
    Exhausted(io::Error),
    /// The descriptor is not a listening socket any more.
    Fatal(io::Error),
}

/// Accepts the connections of one server.
pub(crate) struct Admitter {
    context: Arc<ServerContext>,
    local: Address,
    next_id: AtomicU64,
    /// Held for an attempt by a server that refuses excess connections. An attempt has a slot while
    /// it finds the queue empty, and another one would refuse a connection for that.
    alone: Mutex<()>,
}

impl Admitter {
    pub(crate) fn new(context: Arc<ServerContext>, local: Address) -> Self {
        Self { context, local, next_id: AtomicU64::new(1), alone: Mutex::new(()) }
    }

    /// The address of the listener.
    pub(crate) fn local(&self) -> &Address {
        &self.local
    }

    /// Calls accept4(2) if the limits allow it. Never blocks.
    pub(crate) fn attempt(&self, listener: &Listener, nonblocking: bool) -> Attempt {
        let admission = &self.context.admission;
        let refuses = self.context.limits.overflow == Overflow::Refuse;
        let _alone = refuses.then(|| self.alone.lock());
        // The slot is taken first, so that no connection is accepted without one.
        let admitted = admission.enter();
        if !admitted && !refuses {
            return Attempt::Full;
        }
        let give_back = || {
            if admitted {
                admission.give_back();
            }
        };
        match listener.accept(nonblocking) {
            Ok(Some(Taken { fd, peer, was_held })) => {
                let socket = Socket::new(fd);
                if !admitted || !admission.enter_host(peer.as_ref().and_then(Address::as_ip)) {
                    give_back();
                    self.refuse(socket);
                    return Attempt::Refused;
                }
                let id = self.next_id.fetch_add(1, Relaxed);
                let record = open_record(&socket, id, peer, &self.local, &self.context);
                if was_held {
                    self.context.listening.note_held(&record);
                }
                let entry_id = self.context.ledger.open(&record);
                Attempt::Accepted(Accepted { socket, record, entry_id })
            }
            Ok(None) => {
                give_back();
                Attempt::Held
            }
            Err(error) => {
                give_back();
                let failure = classify(error.raw_os_error().unwrap_or(libc::EIO));
                if failure != Failure::Empty {
                    self.context.ledger.count_accept_error();
                }
                match failure {
                    Failure::Empty => Attempt::Empty,
                    Failure::Connection => Attempt::Lost(error),
                    Failure::Exhausted => Attempt::Exhausted(error),
                    Failure::Fatal => Attempt::Fatal(error),
                }
            }
        }
    }

    /// Resets a connection that exceeds a limit.
    pub(crate) fn refuse(&self, socket: Socket) {
        self.context.ledger.count_refused();
        socket.abort();
    }
}
