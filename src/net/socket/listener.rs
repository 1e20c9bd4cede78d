//! The listening socket with its steps: create, bind, listen. Owns its descriptor, and closes it;
//! must never accept on its own, nor start a thread.

use std::io;
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use socket2::{Domain, Protocol, SockRef, Type};

use super::intake::{Intake, Taken};
use super::options::MAX_BACKLOG;
use super::options::SocketOptions;
use super::probe::Probe;
use super::sharing::Sharing;
use super::unix_file;
use super::unix_file::FileId;
use super::unix_file::SocketFile;
use crate::net::address::{Address, Transport, UnixName};
use crate::net::base::{Listed, process};
use crate::net::error::{Error, Result};
use crate::net::sys;

/// A socket that listens or is about to.
pub(crate) struct Listener {
    // Before the descriptor, so that the number leaves the fork table before it is closed.
    _listed: Listed,
    probe: Arc<Probe>,
    /// Who else may use it. Its file is removed before the descriptor is closed.
    sharing: Arc<Sharing>,
    /// What it does with connections that arrive.
    intake: Arc<Intake>,
    fd: Arc<OwnedFd>,
    transport: Transport,
    /// Passed as `fd=`.
    adopted: bool,
}

impl Listener {
    /// socket(2) for the family of `address`, with the options that must be set before bind(2).
    pub(crate) fn create(
        transport: Transport,
        address: &Address,
        options: &SocketOptions,
    ) -> Result<Self> {
        let failed = |error: io::Error| Error::os("create", address, &error);
        let domain = address.domain();
        let socket = match transport {
            Transport::Tcp => {
                let kind = Type::STREAM.nonblocking();
                socket2::Socket::new(domain, kind, Some(Protocol::TCP))
            }
            // Blocking: a worker waits inside the receive call.
            Transport::Udp => socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)),
            Transport::Unix => socket2::Socket::new(domain, Type::STREAM.nonblocking(), None),
            Transport::UnixDatagram => socket2::Socket::new(domain, Type::DGRAM, None),
        }
        .map_err(failed)?;
        if domain == Domain::IPV6 {
            // Always set, because the system's default differs between machines.
            socket.set_only_v6(!serves_both(address, options)).map_err(failed)?;
        }
        if transport == Transport::Tcp {
            // On UDP it would let other sockets take over the port while it is in use.
            socket.set_reuse_address(options.reuse_address).map_err(failed)?;
        }
        if transport.is_unix() {
            options.check_unix()?;
        } else if options.reuse_port {
            socket.set_reuse_port(true).map_err(failed)?;
        }
        options.apply(&socket, transport).map_err(failed)?;
        let listener = Self::own(socket.into(), transport, false);
        if transport == Transport::Udp {
            listener.enable_reports(domain, is_loopback(address)).map_err(failed)?;
        }
        Ok(listener)
    }

    /// Enables reports of peers that refuse datagrams (IP_RECVERR), and, unless the address is the
    /// loopback, of each datagram's destination (IP_PKTINFO). An error is one of the latter:
    /// without it, nothing tells a datagram to a broadcast address from others.
    fn enable_reports(&self, domain: Domain, is_loopback: bool) -> io::Result<()> {
        let on = 1i32.to_ne_bytes();
        let set = |level, name| sys::setsockopt(self.as_fd(), level, name, &on);
        // An IPv6 socket may have IPv4 peers, so both levels are set. Without these reports, the
        // record of a peer that refuses datagrams stays open until its limit.
        let _ = set(libc::IPPROTO_IP, libc::IP_RECVERR);
        if domain == Domain::IPV6 {
            let _ = set(libc::IPPROTO_IPV6, libc::IPV6_RECVERR);
        }
        if !is_loopback {
            set(libc::IPPROTO_IP, libc::IP_PKTINFO)?;
            if domain == Domain::IPV6 {
                set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
            }
        }
        Ok(())
    }

    /// Takes ownership of a descriptor that the caller opened, which must be a socket of the
    /// transport. On an error the caller keeps the descriptor.
    pub(crate) fn adopt(
        number: RawFd,
        transport: Transport,
        options: &SocketOptions,
    ) -> Result<Self> {
        let failed = |error: io::Error| Error::os("create", format_args!("fd={number}"), &error);
        let fd = sys::adopt(number).map_err(failed)?;
        match check_adopted(&fd, number, transport, options) {
            Ok(()) => {
                let listener = Self::own(fd, transport, true);
                if transport == Transport::Udp {
                    // Without these reports the server still works; datagrams are then accepted
                    // without the checks that use them.
                    let domain = listener.socket().domain().unwrap_or(Domain::IPV4);
                    let loopback = listener.address().is_ok_and(|address| is_loopback(&address));
                    let _ = listener.enable_reports(domain, loopback);
                }
                Ok(listener)
            }
            Err(error) => {
                let _ = std::os::fd::IntoRawFd::into_raw_fd(fd);
                Err(error)
            }
        }
    }

    fn own(fd: OwnedFd, transport: Transport, adopted: bool) -> Self {
        let probe = Arc::new(Probe::of(fd.as_fd()));
        let sharing = Arc::new(Sharing::new(adopted));
        let (listed, fd) = (Listed::new(&fd), Arc::new(fd));
        let intake = Arc::new(Intake::new(transport, &fd, &probe, &sharing));
        Self { _listed: listed, probe, sharing, intake, fd, transport, adopted }
    }

    /// What it does with connections that arrive. For streams.
    pub(crate) fn intake(&self) -> &Arc<Intake> {
        &self.intake
    }

    /// Who uses the socket besides this server.
    pub(crate) fn sharing(&self) -> &Arc<Sharing> {
        &self.sharing
    }

    /// Whether the kernel reports the destination of each datagram.
    pub(crate) fn tells_destination(&self) -> bool {
        let mut on = [0; 4];
        let asked = sys::getsockopt(self.as_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, &mut on);
        asked.is_ok() && on != [0; 4]
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.fd)
    }

    /// Whether it can be bound to `address`: same family, and same setting for dual stack.
    pub(crate) fn fits(&self, address: &Address, options: &SocketOptions) -> bool {
        let domain = address.domain();
        self.adopted
            || self.socket().domain().is_ok_and(|own| own == domain)
                && (domain != Domain::IPV6
                    || self
                        .socket()
                        .only_v6()
                        .is_ok_and(|only| only != serves_both(address, options)))
    }

    /// bind(2). For a path, the kernel creates the file with the permission bits of the options,
    /// and the listener owns it from then on.
    pub(crate) fn bind(&self, address: &Address, options: &SocketOptions) -> Result<()> {
        let failed = |error: io::Error| Error::os("bind", address, &error);
        let path = address.as_unix().and_then(UnixName::path);
        if let (Some(_), Some(mode)) = (path, options.mode) {
            unix_file::set_mode(self.fd.as_fd(), mode).map_err(failed)?;
        }
        self.socket().bind(&address.to_raw().map_err(failed)?).map_err(failed)?;
        if address.as_ip().is_some_and(|address| address.port() != 0) {
            self.intake.fix_port();
        }
        if let Some(path) = path {
            self.sharing
                .set_file(SocketFile::new(self.fd.as_fd(), path, options.mode).map_err(failed)?);
        }
        Ok(())
    }

    /// Joins the multicast groups of the options, once it is bound to `address`. A socket that is
    /// bound to another address than a group's would never hear one.
    pub(crate) fn join_groups(&self, address: &Address, options: &SocketOptions) -> Result<()> {
        let Some(ip) = address.as_ip().map(|address| address.ip()) else { return Ok(()) };
        let deaf = options.multicast.iter().find(|membership| {
            !(ip.is_unspecified() || ip == membership.group) || {
                // An IPv4 socket joins no IPv6 group; "::" joins both.
                let both = self.socket().only_v6().is_ok_and(|only| !only);
                ip.is_ipv4() != membership.group.is_ipv4() && !both
            }
        });
        if let Some(membership) = deaf {
            let text = membership.text();
            return Err(Error::Value(format!(
                "bind {address}: a socket with this address hears no datagram to the multicast \
                 group {text}; listen on {} or on the group's own address",
                if membership.group.is_ipv4() { "0.0.0.0" } else { "::" }
            )));
        }
        options.join_groups(&self.fd, address.domain())
    }

    /// getsockname(2).
    pub(crate) fn address(&self) -> Result<Address> {
        let address =
            self.socket().local_addr().map_err(|error| Error::os("getsockname", "", &error))?;
        let address = Address::from_raw(&address)
            .ok_or_else(|| Error::errno("getsockname", "", libc::EAFNOSUPPORT))?;
        Ok(address.canonical())
    }

    /// The file that a Unix socket is bound to; None without one.
    pub(crate) fn file(&self) -> Option<FileId> {
        self.sharing.file().or_else(|| self.address().ok()?.as_unix().and_then(FileId::of))
    }

    /// Whether it already has a port or a name. Before `bind`, only an adopted socket can.
    pub(crate) fn is_bound(&self) -> bool {
        self.address().is_ok_and(|address| match address {
            Address::Ip(address) => address.port() != 0,
            Address::Unix(name) => !name.is_unnamed(),
        })
    }

    /// Whether it already listens.
    pub(crate) fn is_listening(&self) -> bool {
        self.socket().is_listener().unwrap_or(false)
    }

    /// accept4(2) without waiting. None if the listener holds connections back.
    pub(crate) fn accept(&self, nonblocking: bool) -> io::Result<Option<Taken>> {
        self.intake.accept(self.as_fd(), nonblocking)
    }

    /// The probe that others use while the listener exists.
    pub(crate) fn probe(&self) -> Arc<Probe> {
        Arc::clone(&self.probe)
    }

    /// The number of connections still to accept at a stop: those that wait now, or the longest
    /// queue that the system allows if the kernel does not report them; none if they are left to
    /// others. A Unix listener that no one else uses is shut down first, which rejects new
    /// connections, and then emptied.
    pub(crate) fn last_call(&self) -> usize {
        if !self.intake.begin_end() || self.sharing.is_handed_over() {
            return 0;
        }
        if self.transport != Transport::Unix || self.sharing.has_others() {
            return self.intake.waiting().unwrap_or_else(|| process::backlog_max() as usize);
        }
        self.shut();
        MAX_BACKLOG as usize
    }

    /// The number of connections that wait, none of which this server will accept.
    pub(crate) fn held_back(&self) -> usize {
        if self.sharing.is_handed_over() { 0 } else { self.intake.held_for_ever() }
    }

    /// Closes it. Later connects are refused, even while a forked child holds a copy.
    pub(crate) fn close(self) {
        self.shut();
    }

    /// Stops listening without closing the descriptor: later connects are refused, and the path is
    /// free for another server. Wakes threads that wait for a connection. A listener that others
    /// use is left as it is. False if the descriptor is closed, so that no thread is woken.
    pub(crate) fn shut(&self) -> bool {
        self.intake.remove_decoy();
        if self.sharing.end() {
            // A UDP server still answers the datagrams it has received.
            let how = match self.transport {
                Transport::Tcp | Transport::Unix => Shutdown::Both,
                Transport::Udp | Transport::UnixDatagram => Shutdown::Read,
            };
            let lost = |error: &io::Error| {
                matches!(error.raw_os_error(), Some(libc::EBADF | libc::ENOTSOCK))
            };
            return !self.socket().shutdown(how).is_err_and(|error| lost(&error));
        }
        true
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.intake.close();
        self.probe.withdraw();
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// getsockname(2) of a caller's descriptor number; None unless it is a socket of a known family.
#[must_use]
pub fn bound_address(number: RawFd) -> Option<Address> {
    Address::from_raw(&sys::address_of(number)?)
}

/// Whether to serve IPv4 as well: only for "::", and only with `dual_stack`.
fn serves_both(address: &Address, options: &SocketOptions) -> bool {
    let all = |address: SocketAddr| address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    options.dual_stack && address.as_ip().is_some_and(all)
}

fn is_loopback(address: &Address) -> bool {
    address.as_ip().is_some_and(|address| address.ip().is_loopback())
}

fn check_adopted(
    fd: &OwnedFd,
    number: RawFd,
    transport: Transport,
    options: &SocketOptions,
) -> Result<()> {
    let failed = |error: io::Error| Error::os("create", format_args!("fd={number}"), &error);
    let socket = SockRef::from(fd);
    let domain = socket.domain().map_err(failed)?;
    let (kind, name) = match transport {
        Transport::Tcp => (Type::STREAM, "TCP"),
        Transport::Udp => (Type::DGRAM, "UDP"),
        Transport::Unix => (Type::STREAM, "Unix stream"),
        Transport::UnixDatagram => (Type::DGRAM, "Unix datagram"),
    };
    let of_transport = match transport {
        Transport::Unix | Transport::UnixDatagram => domain == Domain::UNIX,
        Transport::Tcp | Transport::Udp => matches!(domain, Domain::IPV4 | Domain::IPV6),
    };
    if socket.r#type().map_err(failed)? != kind || !of_transport {
        return Err(Error::Value(format!("fd={number}: not a {name} socket")));
    }
    if transport.is_unix() {
        options.check_unix()?;
    }
    if socket.peer_addr().is_ok() {
        return Err(Error::Value(format!("fd={number}: a connected socket cannot listen")));
    }
    if !transport.is_datagram() {
        socket.set_nonblocking(true).map_err(failed)?;
    }
    options.apply(fd, transport).map_err(failed)
}
