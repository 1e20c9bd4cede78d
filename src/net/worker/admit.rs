//! One attempt to accept a connection: accept4, admission, record. Owns the order of these steps;
//! must never wait, nor decide what follows an error.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::accept_errors::{Failure, classify};
use super::open_record::open_record;
use super::sink::Accepted;
use crate::net::address::Address;
use crate::net::base::Mutex;
use crate::net::control::{Overflow, ServerContext, TokenBucket};
use crate::net::ledger::Refusal;
use crate::net::socket::{Listener, Socket, Taken};

/// The result of an attempt.
pub(crate) enum Attempt {
    Accepted(Accepted),
    /// The connection exceeded a limit, or its peer is not served, and it was reset.
    Refused,
    /// No more connections may be accepted until then. The next one stays in the queue.
    TooFast(Instant),
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
    /// `Limits.accept_rate`.
    rate: Option<Mutex<TokenBucket>>,
    /// Held for an attempt by a server that refuses excess connections, or has a rate. An attempt
    /// has a slot and a token while it finds the queue empty, and another one would refuse a
    /// connection, or wait, for that.
    alone: Mutex<()>,
}

impl Admitter {
    pub(crate) fn new(context: Arc<ServerContext>, local: Address) -> Self {
        let rate = context.limits.accept_rate.map(|rate| Mutex::new(TokenBucket::new(rate)));
        Self { context, local, rate, alone: Mutex::new(()) }
    }

    /// The address of the listener.
    pub(crate) fn local(&self) -> &Address {
        &self.local
    }

    /// Calls accept4(2) if the limits allow it. Never blocks.
    pub(crate) fn attempt(&self, listener: &Listener, nonblocking: bool) -> Attempt {
        let admission = &self.context.admission;
        let refuses = self.context.limits.overflow == Overflow::Refuse;
        let _alone = (refuses || self.rate.is_some()).then(|| self.alone.lock());
        let too_fast = self.take_token().err();
        if let Some(until) = too_fast.filter(|_| !refuses) {
            return Attempt::TooFast(until);
        }
        // The slot is taken first, so that no connection is accepted without one.
        let admitted = admission.enter();
        let give_back = || {
            if admitted {
                admission.give_back();
            }
            if too_fast.is_none() {
                self.give_back_token();
            }
        };
        if !admitted && !refuses {
            give_back();
            return Attempt::Full;
        }
        match listener.accept(nonblocking) {
            Ok(Some(Taken { fd, peer, was_held })) => {
                let socket = Socket::new(fd);
                let host = || peer.as_ref().and_then(Address::as_ip);
                let is_proxy = peer.as_ref().is_some_and(|peer| self.context.is_proxy(peer));
                let refusal = match self.context.access.refusal(peer.as_ref()) {
                    Some(refusal) => Some(refusal),
                    None if too_fast.is_some() => Some(Refusal::AcceptRate),
                    None if !admitted => Some(Refusal::Connections),
                    // The slot is that of the client, whom the header names.
                    None if is_proxy => None,
                    None => (!admission.enter_host(host())).then_some(Refusal::PerHost),
                };
                if let Some(refusal) = refusal {
                    give_back();
                    self.refuse(socket, refusal);
                    return Attempt::Refused;
                }
                let id = self.context.resets.next_id();
                let record = open_record(&socket, id, peer, &self.local, &self.context);
                if is_proxy {
                    record.expect_proxy();
                }
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

    fn take_token(&self) -> Result<(), Instant> {
        self.rate.as_ref().map_or(Ok(()), |rate| rate.lock().take(Instant::now()))
    }

    fn give_back_token(&self) {
        if let Some(rate) = &self.rate {
            rate.lock().give_back();
        }
    }

    /// Resets a connection that is not served.
    pub(crate) fn refuse(&self, socket: Socket, reason: Refusal) {
        self.context.ledger.count_refused(reason);
        socket.abort();
    }
}
