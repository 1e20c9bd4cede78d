//! The step from clear text to TLS on a connection that is in use (STARTTLS). Owns its order, with
//! what is refused before it; must never let a byte that came in clear pass for a protected one.
//!
//! The connection goes to a worker with a stage of TLS, and the stream keeps one end of a socket
//! pair under the number that the descriptor had. No call reads ahead, so that what the program has
//! not read is in the kernel's queue, and is the first that TLS gets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::deadline::Deadline;
use super::option::{is_of_outer, set_option};
use super::owner::{InnerEnd, OuterPlace, Owned, Place};
use super::slot::StreamSocket;
use super::stream::{Held, Stream, seen};
use crate::net::address::Target;
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};
use crate::net::ledger::{Record, Role};
use crate::net::socket::Socket;
use crate::net::stage::Stage;
use crate::net::sys;

/// The call's name in errors.
const STEP: &str = "start_tls";
/// The type of a record with which every handshake begins (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// Makes a place on a worker for the connection of a client, and the client's end of a socket pair.
pub(crate) type Reserve<'a> =
    &'a mut dyn FnMut(Box<dyn Stage>) -> io::Result<(Socket, Box<dyn Place>)>;

/// A place on a worker, of a client or of a server.
enum Taker<'a> {
    Client(Box<dyn Place>),
    Server(&'a Owned, Box<dyn OuterPlace + 'a>),
}

impl Stream {
    /// Remembers the host of a connect.
    pub(super) fn note_host(&self, target: &Target) {
        let host = target.as_unix().is_none().then(|| target.host().into());
        *self.slot().host.lock() = host;
    }

    /// The host of the last connect, as given; None for a Unix socket.
    #[must_use]
    pub fn host(&self) -> Option<Box<str>> {
        self.slot().host.lock().clone()
    }

    /// Refuses a connection that cannot begin TLS now, whatever its stage is.
    fn check_start(&self, held: &Held<'_>) -> Result<&Arc<Record>> {
        let refused = |text| Err(Error::StreamState { step: STEP, target: self.peer_text(), text });
        let Some(record) = self.record() else {
            return Err(Error::errno(STEP, self.peer_text(), libc::ENOTCONN));
        };
        if record.tls().is_some() {
            return refused("the connection has TLS already");
        }
        if self.is_duplicated() {
            return refused(
                "a duplicate of the descriptor was made, which would go on in clear text",
            );
        }
        self.check_unread(held, record)?;
        Ok(record)
    }

    /// Refuses input that was sent in clear text behind what the program has read: it must not look
    /// as if it had been protected (CVE-2011-0411). A server's client may have begun its handshake.
    fn check_unread(&self, held: &Held<'_>, record: &Record) -> Result<()> {
        self.peek_from_start(STEP)?;
        let mut first = [0];
        match sys::recv(held.as_fd(), &mut first, libc::MSG_PEEK | libc::MSG_DONTWAIT) {
            Ok(1..) if record.role() == Role::Client || first[0] != HANDSHAKE => {
                Err(Error::StreamState {
                    step: STEP,
                    target: self.peer_text(),
                    text: "the peer has sent clear text that was not read; it must not pass for \
                           protected: close the connection",
                })
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                self.saw_error(&error);
                Err(Error::os(STEP, self.peer_text(), &error))
            }
            // An end is found by the handshake.
            _ => Ok(()),
        }
    }

    /// Begins TLS by the stage that `make` makes, and waits for the end of the handshake. What the
    /// program has sent before goes ahead of it, in clear text. A connection whose handshake fails
    /// is reset.
    pub(crate) fn start_tls(
        &self,
        make: impl FnOnce() -> Result<Box<dyn Stage>>,
        reserve: Reserve<'_>,
        waiter: &mut dyn Waiter,
    ) -> Result<()> {
        self.origin().check()?;
        let mut deadline = self.deadline(0);
        self.check_wait(&deadline)?;
        let held = self.hold(STEP)?;
        let record = Arc::clone(self.check_start(&held)?);
        let stage = make()?;
        if self.seen.fetch_or(seen::TLS, SeqCst) & seen::TLS != 0 {
            let text = "TLS was begun by another call";
            return Err(Error::StreamState { step: STEP, target: self.peer_text(), text });
        }
        let begun = match self.outer() {
            Some(outer) => outer.start_tls(stage),
            None => self.move_to_worker(&held, &record, stage, reserve),
        };
        if let Err(error) = begun {
            // Nothing has changed.
            self.unsee(seen::TLS);
            if self.is_closed() {
                return Err(self.closed_error(STEP));
            }
            return Err(Error::os(STEP, self.peer_text(), &error));
        }
        let done = self.wait_for_opening(STEP, self.peer_text(), &mut deadline, waiter);
        match &done {
            // The worker ends the connection behind the alert, which a reset would destroy.
            Err(Error::Tls { .. }) if self.is_here() => drop(self.close_unawaited()),
            Err(_) if self.is_here() => self.abort(),
            _ => {}
        }
        done
    }

    fn check_wait(&self, deadline: &Deadline) -> Result<()> {
        if self.is_datagram() {
            let hint = "TLS needs a stream, and datagrams are none".to_owned();
            let (target, errno) = (self.peer_text(), libc::EOPNOTSUPP);
            return Err(Error::Os { step: STEP, target, errno, hint });
        }
        if deadline.timeout == Some(Duration::ZERO) {
            return Err(Error::Value(
                "start_tls: the call waits for the handshake; set the time-out to 0 after it"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// Gives the connection to a worker, and the descriptor's number to one end of a socket pair.
    fn move_to_worker(
        &self,
        held: &Held<'_>,
        record: &Arc<Record>,
        stage: Box<dyn Stage>,
        reserve: Reserve<'_>,
    ) -> io::Result<()> {
        let (inner, taker) = match self.owned() {
            Some(owned) => {
                let (inner, place) = owned.owner.reserve(stage)?;
                (inner, Taker::Server(owned, place))
            }
            None => {
                let (inner, place) = reserve(stage)?;
                (inner, Taker::Client(place))
            }
        };
        self.copy_options(held, &inner);
        let outer: OwnedFd = held.as_fd().try_clone_to_owned()?;
        let outer = Socket::new(outer);
        outer.options().set_nonblocking(true)?;
        // From here on a query of the record asks the number that stays with the connection.
        record.socket_moved(outer.as_fd());
        if let Err(error) = inner.replace(held) {
            record.socket_moved(held.as_fd());
            let _ = outer.options().set_nonblocking(false);
            outer.close_copy();
            return Err(error);
        }
        self.renewals.fetch_add(1, SeqCst);
        // The totals count one that is not completed. A worker that has the connection already notes
        // this itself.
        record.begin_handshake();
        let socket = Arc::clone(held.socket.as_ref().expect("held"));
        let inner: Weak<dyn InnerEnd> = Arc::<StreamSocket>::downgrade(&socket);
        drop(socket);
        match taker {
            Taker::Client(place) => self.put_owned(place.take(outer, record, inner)),
            Taker::Server(owned, place) => match place.take(outer, record, inner) {
                Some(outer) => owned.set_outer(outer),
                None => return Err(io::Error::from_raw_os_error(libc::EBADF)),
            },
        }
        Ok(())
    }

    /// Gives the pair the options of the socket that hold for waits.
    fn copy_options(&self, held: &Held<'_>, inner: &Socket) {
        for (level, name, value) in &*self.slot().set_options.lock() {
            if !is_of_outer(*level, *name) {
                // The outer socket has it already; the pair may lack it.
                let _ = set_option(inner.as_fd(), *level, *name, value);
            }
        }
        if self.has_seen(seen::TIMEO) {
            let (from, to) = (held.options(), inner.options());
            let _ = from.read_timeout().and_then(|time| to.set_read_timeout(time));
            let _ = from.write_timeout().and_then(|time| to.set_write_timeout(time));
        }
    }
}
