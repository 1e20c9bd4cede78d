//! One leg of a connection: its socket and what the engine knows of it. Must never decide what is done
//! with it.

#![allow(
    clippy::box_collection,
    clippy::vec_box,
    reason = "an idle leg holds a null pointer, where an empty collection takes three words"
)]

use std::num::NonZeroI32;

use super::outbox::Outbox;
use crate::net::address::endpoint::Transport;
use crate::net::service::session::Leg;
use crate::net::socket::socket::Socket;

/// Where our FIN on a leg stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    Open,
    /// To be sent behind what is in the outbox.
    Wanted,
    Sent,
}

/// One socket of a session, with what the engine knows of it.
pub(super) struct Wire {
    pub(super) socket: Socket,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The event said RDHUP, HUP, ERR or PRI: read until EAGAIN.
    pub(super) drain_to_eagain: bool,
    /// The event said ERR, and nobody has been told of it yet.
    pub(super) failed: bool,
    /// Always careful: a Unix socket ends a read behind each message with descriptors, which says
    /// nothing of what comes after it.
    pub(super) unix: bool,
    pub(super) connecting: bool,
    /// The peer's FIN has been read.
    pub(super) eof: bool,
    /// The session, or the pipe, knows of it.
    pub(super) eof_told: bool,
    pub(super) fin: Fin,
    /// The errno of a send that failed while there may be something left to read and pass on.
    pub(super) send_error: Option<NonZeroI32>,
    /// The session does not want input.
    pub(super) paused: bool,
    /// The outbox has reached high water and not yet low water again.
    pub(super) blocked: bool,
    /// `write` fell short: the session is owed a `low_water`.
    pub(super) short: bool,
    /// The rest in the inbox is to be offered again.
    pub(super) offer: bool,
    /// So much comes in that a pipe is better moved without looking at it.
    pub(super) bulk: bool,
    pub(super) pipe_to: Option<Leg>,
    pub(super) outbox: Option<Box<Outbox>>,
    pub(super) inbox: Option<Box<Vec<u8>>>,
}

impl Wire {
    pub(super) fn new(socket: Socket, transport: Transport) -> Self {
        Self {
            socket,
            unix: transport == Transport::Unix,
            // Tried at once: by the time a worker sees a connection its first bytes are often there.
            readable: true,
            writable: true,
            drain_to_eagain: false,
            failed: false,
            connecting: false,
            eof: false,
            eof_told: false,
            fin: Fin::Open,
            send_error: None,
            paused: false,
            blocked: false,
            short: false,
            offer: false,
            bulk: false,
            pipe_to: None,
            outbox: None,
            inbox: None,
        }
    }

    pub(super) fn unsent(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.len())
    }

    pub(super) fn unused(&self) -> usize {
        self.inbox.as_ref().map_or(0, |inbox| inbox.len())
    }
}
