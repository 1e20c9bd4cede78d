//! How the socket of a connection is closed: by FIN or by RST, as the kernel decides it. Must never
//! close a socket.

use std::os::fd::BorrowedFd;

use super::closed_by::ClosedBy;
use crate::net::address::Transport;
use crate::net::socket::{TcpInfo, close_resets};
use crate::net::sys;

/// How the owner of a connection closes its socket, right after the record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SocketClose<'a> {
    /// By close(2). `resets` is whether SO_LINGER makes that a reset.
    Plain { socket: BorrowedFd<'a>, resets: bool },
    /// By a reset.
    Reset(BorrowedFd<'a>),
    /// By a reset of the outer connection, whose worker closes the record too.
    ResetByWorker,
    /// Not now: it lingers, another owner goes on using it, or there is none of its own.
    None,
}

/// States of TCP (include/net/tcp_states.h).
const ESTABLISHED: u8 = 1;
const SYN_RECV: u8 = 3;
const FIN_WAIT1: u8 = 4;
const FIN_WAIT2: u8 = 5;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LAST_ACK: u8 = 9;
const CLOSING: u8 = 11;

impl SocketClose<'_> {
    /// The same, where the socket has to be asked for its SO_LINGER.
    pub(crate) fn with_linger(self) -> Self {
        match self {
            Self::Plain { socket, .. } => Self::Plain { socket, resets: close_resets(&socket) },
            other => other,
        }
    }

    /// Whether it is a reset whatever the state of the socket.
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self, Self::Reset(_) | Self::ResetByWorker)
    }

    /// Whether the kernel sends RST, as `__tcp_close` and `tcp_disconnect` (net/ipv4/tcp.c) decide:
    /// where data was not read, or where the close is a reset and the connection has not ended in
    /// both directions. Of a Unix socket, whether its peer gets ECONNRESET, which only unread data
    /// causes.
    ///
    /// `received` is how many bytes were read. The kernel is asked for unread data only where
    /// `info`, which is there anyway, does not show that there is none.
    pub(super) fn sends_reset(
        self,
        transport: Transport,
        by: ClosedBy,
        received: u64,
        info: Option<&TcpInfo>,
    ) -> bool {
        let (socket, resets) = match self {
            Self::Plain { socket, resets } => (socket, resets),
            Self::Reset(socket) => (socket, true),
            Self::ResetByWorker | Self::None => return false,
        };
        let has_unread = || sys::unread(socket) > 0;
        match (transport, info) {
            (Transport::Udp | Transport::UnixDatagram, _) => false,
            // All was read up to the peer's end.
            (Transport::Unix, _) => by != ClosedBy::Peer && has_unread(),
            (Transport::Tcp, None) => resets || has_unread(),
            (Transport::Tcp, Some(info)) => {
                let (state, unsent) = (info.raw.state, info.raw.notsent_bytes > 0);
                let has_ended = match state {
                    ESTABLISHED | SYN_RECV | FIN_WAIT1 | FIN_WAIT2 | CLOSE_WAIT => false,
                    LAST_ACK | CLOSING => !unsent,
                    _ => true,
                };
                // The kernel counts the peer's FIN as a byte.
                let fin = u64::from(matches!(state, CLOSE_WAIT | LAST_ACK | CLOSING));
                let may_have_unread = info.raw.bytes_received > received + fin;
                state != CLOSE && (resets && !has_ended || may_have_unread && has_unread())
            }
        }
    }
}
