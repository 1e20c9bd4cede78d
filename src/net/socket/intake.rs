//! What a listener does with the connections that arrive. Owns its mode with all that belongs to
//! it; must never wait, nor choose a mode.
//!
//! The mode is changed by the thread that asks for it, under the lock that also covers each
//! accept4(2): once the change returns, no connection is accepted as the mode before had it.
//!
//! | mode | TCP | Unix |
//! |---|---|---|
//! | holding | nothing is accepted | nothing is accepted |
//! | full | a socket filter drops every packet for the listener | the queue is shrunk, and filled with a connection of its own |
//! | refusing | shutdown(2), and listen(2) later | a decoy stands in the place of its file (`decoy.rs`) |
//!
//! With a filter the kernel answers as it does where the queue is full: not at all. To fill the
//! queue would take connections, which the kernel gives to other listeners too where the port is
//! shared (SO_REUSEPORT).

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, SockFilter, SockRef, Socket as Raw, Type};

use super::arrivals::{Arrivals, Watch};
use super::decoy::Decoy;
use super::options::SocketOptions;
use super::probe::Probe;
use super::sharing::Sharing;
use super::socket::Socket;
use super::unix_file::handle;
use crate::net::address::{Address, Transport};
use crate::net::base::{EventFd, Listed, Mutex, MutexGuard};
use crate::net::error::{Error, Result};
use crate::net::sys::{self, PollFd};

/// Called for each connection that a listener holds. Must not block.
pub(crate) type Noted = Arc<dyn Fn() + Send + Sync>;

/// What happens to connections that arrive.
#[derive(Clone, Default)]
pub(crate) enum Mode {
    /// They are accepted.
    #[default]
    Open,
    /// Each stays in the queue for a time; without one, until the mode changes.
    Holding(Option<Duration>, Noted),
    /// They are not answered.
    Full,
    /// They are refused.
    Refusing,
}

/// The socket of a listener that is polled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Polled {
    /// For arrivals.
    Arrivals,
    /// For a shutdown by another owner.
    Shutdown,
    /// Not at all: the listener is shut down.
    Nothing,
}

/// What a thread that accepts waits for.
pub(crate) struct Wait {
    polled: Polled,
    /// From when on a connection can be accepted, though the listener may not be readable.
    pub(crate) due: Option<Instant>,
    watch: Option<Arc<Watch>>,
}

impl Wait {
    const fn plain() -> Self {
        Self { polled: Polled::Arrivals, due: None, watch: None }
    }

    /// Whether a connection can be accepted once the listener is readable.
    pub(crate) fn takes_arrivals(&self) -> bool {
        self.polled == Polled::Arrivals
    }

    /// Whether a connection can be accepted now.
    pub(crate) fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// The entries of a poll: the listener's, and that for arrivals which are only noticed. A
    /// thread that cannot accept now asks for no arrivals.
    pub(crate) fn polled<'a>(&'a self, listener: BorrowedFd<'a>, accepts: bool) -> [PollFd; 2] {
        let listener = match self.polled {
            Polled::Arrivals if accepts => PollFd::arrival(listener),
            Polled::Nothing => PollFd::unused(),
            _ => PollFd::shutdown(listener),
        };
        let watch = self.watch.as_ref();
        [listener, watch.map_or_else(PollFd::unused, |watch| PollFd::readable(watch.as_fd()))]
    }
}

/// A wait for a connection that the listener holds back.
pub(crate) struct Hold {
    /// When the connection can be accepted; None if only a change of the mode can help.
    pub(crate) until: Option<Instant>,
    /// Set when the mode changes. Never cleared.
    pub(crate) changed: Arc<EventFd>,
}

/// An accepted connection.
pub(crate) struct Taken {
    pub(crate) fd: OwnedFd,
    pub(crate) peer: Option<Address>,
    /// The listener has held it back.
    pub(crate) was_held: bool,
}

/// The connection that fills the queue of a Unix listener. Its other end is in the queue, alone.
struct Filler {
    _listed: Listed,
    /// None once it has been closed to give up its place.
    socket: Option<OwnedFd>,
}

#[derive(Default)]
struct State {
    mode: Mode,
    backlog: u32,
    /// The port was chosen by the caller of bind(2): a shutdown does not release it.
    port_is_fixed: bool,
    /// Taken out of the queue before a shutdown that would have reset them.
    kept: VecDeque<(OwnedFd, Option<Address>)>,
    /// While the mode is `Holding`.
    arrivals: Option<Arrivals>,
    filler: Option<Filler>,
    decoy: Option<Decoy>,
    /// Has the port of a listener that lost it by a shutdown and could not be bound to it again.
    reserve: Option<Reserve>,
    /// Set when the mode changes. Made by the first thread that waits for that.
    changed: Option<Arc<EventFd>>,
}

/// A socket that is bound to the address of a listener and does not listen.
struct Reserve {
    _listed: Listed,
    socket: Raw,
}

/// What a listener does with connections. Shared with the server, which changes it.
pub(crate) struct Intake {
    transport: Transport,
    sharing: Arc<Sharing>,
    probe: Arc<Probe>,
    /// Gone once the listener is closed.
    fd: Weak<OwnedFd>,
    /// It accepts everything from its queue: a thread that waits needs no lock to know that.
    is_plain: AtomicBool,
    state: Mutex<State>,
}

impl Intake {
    pub(super) fn new(
        transport: Transport,
        fd: &Arc<OwnedFd>,
        probe: &Arc<Probe>,
        sharing: &Arc<Sharing>,
    ) -> Self {
        Self {
            transport,
            sharing: Arc::clone(sharing),
            probe: Arc::clone(probe),
            fd: Arc::downgrade(fd),
            is_plain: AtomicBool::new(true),
            state: Mutex::default(),
        }
    }

    /// The socket is bound to a port that the caller chose.
    pub(super) fn fix_port(&self) {
        self.state.lock().port_is_fixed = true;
    }

    /// Whether the socket has users beside the server, whom full and refusing modes would concern.
    pub(crate) fn has_others(&self) -> bool {
        self.sharing.has_others()
    }

    /// listen(2), with a mode that is in force before the first connection. After an error the
    /// listener is of no use.
    pub(crate) fn listen(&self, backlog: u32, mode: Mode, options: &SocketOptions) -> Result<()> {
        let Some(fd) = self.fd.upgrade() else { return Ok(()) };
        let mut state = self.state.lock();
        state.backlog = backlog;
        let first = match (self.transport, &mode) {
            (Transport::Tcp, Mode::Full | Mode::Refusing) => {
                // Where the system refuses it, the change of the mode says so.
                let _ = drop_packets(&fd);
                backlog
            }
            (Transport::Unix, Mode::Refusing) => {
                state.decoy = Some(self.decoy()?);
                backlog
            }
            (Transport::Unix, Mode::Full) => 0,
            _ => backlog,
        };
        listen(&fd, first)?;
        let changed = state.change(self, &fd, mode, options);
        self.settle(state);
        changed
    }

    /// Changes the mode. On an error it is as it was.
    pub(crate) fn change(&self, mode: Mode, options: &SocketOptions) -> Result<()> {
        let Some(fd) = self.fd.upgrade() else { return Ok(()) };
        let mut state = self.state.lock();
        let changed = state.change(self, &fd, mode, options);
        self.settle(state);
        changed
    }

    /// Publishes what a change has done.
    fn settle(&self, mut state: MutexGuard<'_, State>) {
        let is_plain = matches!(state.mode, Mode::Open) && state.kept.is_empty();
        self.is_plain.store(is_plain, SeqCst);
        let changed = state.changed.take();
        drop(state);
        if let Some(changed) = changed {
            changed.set();
        }
    }

    /// What to wait for.
    pub(crate) fn wait(&self) -> Wait {
        if self.is_plain.load(SeqCst) {
            return Wait::plain();
        }
        self.state.lock().wait(self)
    }

    /// How long a connection is held back that waits in the queue; None if none is. Fails with
    /// EMFILE and similar errors.
    pub(crate) fn hold(&self) -> io::Result<Option<Hold>> {
        let mut state = self.state.lock();
        let wait = state.wait(self);
        if wait.takes_arrivals() || wait.is_due() {
            return Ok(None);
        }
        if state.changed.is_none() {
            state.changed = Some(Arc::new(EventFd::new()?));
        }
        Ok(state.changed.clone().map(|changed| Hold { until: wait.due, changed }))
    }

    /// accept4(2) without waiting. None if the listener holds connections back.
    pub(super) fn accept(
        &self,
        fd: BorrowedFd<'_>,
        nonblocking: bool,
    ) -> io::Result<Option<Taken>> {
        let mut state = self.state.lock();
        if let Some((fd, peer)) = state.take_kept(self, nonblocking)? {
            return Ok(Some(Taken { fd, peer, was_held: false }));
        }
        let was_held = match state.mode {
            Mode::Open => false,
            Mode::Refusing if self.transport == Transport::Unix => false,
            Mode::Full | Mode::Refusing => return Ok(None),
            Mode::Holding(..) => {
                let wait = state.wait(self);
                if wait.takes_arrivals() {
                    return Err(io::Error::from_raw_os_error(libc::EAGAIN));
                }
                if !wait.is_due() {
                    return Ok(None);
                }
                true
            }
        };
        let accepted = self.accept_next(fd, nonblocking);
        match (&mut state.arrivals, &accepted) {
            (Some(arrivals), Ok(_)) => arrivals.take_first(),
            (Some(arrivals), Err(error)) if error.raw_os_error() == Some(libc::EAGAIN) => {
                arrivals.clear();
            }
            _ => {}
        }
        accepted.map(|(fd, peer)| Some(Taken { fd, peer, was_held }))
    }

    /// Sets a listener that others use to non-blocking again, because they may have changed that.
    fn accept_next(
        &self,
        fd: BorrowedFd<'_>,
        nonblocking: bool,
    ) -> io::Result<(OwnedFd, Option<Address>)> {
        let socket = SockRef::from(&fd);
        if self.sharing.has_others() && !socket.nonblocking()? {
            socket.set_nonblocking(true)?;
        }
        let (fd, peer) = sys::accept(fd, nonblocking)?;
        Ok((fd, Address::from_raw(&peer)))
    }

    /// Connections that have finished their handshake and wait to be accepted; None if the kernel
    /// does not report it.
    pub(crate) fn waiting(&self) -> Option<usize> {
        let state = self.state.lock();
        Some(self.probe.waiting()? + state.kept.len() - state.fillers())
    }

    /// Whether another owner has shut the listener down, as a poll has reported: not one of its own
    /// shutdowns, which may be over by now.
    pub(crate) fn is_shut(&self) -> bool {
        let state = self.state.lock();
        let Some(fd) = self.fd.upgrade() else { return true };
        let by_us = matches!(state.mode, Mode::Refusing) && self.transport == Transport::Tcp;
        let mut fds = [PollFd::shutdown(fd.as_fd())];
        !by_us && sys::poll(&mut fds, Some(Instant::now())).is_ok() && fds[0].is_shut()
    }

    /// The server ends: connections that were held for a time can be accepted. Returns whether any
    /// can.
    pub(super) fn begin_end(&self) -> bool {
        let mut state = self.state.lock();
        match state.mode {
            Mode::Holding(Some(_), _) => {
                state.mode = Mode::Open;
                state.arrivals = None;
                self.settle(state);
                true
            }
            Mode::Holding(None, _) | Mode::Full => false,
            Mode::Open | Mode::Refusing => true,
        }
    }

    /// Connections that wait, none of which will be accepted, whatever the time.
    pub(crate) fn held_for_ever(&self) -> usize {
        let is_held = matches!(self.state.lock().mode, Mode::Holding(None, _) | Mode::Full);
        if is_held { self.waiting().unwrap_or(0) } else { 0 }
    }

    /// Removes what stands in the place of the listener's file.
    pub(super) fn remove_decoy(&self) {
        let decoy = self.state.lock().decoy.take();
        drop(decoy);
    }

    /// The listener closes. Connections that it kept are reset, as those in the queue.
    pub(super) fn close(&self) {
        let state = std::mem::take(&mut *self.state.lock());
        if let Some(changed) = &state.changed {
            changed.set();
        }
        state.kept.into_iter().for_each(|(fd, _)| Socket::new(fd).abort());
    }

    fn decoy(&self) -> Result<Decoy> {
        let Some((path, id)) = self.sharing.place() else {
            return Err(Error::Value(
                "a Unix socket with an abstract name, or without a file of its own, cannot refuse \
                 connections and take that back"
                    .to_owned(),
            ));
        };
        Decoy::put(&path, id).map_err(|error| Error::os("rename", path.display(), &error))
    }
}

/// Steps of a change of mode.
impl State {
    /// The connection that fills the queue is not one that waits.
    fn fillers(&self) -> usize {
        usize::from(self.filler.is_some())
    }

    fn wait(&mut self, intake: &Intake) -> Wait {
        let now = Instant::now();
        let kept = (self.gives_kept() && !self.kept.is_empty()).then_some(now);
        let (polled, due, watch) = match &self.mode {
            Mode::Open => (Polled::Arrivals, None, None),
            Mode::Full => (Polled::Shutdown, None, None),
            Mode::Refusing if intake.transport == Transport::Unix => (Polled::Arrivals, None, None),
            Mode::Refusing => (Polled::Nothing, None, None),
            Mode::Holding(time, noted) => {
                let Some(arrivals) = &mut self.arrivals else { return Wait::plain() };
                // Where the kernel does not tell how many wait, the others count once they are the
                // first.
                let waiting = |known: usize| {
                    let one = usize::from(intake.is_readable());
                    intake.probe.waiting().unwrap_or_else(|| known.max(one))
                };
                let fillers = usize::from(self.filler.is_some());
                let new = arrivals.look(now, |known| waiting(known).saturating_sub(fillers));
                (0..new).for_each(|_| noted());
                let first = arrivals.first();
                let due = first.and_then(|first| first.checked_add((*time)?));
                let polled = if first.is_some() { Polled::Shutdown } else { Polled::Arrivals };
                (polled, due, Some(arrivals.watch()))
            }
        };
        Wait { polled, due: kept.or(due), watch }
    }

    /// Whether a connection that was kept can be accepted: it was there before the mode began.
    fn gives_kept(&self) -> bool {
        !matches!(self.mode, Mode::Full | Mode::Holding(None, _))
    }

    fn take_kept(
        &mut self,
        intake: &Intake,
        nonblocking: bool,
    ) -> io::Result<Option<(OwnedFd, Option<Address>)>> {
        if !self.gives_kept() {
            return Ok(None);
        }
        let Some((fd, peer)) = self.kept.pop_front() else { return Ok(None) };
        if self.kept.is_empty() && matches!(self.mode, Mode::Open) {
            intake.is_plain.store(true, SeqCst);
        }
        // Fails for a descriptor only that is not open.
        SockRef::from(&fd).set_nonblocking(nonblocking)?;
        Ok(Some((fd, peer)))
    }

    /// Enters a mode, then leaves the one before: where both are closed to connections, none comes
    /// in between.
    fn change(
        &mut self,
        intake: &Intake,
        fd: &OwnedFd,
        mode: Mode,
        options: &SocketOptions,
    ) -> Result<()> {
        match (&mode, &self.mode) {
            (Mode::Full, Mode::Full) | (Mode::Refusing, Mode::Refusing) => {}
            (Mode::Holding(..), _) if self.arrivals.is_none() => {
                let arrivals = Arrivals::of(fd.as_fd());
                self.arrivals =
                    Some(arrivals.map_err(|error| Error::os("epoll_create1", "", &error))?);
            }
            (Mode::Full, _) => self.fill(intake, fd)?,
            (Mode::Refusing, _) => self.refuse(intake, fd, options)?,
            _ => {}
        }
        let left = match (&self.mode, &mode) {
            (Mode::Full, Mode::Full) | (Mode::Refusing, Mode::Refusing) => Ok(()),
            (Mode::Full, _) => self.clear_queue(intake, fd),
            (Mode::Refusing, _) => self.reopen(intake, fd, options),
            _ => Ok(()),
        };
        if let Err(error) = left {
            match mode {
                Mode::Full => drop(self.clear_queue(intake, fd)),
                Mode::Refusing => drop(self.reopen(intake, fd, options)),
                Mode::Holding(..) => self.arrivals = None,
                Mode::Open => {}
            }
            return Err(error);
        }
        if let (Mode::Holding(_, noted), Some(arrivals)) = (&mode, &self.arrivals) {
            // Those that a fault before this one has noticed.
            (0..arrivals.len()).for_each(|_| noted());
        } else {
            self.arrivals = None;
        }
        self.mode = mode;
        Ok(())
    }

    /// Lets the kernel answer no connect.
    fn fill(&mut self, intake: &Intake, fd: &OwnedFd) -> Result<()> {
        if intake.transport == Transport::Tcp {
            let failed = |error| Error::os("setsockopt", "SO_ATTACH_FILTER", &error);
            return drop_packets(fd).map_err(failed);
        }
        // The kernel then takes one connection, and none if there are some already.
        listen(fd, 0)?;
        match self.filler(intake, fd) {
            Ok(filler) => {
                self.filler = filler;
                Ok(())
            }
            Err(error) => {
                let _ = listen(fd, self.backlog);
                Err(Error::os("connect", "", &error))
            }
        }
    }

    /// The connection that fills the queue of a Unix listener; None if that is full.
    fn filler(&self, intake: &Intake, fd: &OwnedFd) -> io::Result<Option<Filler>> {
        let reach = |path: &Path| -> io::Result<_> {
            // A path of more than 107 bytes is no address.
            let file = handle(path)?;
            let address = SockAddr::unix(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
            Ok((Some(file), address))
        };
        let (_file, address) = match (&self.decoy, intake.sharing.place()) {
            (Some(decoy), _) => reach(decoy.kept())?,
            (None, Some((path, _))) => reach(&path)?,
            (None, None) => (None, SockRef::from(fd).local_addr()?),
        };
        let socket = Raw::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        match socket.connect(&address) {
            Ok(()) => {
                let listed = Listed::new(&socket);
                Ok(Some(Filler { _listed: listed, socket: Some(socket.into()) }))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Undoes `fill`.
    fn clear_queue(&mut self, intake: &Intake, fd: &OwnedFd) -> Result<()> {
        if intake.transport == Transport::Tcp {
            let failed = |error| Error::os("setsockopt", "SO_DETACH_FILTER", &error);
            return SockRef::from(fd).detach_filter().map_err(failed);
        }
        if let Some(filler) = &mut self.filler {
            // Its number is free for the other end.
            filler.socket = None;
            // Alone in the queue, which was empty when it came and full since.
            match sys::accept(fd.as_fd(), true) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    return Err(Error::os("accept", "", &error));
                }
                _ => self.filler = None,
            }
        }
        listen(fd, self.backlog)
    }

    /// Lets the kernel refuse every connect, without a loss of those that wait.
    fn refuse(&mut self, intake: &Intake, fd: &OwnedFd, options: &SocketOptions) -> Result<()> {
        if intake.transport == Transport::Unix {
            if self.decoy.is_none() {
                self.decoy = Some(intake.decoy()?);
            }
            return Ok(());
        }
        let is_filtered = matches!(self.mode, Mode::Full);
        // So that none arrives between the last accept and the shutdown, which would reset it. Such
        // a client tries again after a second. Without the filter, it is reset.
        let _ = drop_packets(fd);
        let refused = self.shut(intake, fd, options);
        if !is_filtered {
            let _ = SockRef::from(fd).detach_filter();
        }
        refused
    }

    fn shut(&mut self, intake: &Intake, fd: &OwnedFd, options: &SocketOptions) -> Result<()> {
        let socket = SockRef::from(fd);
        self.empty_queue(intake, fd).map_err(|error| Error::os("accept", "", &error))?;
        let address = socket.local_addr().map_err(|error| Error::os("getsockname", "", &error))?;
        if !self.port_is_fixed && self.reserve.is_none() {
            // The kernel takes back a port that it has chosen itself.
            let reserve = reserve(&socket, &address, options);
            self.reserve = Some(reserve.map_err(|error| Error::os("bind", "", &error))?);
        }
        socket.shutdown(Shutdown::Both).map_err(|error| Error::os("shutdown", "", &error))?;
        // If it fails, the reserve has the port.
        let _ = self.bind_again(&socket);
        // With the option, other sockets that have it could be bound to the port, and listen.
        let _ = socket.set_reuse_address(false);
        Ok(())
    }

    /// Takes the connections that wait, which a shutdown would reset.
    fn empty_queue(&mut self, intake: &Intake, fd: &OwnedFd) -> io::Result<()> {
        let mut lost = 0;
        loop {
            match intake.accept_next(fd.as_fd(), true) {
                Ok(taken) => self.kept.push_back(taken),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(()),
                    Some(
                        libc::EMFILE
                        | libc::ENFILE
                        | libc::ENOBUFS
                        | libc::ENOMEM
                        | libc::EBADF
                        | libc::ENOTSOCK
                        | libc::EINVAL,
                    ) => return Err(error),
                    // One connection was lost.
                    _ if lost < MOST_LOST => lost += 1,
                    _ => return Err(error),
                },
            }
        }
    }

    /// Binds the socket to the port that the reserve has for it.
    fn bind_again(&mut self, socket: &SockRef<'_>) -> io::Result<()> {
        if let Some(reserve) = &self.reserve {
            let address = reserve.socket.local_addr()?;
            socket.set_reuse_address(true)?;
            socket.bind(&address)?;
            self.port_is_fixed = true;
            self.reserve = None;
        }
        Ok(())
    }

    /// Undoes `refuse`.
    fn reopen(&mut self, intake: &Intake, fd: &OwnedFd, options: &SocketOptions) -> Result<()> {
        if intake.transport == Transport::Unix {
            if let Some(decoy) = &self.decoy {
                decoy.put_back().map_err(|error| Error::os("rename", "", &error))?;
            }
            self.decoy = None;
            return Ok(());
        }
        let socket = SockRef::from(fd);
        let opened = self.bind_again(&socket).and_then(|()| {
            // Connections that are open have the port as well.
            socket.set_reuse_address(true)?;
            // A shutdown clears some of them.
            options.apply(fd, intake.transport)
        });
        let opened = opened.map_err(|error| Error::os("bind", "", &error));
        opened.and_then(|()| listen(fd, self.backlog)).inspect_err(|_| {
            let _ = socket.set_reuse_address(false);
        })
    }
}

/// The most connections in a row that may be lost while a queue is emptied.
const MOST_LOST: usize = 64;

impl Intake {
    fn is_readable(&self) -> bool {
        let Some(fd) = self.fd.upgrade() else { return false };
        let mut fds = [PollFd::readable(fd.as_fd())];
        sys::poll(&mut fds, Some(Instant::now())).is_ok_and(|ready| ready > 0)
    }
}

/// listen(2), which also changes the backlog of a listener. The kernel limits it further, to
/// net.core.somaxconn.
pub(super) fn listen(fd: &OwnedFd, backlog: u32) -> Result<()> {
    let socket = SockRef::from(fd);
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(|error| {
        let address = socket.local_addr().ok().as_ref().and_then(Address::from_raw);
        let target = address.map_or_else(String::new, |address| address.canonical().to_string());
        Error::os("listen", target, &error)
    })
}

/// SO_ATTACH_FILTER, socket(7): the kernel drops every packet for the socket itself. Connections
/// that were accepted, or wait to be, have copies of earlier filters: none.
fn drop_packets(fd: &OwnedFd) -> io::Result<()> {
    // BPF_RET | BPF_K: keep no byte.
    let filter = [SockFilter::new(0x06, 0, 0, 0)];
    SockRef::from(fd).attach_filter(&filter)
}

/// A socket with the address of a listener, which goes on listening.
fn reserve(
    listener: &SockRef<'_>,
    address: &SockAddr,
    options: &SocketOptions,
) -> io::Result<Reserve> {
    let socket = Raw::new(address.domain(), Type::STREAM, Some(Protocol::TCP))?;
    let listed = Listed::new(&socket);
    if address.domain() == Domain::IPV6 {
        socket.set_only_v6(listener.only_v6()?)?;
    }
    // Beside connections that are open.
    socket.set_reuse_address(true)?;
    // Only this option admits a second socket while one listens, and only for the same user.
    socket.set_reuse_port(true)?;
    listener.set_reuse_port(true)?;
    let bound = socket.bind(address);
    let _ = socket.set_reuse_port(options.reuse_port);
    listener.set_reuse_port(options.reuse_port)?;
    bound.map(|()| Reserve { _listed: listed, socket })
}
