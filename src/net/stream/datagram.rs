//! The calls that only a UDP client has. It sends to any address, and receives from any. Owns the
//! choice of the destination address; must never join or split a datagram.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use socket2::Domain;

use super::deadline::Deadline;
use super::stream::{Stream, seen};
use super::wait::Interest;
use crate::net::address::{Address, Target, Transport, UnixName, display, resolve};
use crate::net::base::{Waiter, pause};
use crate::net::error::{Error, Result};
use crate::net::socket::Socket;
use crate::net::sys::{self, Name};

/// Interval between the tries to send to a Unix socket whose queue is full.
const FULL_QUEUE: Duration = Duration::from_millis(1);

impl Stream {
    /// The transport of the socket.
    #[must_use]
    pub fn transport(&self) -> Transport {
        // A stream's current family decides, not the one that it was opened with.
        match self.transport {
            Transport::UnixDatagram => Transport::UnixDatagram,
            _ if self.is_unix() => Transport::Unix,
            transport => transport,
        }
    }

    /// Whether each send is a message of its own.
    pub(super) fn is_datagram(&self) -> bool {
        self.transport.is_datagram()
    }

    /// EOPNOTSUPP for a call that looks for the end of a message in a stream of bytes.
    pub(super) fn needs_stream(&self, step: &'static str) -> Result<()> {
        if !self.is_datagram() {
            return Ok(());
        }
        let hint = "a datagram is a message of its own: recv and recvfrom return one per call";
        let (target, errno) = (self.peer_text(), libc::EOPNOTSUPP);
        Err(Error::Os { step, target, errno, hint: hint.to_owned() })
    }

    /// Calls sendto(2) for one datagram. A stream sends to its peer, as `send` does. Name
    /// resolution may block.
    pub fn send_to(
        &self,
        data: &[u8],
        flags: i32,
        target: &Target,
        waiter: &mut dyn Waiter,
    ) -> Result<usize> {
        if !self.is_datagram() {
            return self.send(data, flags, waiter);
        }
        let step = "sendto";
        let (address, name) = self.destination(step, target, waiter)?;
        let Some(ip) = address.as_ip() else {
            let parts = [IoSlice::new(data)];
            let sent =
                self.send_when_there_is_room(step, flags, &address, waiter, |fd, flags| {
                    sys::sendmsg(fd, &parts, &[], Some(&name), flags)
                })?;
            self.count_sent(sent, [data]);
            return Ok(sent);
        };
        let mut deadline = self.send_deadline(flags);
        let sent = self.attempt(step, Interest::Writable, 0, &mut deadline, waiter, |fd, wait| {
            sys::send_to(fd, data, ip, flags | wait)
        });
        let sent = sent.map_err(|error| at(error, &address))?;
        self.count_sent(sent, [data]);
        Ok(sent)
    }

    /// Sends a Unix datagram to an address. Where the receiver's queue is full, it tries again: of
    /// a socket that is not connected, poll(2) does not report that there is room.
    pub(super) fn send_when_there_is_room(
        &self,
        step: &'static str,
        flags: i32,
        address: &Address,
        waiter: &mut dyn Waiter,
        mut send: impl FnMut(BorrowedFd<'_>, i32) -> std::io::Result<usize>,
    ) -> Result<usize> {
        let mut deadline = self.send_deadline(flags);
        loop {
            let socket = self.hold(step)?;
            let error = match send(socket.as_fd(), flags | libc::MSG_DONTWAIT) {
                Ok(sent) => return Ok(sent),
                Err(error) => error,
            };
            drop(socket);
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) if deadline.timeout != Some(Duration::ZERO) => {
                    if deadline.at().is_some_and(|at| at <= Instant::now()) {
                        // SO_SNDTIMEO ends a call with EAGAIN.
                        return Err(match deadline.is_option {
                            true => Error::errno(step, address, libc::EAGAIN),
                            false => Error::TimedOut { step, target: address.to_string() },
                        });
                    }
                    pause(waiter, FULL_QUEUE, deadline.at())?;
                }
                _ => return Err(Error::os(step, address, &error)),
            }
        }
    }

    /// Resolves the address for a datagram to `target`. A socket that has not been used yet changes
    /// to the family of that address.
    pub(super) fn destination(
        &self,
        step: &'static str,
        target: &Target,
        waiter: &mut dyn Waiter,
    ) -> Result<(Address, Name)> {
        if self.transport == Transport::UnixDatagram {
            let none = || Error::errno(step, target, libc::EAFNOSUPPORT);
            let name = target.as_unix().ok_or_else(none)?;
            return Ok((Address::Unix(name.clone()), Name::of_unix(name.bytes())));
        }
        let address = self.ip_destination(step, target, waiter)?;
        Ok((Address::Ip(address), Name::new(address)))
    }

    fn ip_destination(
        &self,
        step: &'static str,
        target: &Target,
        waiter: &mut dyn Waiter,
    ) -> Result<SocketAddr> {
        // Name resolution blocks even on a non-blocking socket, as in any `sendto`.
        let timeout = self.timeout().filter(|timeout| !timeout.is_zero());
        let found = resolve::addresses(target, false, Deadline::new(timeout).at(), waiter)?;
        let found: Vec<_> = found.iter().filter_map(Address::as_ip).collect();
        if found.is_empty() {
            return Err(Error::errno(step, target, libc::EAFNOSUPPORT));
        }
        let socket = self.hold(step)?;
        let failed = |error: std::io::Error| Error::os(step, target, &error);
        let domain = socket.options().domain().map_err(failed)?;
        let fits = |address: &&SocketAddr| Domain::for_address(**address) == domain;
        let address = *found.iter().find(fits).unwrap_or(&found[0]);
        if fits(&&address) {
            return Ok(address);
        }
        let local = socket.options().local_addr().map_err(failed)?.as_socket();
        if local.is_none_or(|local| local.port() == 0) {
            self.renew(&socket, Domain::for_address(address)).map_err(failed)?;
            return Ok(address);
        }
        match address {
            // An IPv6 socket also reaches IPv4, unless IPV6_V6ONLY is set.
            SocketAddr::V4(v4) if domain == Domain::IPV6 => {
                Ok(SocketAddr::new(IpAddr::V6(v4.ip().to_ipv6_mapped()), v4.port()))
            }
            _ => Err(Error::errno(step, display(&address), libc::EAFNOSUPPORT)),
        }
    }

    /// Binds a new UDP socket to the client's source address: bind(2).
    pub(super) fn bind_source(socket: &Socket, source: SocketAddr) -> Result<()> {
        let bound = socket.options().bind(&source.into());
        bound.map_err(|error| Error::os("bind", display(&source), &error))
    }

    /// Binds a socket for Unix datagrams to a name that the system chooses (autobind, unix(7)), so
    /// that it can be answered.
    pub(super) fn bind_to_any_name(socket: &Socket) -> std::io::Result<()> {
        socket.options().bind(&UnixName::unnamed().to_raw()?)
    }

    /// Counts a datagram, which may be empty. An empty result after `shutdown` is the end, and is
    /// not counted.
    pub(super) fn count_datagram<'a>(
        &self,
        bytes: usize,
        parts: impl IntoIterator<Item = &'a [u8]>,
        flags: i32,
    ) {
        let is_end = bytes == 0 && self.has_seen(seen::READS_ENDED);
        if flags & (libc::MSG_PEEK | libc::MSG_ERRQUEUE) != 0 || is_end {
            return;
        }
        if let Some(record) = self.record_of_traffic() {
            record.count_received_shared(bytes, parts);
        }
        // The peer that refused earlier datagrams answers again.
        if self.has_seen(seen::RESET) {
            self.unsee(seen::RESET);
        }
    }
}

/// Names the destination of the datagram in an error.
pub(super) fn at(mut error: Error, address: &Address) -> Error {
    if let Error::Os { target, .. } | Error::TimedOut { target, .. } = &mut error {
        *target = address.to_string();
    }
    error
}
