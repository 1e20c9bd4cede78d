//! The client's side of a recording, played to a server on the caller's thread. Owns the socket;
//! must never wait without the caller's waiter.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::net::address::{Address, Target, Transport, resolve};
use crate::net::base::Waiter;
use crate::net::error::{Error, Result};
use crate::net::services::ScriptResult;
use crate::net::services::replay::{Exchange, Next, Plan, Player, Playing};
use crate::net::socket::Socket;
use crate::net::sys::{self, PollFd};

/// The most bytes of one receive; no datagram is longer.
const SCRATCH: usize = 64 * 1024;

/// Plays the client's side of a plan to the server at `target`. `connect` bounds the connect. An
/// error is one of the connect, or of the waiter; how the server diverges is in the result.
pub fn replay(
    plan: &Arc<Plan>,
    playing: &Arc<Playing>,
    target: &Target,
    connect: Duration,
    waiter: &mut dyn Waiter,
) -> Result<ScriptResult> {
    let deadline = Instant::now().checked_add(connect);
    let transport = match (plan.is_datagram(), target.as_unix().is_some()) {
        (false, false) => Transport::Tcp,
        (false, true) => Transport::Unix,
        (true, false) => Transport::Udp,
        (true, true) => {
            return Err(Error::Value(format!(
                "{target}: datagrams are replayed to a host and a port"
            )));
        }
    };
    let socket = connected(target, transport, deadline, waiter)?;
    if plan.is_datagram() {
        return exchange(plan, playing, &socket, target, waiter);
    }
    let player = Player::new(plan, playing, None, Instant::now());
    let scratch = vec![0; SCRATCH];
    Dialogue { player, socket, rest: Vec::new(), scratch, is_ended: false, error: None }.run(
        playing.timeout,
        target,
        waiter,
    )
}

/// A socket that is connected to the first address of the target that answers.
fn connected(
    target: &Target,
    transport: Transport,
    deadline: Option<Instant>,
    waiter: &mut dyn Waiter,
) -> Result<Socket> {
    let addresses = resolve::addresses(target, false, deadline, waiter)?;
    let mut first = None;
    for address in resolve::interleaved(&addresses) {
        match connect_to(&address, transport, target, deadline, waiter) {
            Err(error @ (Error::Os { .. } | Error::TimedOut { .. })) => {
                first = first.or(Some(error));
            }
            result => return result,
        }
    }
    Err(first.unwrap_or_else(|| Error::errno("connect", target, libc::EADDRNOTAVAIL)))
}

fn connect_to(
    address: &Address,
    transport: Transport,
    target: &Target,
    deadline: Option<Instant>,
    waiter: &mut dyn Waiter,
) -> Result<Socket> {
    let failed = |error: io::Error| Error::os("connect", target, &error);
    let socket = Socket::open(transport, address.domain()).map_err(failed)?;
    socket.options().set_nonblocking(true).map_err(failed)?;
    if transport == Transport::Tcp {
        // Each recorded piece leaves at once.
        socket.options().set_tcp_nodelay(true).map_err(failed)?;
    }
    match socket.options().connect(&address.to_raw().map_err(failed)?) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            if !waiter.wait(&mut [PollFd::writable(socket.as_fd())], deadline)? {
                return Err(Error::TimedOut { step: "connect", target: target.to_string() });
            }
            if let Some(error) = socket.options().take_error().map_err(failed)? {
                return Err(failed(error));
            }
        }
        result => result.map_err(failed)?,
    }
    Ok(socket)
}

/// The dialogue with the server.
struct Dialogue {
    player: Player,
    socket: Socket,
    /// Input that was not used.
    rest: Vec<u8>,
    scratch: Vec<u8>,
    /// The server has finished.
    is_ended: bool,
    /// Where the server diverges.
    error: Option<String>,
}

impl Dialogue {
    fn run(
        mut self,
        timeout: Duration,
        target: &Target,
        waiter: &mut dyn Waiter,
    ) -> Result<ScriptResult> {
        loop {
            self.receive(target)?;
            if self.error.is_some() {
                // As a client that does not like an answer.
                return Ok(self.over(true));
            }
            let now = Instant::now();
            let (time, is_writing, is_patience) = match self.player.next(now) {
                Next::Send => match self.send(target)? {
                    true => continue,
                    false => (Some(timeout), true, true),
                },
                Next::Finish => {
                    // ENOTCONN if the server has reset the connection, which a receive reports.
                    let _ = self.socket.shutdown(Shutdown::Write);
                    self.player.did();
                    continue;
                }
                Next::Reset => {
                    self.player.did();
                    return Ok(self.over(true));
                }
                Next::Done => return Ok(self.over(false)),
                Next::Wait(time) => (Some(time), false, false),
                Next::Peer(time) => (time, false, true),
            };
            let reads = if self.is_ended {
                PollFd::unused()
            } else {
                PollFd::readable(self.socket.as_fd())
            };
            let writes =
                if is_writing { PollFd::writable(self.socket.as_fd()) } else { PollFd::unused() };
            let deadline = time.and_then(|time| now.checked_add(time));
            if !waiter.wait(&mut [reads, writes], deadline)? && is_patience {
                self.error = Some(self.player.overdue(&self.rest));
            }
        }
    }

    /// The result, and the end of the connection.
    fn over(mut self, is_reset: bool) -> ScriptResult {
        let error = self.error.take().or_else(|| self.player.torn());
        if is_reset {
            self.socket.abort();
        } else {
            self.socket.close();
        }
        self.player.result(error)
    }

    /// Takes what has come. A divergence is kept.
    fn receive(&mut self, target: &Target) -> Result<()> {
        while !self.is_ended && self.error.is_none() {
            let now = Instant::now();
            match sys::recv(self.socket.as_fd(), &mut self.scratch, libc::MSG_DONTWAIT) {
                Ok(0) => {
                    self.is_ended = true;
                    self.error = self.player.finished(&self.rest, now).err();
                }
                Ok(count) => {
                    self.rest.extend_from_slice(&self.scratch[..count]);
                    match self.player.receive(&self.rest, now) {
                        Ok(used) => drop(self.rest.drain(..used)),
                        Err(report) => self.error = Some(report),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.broken(&error, target)?,
            }
        }
        Ok(())
    }

    /// Sends what is next. Whether all of it was sent.
    fn send(&mut self, target: &Target) -> Result<bool> {
        let unsent = self.player.unsent();
        let size = unsent.len();
        match sys::send(self.socket.as_fd(), unsent, libc::MSG_DONTWAIT) {
            Ok(count) => {
                self.player.sent(count);
                Ok(count == size)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => {
                // What came before the reset is compared first.
                self.receive(target)?;
                if self.error.is_none() {
                    self.broken(&error, target)?;
                }
                Ok(true)
            }
        }
    }

    /// The connection has ended by an error.
    fn broken(&mut self, error: &io::Error, target: &Target) -> Result<()> {
        let is_reset = matches!(error.raw_os_error(), Some(libc::ECONNRESET | libc::EPIPE));
        if !is_reset {
            return Err(Error::os("recv", target, error));
        }
        self.is_ended = true;
        self.error = self.player.closed("reset", true, Instant::now());
        Ok(())
    }
}

/// Plays datagrams: each in its turn.
fn exchange(
    plan: &Arc<Plan>,
    playing: &Arc<Playing>,
    socket: &Socket,
    target: &Target,
    waiter: &mut dyn Waiter,
) -> Result<ScriptResult> {
    let mut exchange = Exchange::new(plan, playing, plan.connection());
    let mut scratch = vec![0; SCRATCH];
    loop {
        for datagram in exchange.begin(&[]) {
            send_datagram(socket, &datagram, target, waiter)?;
        }
        let Some(patience) = exchange.patience() else { return Ok(exchange.result(None)) };
        let deadline = Instant::now().checked_add(patience);
        if !waiter.wait(&mut [PollFd::readable(socket.as_fd())], deadline)? {
            return Ok(exchange.result(Some(exchange.overdue())));
        }
        match sys::recv(socket.as_fd(), &mut scratch, libc::MSG_DONTWAIT) {
            Ok(count) => {
                if let Err(report) = exchange.take(&scratch[..count]) {
                    return Ok(exchange.result(Some(report)));
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(Error::os("recv", target, &error)),
        }
    }
}

fn send_datagram(
    socket: &Socket,
    datagram: &[u8],
    target: &Target,
    waiter: &mut dyn Waiter,
) -> Result<()> {
    loop {
        match sys::send(socket.as_fd(), datagram, 0) {
            Ok(_) => return Ok(()),
            // Of an earlier datagram, which is lost as any may be.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                waiter.wait(&mut [PollFd::writable(socket.as_fd())], None)?;
            }
            Err(error) => return Err(Error::os("send", target, &error)),
        }
    }
}
