//! The listening socket, through its steps: create, bind, listen. Owns its descriptor and how it is
//! closed; must never accept, nor take up a thread.

use std::io;
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use socket2::{Domain, Protocol, SockRef, Type};

use super::options::MAX_BACKLOG;
use super::options::SocketOptions;
use super::probe::Probe;
use super::unix_file;
use super::unix_file::FileId;
use super::unix_file::SocketFile;
use crate::net::address::{Address, Transport, UnixName};
use crate::net::base::{Listed, Mutex};
use crate::net::error::{Error, Result};
use crate::net::sys;

/// A listening socket, or one on its way there.
pub(crate) struct Listener {
    // Before the descriptor, so that the number leaves the fork table before it is closed.
    _listed: Listed,
    probe: Arc<Probe>,
    /// What a bind to a path has made. Removed before the descriptor is closed.
    file: Mutex<Option<SocketFile>>,
    fd: OwnedFd,
    transport: Transport,
    /// Given by `fd=`: others may own it too, so it is closed without a shutdown.
    adopted: bool,
}

impl Listener {
    /// socket(2) for the family of `address`, with the options that come before bind.
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
            // Blocking: a worker waits in the receive itself.
            Transport::Udp => socket2::Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)),
            Transport::Unix => socket2::Socket::new(domain, Type::STREAM.nonblocking(), None),
        }
        .map_err(failed)?;
        if domain == Domain::IPV6 {
            // Set either way: the system's default differs between machines.
            socket.set_only_v6(!serves_both(address, options)).map_err(failed)?;
        }
        if transport == Transport::Tcp {
            // On UDP it would let others take the port over while it is in use.
            socket.set_reuse_address(options.reuse_address).map_err(failed)?;
        }
        if transport == Transport::Unix {
            options.check_unix()?;
        } else {
            socket.set_reuse_port(options.reuse_port).map_err(failed)?;
        }
        options.apply(&socket, transport).map_err(failed)?;
        let listener = Self::own(socket.into(), transport, false);
        if transport == Transport::Udp {
            listener.hear_more(domain, is_loopback(address)).map_err(failed)?;
        }
        Ok(listener)
    }

    /// Has the kernel tell which peers refuse what is sent to them, and where each datagram was sent to. On
    /// the loopback that is no question.
    fn hear_more(&self, domain: Domain, is_loopback: bool) -> io::Result<()> {
        let on = 1i32.to_ne_bytes();
        let set = |level, name| sys::setsockopt(self.as_fd(), level, name, &on);
        // An IPv6 socket may have IPv4 peers: both are asked for.
        set(libc::IPPROTO_IP, libc::IP_RECVERR)?;
        if domain == Domain::IPV6 {
            set(libc::IPPROTO_IPV6, libc::IPV6_RECVERR)?;
        }
        if !is_loopback {
            set(libc::IPPROTO_IP, libc::IP_PKTINFO)?;
            if domain == Domain::IPV6 {
                set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
            }
        }
        Ok(())
    }

    /// Takes over a descriptor that somebody else opened; it must be a socket of the transport. On an
    /// error the descriptor stays the caller's.
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
                    // What it does not tell cannot be judged by; that is no reason not to serve.
                    let domain = listener.socket().domain().unwrap_or(Domain::IPV4);
                    let near = listener.address().is_ok_and(|address| is_loopback(&address));
                    let _ = listener.hear_more(domain, near);
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
        let file = Mutex::new(None);
        Self { _listed: Listed::new(&fd), probe, file, fd, transport, adopted }
    }

    /// Whether others may own it too.
    pub(crate) fn is_adopted(&self) -> bool {
        self.adopted
    }

    /// Whether it tells where each datagram was sent to.
    pub(crate) fn tells_destination(&self) -> bool {
        let mut on = [0; 4];
        let asked = sys::getsockopt(self.as_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, &mut on);
        asked.is_ok() && on != [0; 4]
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&self.fd)
    }

    /// Whether it can be bound to `address`, by its family and by whether it serves both.
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

    /// bind(2). A path's file is made by it, with the permission bits of the options, and is ours from
    /// then on.
    pub(crate) fn bind(&self, address: &Address, options: &SocketOptions) -> Result<()> {
        let failed = |error: io::Error| Error::os("bind", address, &error);
        let path = address.as_unix().and_then(UnixName::path);
        if let (Some(_), Some(mode)) = (path, options.mode) {
            unix_file::set_mode(self.fd.as_fd(), mode).map_err(failed)?;
        }
        self.socket().bind(&address.to_raw().map_err(failed)?).map_err(failed)?;
        if let Some(path) = path {
            *self.file.lock() = Some(SocketFile::new(path, options.mode).map_err(failed)?);
        }
        Ok(())
    }

    /// listen(2). None is the system's maximum. A UDP socket takes datagrams from `bind` on.
    pub(crate) fn listen(&self, backlog: Option<u32>) -> Result<()> {
        if self.transport == Transport::Udp {
            return Ok(());
        }
        // The kernel cuts it to its own maximum (net.core.somaxconn).
        let backlog = backlog.unwrap_or(MAX_BACKLOG).min(MAX_BACKLOG);
        self.socket().listen(backlog as i32).map_err(|error| {
            let target = self.address().map_or_else(|_| String::new(), |at| at.to_string());
            Error::os("listen", target, &error)
        })
    }

    /// getsockname(2).
    pub(crate) fn address(&self) -> Result<Address> {
        let address =
            self.socket().local_addr().map_err(|error| Error::os("getsockname", "", &error))?;
        let address = Address::from_raw(&address)
            .ok_or_else(|| Error::errno("getsockname", "", libc::EAFNOSUPPORT))?;
        Ok(address.canonical())
    }

    /// Which file it is bound to, of a Unix socket.
    pub(crate) fn file(&self) -> Option<FileId> {
        let own = self.file.lock().as_ref().map(SocketFile::id);
        own.or_else(|| self.address().ok()?.as_unix().and_then(FileId::of))
    }

    /// Whether it is bound to a port or a name already (only an adopted one can be before `bind`).
    pub(crate) fn is_bound(&self) -> bool {
        self.address().is_ok_and(|address| match address {
            Address::Ip(address) => address.port() != 0,
            Address::Unix(name) => !name.is_unnamed(),
        })
    }

    /// Whether it listens already.
    pub(crate) fn is_listening(&self) -> bool {
        self.socket().is_listener().unwrap_or(false)
    }

    /// accept4(2), which never waits: whoever else has the listener may have made it block since.
    pub(crate) fn accept(&self, nonblocking: bool) -> io::Result<(OwnedFd, Option<Address>)> {
        if self.adopted && !self.socket().nonblocking()? {
            self.socket().set_nonblocking(true)?;
        }
        let (fd, peer) = sys::accept(self.as_fd(), nonblocking)?;
        Ok((fd, Address::from_raw(&peer)))
    }

    /// Connections that have finished their handshake and wait to be accepted. 0 where the kernel does
    /// not say.
    pub(crate) fn waiting(&self) -> usize {
        self.probe.waiting()
    }

    /// What others may ask it by, while it is there.
    pub(crate) fn probe(&self) -> Arc<Probe> {
        Arc::clone(&self.probe)
    }

    /// At a stop: how many are to be accepted yet. They are those that wait now; a Unix listener of our
    /// own is shut for all others, and then gives what it has.
    pub(crate) fn last_call(&self) -> usize {
        if self.transport != Transport::Unix || self.adopted {
            return self.waiting();
        }
        self.shut();
        MAX_BACKLOG as usize
    }

    /// Ends it: peers that connect from here on are told so, even while a forked child holds a copy.
    pub(crate) fn close(self) {
        self.shut();
    }

    /// The first half of it: nobody is let in any more, and a path is free for another server. Wakes who
    /// waits for it, unless it was adopted.
    pub(crate) fn shut(&self) {
        let file = self.file.lock().take();
        drop(file);
        if !self.adopted {
            // A UDP server still answers what it has received.
            let how = match self.transport {
                Transport::Tcp | Transport::Unix => Shutdown::Both,
                Transport::Udp => Shutdown::Read,
            };
            let _ = self.socket().shutdown(how);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.probe.withdraw();
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// getsockname(2) of a number that a caller gives; None where it is no socket of a known family.
#[must_use]
pub fn bound_address(number: RawFd) -> Option<Address> {
    Address::from_raw(&sys::address_of(number)?)
}

/// Only "::" stands for both families, and only if it may.
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
    };
    let of_transport = match transport {
        Transport::Unix => domain == Domain::UNIX,
        Transport::Tcp | Transport::Udp => matches!(domain, Domain::IPV4 | Domain::IPV6),
    };
    if socket.r#type().map_err(failed)? != kind || !of_transport {
        return Err(Error::Value(format!("fd={number}: not a {name} socket")));
    }
    if transport == Transport::Unix {
        options.check_unix()?;
    }
    if socket.peer_addr().is_ok() {
        return Err(Error::Value(format!("fd={number}: a connected socket cannot listen")));
    }
    if transport != Transport::Udp {
        socket.set_nonblocking(true).map_err(failed)?;
    }
    options.apply(fd, transport).map_err(failed)
}
