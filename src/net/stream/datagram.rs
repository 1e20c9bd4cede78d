//! The calls that only a UDP client has. It sends to any address, and receives from any. Owns the
//! choice of the destination address; must never join or split a datagram.

use std::net::{IpAddr, SocketAddr};

use socket2::Domain;

use super::deadline::Deadline;
use super::stream::{Stream, seen};
use super::wait::Interest;
use crate::net::address::{Address, Target, Transport, display, resolve};
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};
use crate::net::socket::Socket;
use crate::net::sys;

impl Stream {
    /// The transport of the socket.
    #[must_use]
    pub fn transport(&self) -> Transport {
        // A stream's current family decides, not the one that it was opened with.
        if self.is_unix() { Transport::Unix } else { self.transport }
    }

    /// Whether each send is a message of its own.
    pub(super) fn is_datagram(&self) -> bool {
        self.transport == Transport::Udp
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
        let address = self.destination(step, target, waiter)?;
        let mut deadline = self.send_deadline(flags);
        let sent = self.attempt(step, Interest::Writable, 0, &mut deadline, waiter, |fd, wait| {
            sys::send_to(fd, data, address, flags | wait)
        });
        let sent = sent.map_err(|error| at(error, address))?;
        self.count_sent(sent, [data]);
        Ok(sent)
    }

    /// Resolves the address for a datagram to `target`. A socket that has not been used yet changes
    /// to the family of that address.
    pub(super) fn destination(
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
pub(super) fn at(mut error: Error, address: SocketAddr) -> Error {
    if let Error::Os { target, .. } | Error::TimedOut { target, .. } = &mut error {
        *target = display(&address);
    }
    error
}
