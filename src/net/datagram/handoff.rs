//! Datagrams that are answered by threads of the caller's: handed to a pool, or to whoever asks for the next
//! one. Owns the accounts they share, and the thread that fills the pool's queue; must never call one of them
//! back, nor keep its lock while it waits.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::admission::Admission;
use super::amplification::is_loopback;
use super::errors::{Failure, classify};
use super::peer_table::Key;
use super::socket::{DatagramSocket, DatagramSockets, LEAST_IN_QUEUE};
use crate::net::address::{canonical, display};
use crate::net::base::{EventFd, Mutex, Waiter};
use crate::net::control::{Cause, ServerContext};
use crate::net::error::{Error, Result};
use crate::net::handoff::{Answers, Datagram, Job, ThreadPool};
use crate::net::ledger::{ClosedBy, Record};
use crate::net::sys::{self, BATCH, Inbound, Name, PollFd};
use crate::net::worker::ACCEPT_BACKOFF;

/// So many datagrams wait for a thread of the pool; others wait in the kernel's buffer.
const QUEUE: usize = 64;
/// Why a peer that is not on this machine got nothing.
const STRANGER: &str =
    "a peer outside the loopback gets no more than it has sent: its address may be forged";
/// Room for the control messages of one datagram.
const CONTROL: usize = 128;

/// What threads of the caller's answer datagrams through.
pub(crate) struct Handoff {
    context: Arc<ServerContext>,
    sockets: Arc<DatagramSockets>,
    /// None from the end on: whoever is late keeps no descriptor open.
    admission: Mutex<Option<Admission>>,
}

impl Handoff {
    fn new(
        context: &Arc<ServerContext>,
        sockets: &Arc<DatagramSockets>,
        port: Arc<DatagramSocket>,
    ) -> Self {
        let (context, sockets) = (Arc::clone(context), Arc::clone(sockets));
        let admission = Mutex::new(Some(Admission::new(
            Arc::clone(&context),
            Arc::clone(&sockets),
            port,
            context.limits.idle,
            context.admission.limit(),
        )));
        Self { context, sockets, admission }
    }

    /// Runs something with the accounts; None from the end on.
    fn with<T>(&self, call: impl FnOnce(&mut Admission) -> T) -> Option<T> {
        self.admission.lock().as_mut().map(call)
    }

    /// Its socket; None from the end on.
    pub(crate) fn port(&self) -> Option<Arc<DatagramSocket>> {
        self.with(|admission| Arc::clone(&admission.port))
    }

    /// Writes down a datagram that has come; None where it is not to be answered.
    fn arrive(
        &self,
        from: &Name,
        data: &[u8],
        control: &[u8],
        cut: bool,
    ) -> Option<(Key, Arc<Record>)> {
        // Without a sender it is none, but the end.
        let remote = canonical(from.address()?);
        if cut {
            self.context.ledger.count_cut();
        }
        let to = sys::destination(control);
        let mut admission = self.admission.lock();
        let admission = admission.as_mut()?;
        admission.close_servers();
        let index = admission.meet(remote, to, &mut |_| {})?;
        let known = admission.peers.get_mut(index);
        known.record.count_received(data);
        known.earn(data.len());
        let record = Arc::clone(&known.record);
        if record.received().messages == 1 && self.context.limits.idle.is_some() {
            // Whoever closes the accounts of the silent has to look when that will be.
            self.context.notifier.notify();
        }
        Some((Key { remote, local: to.map(|(_, own)| own) }, record))
    }

    /// Sends a datagram to a peer: to the one of `key`, or to the one that `remote` is. Never waits.
    ///
    /// One that is not on this machine gets no more than it has sent, at most `most` bytes, and no more
    /// than its share: EPERM.
    fn send(
        &self,
        remote: SocketAddr,
        key: Option<Key>,
        data: &[u8],
        most: usize,
    ) -> Result<usize> {
        let step = "sendto";
        let failed = |errno, hint: &str| {
            self.context.ledger.count_dropped(1);
            let target = display(&remote);
            Err(Error::Os { step, target, errno, hint: hint.to_owned() })
        };
        let mut admission = self.admission.lock();
        let Some(admission) = admission.as_mut() else {
            return Err(Error::closed(step, "the server has stopped"));
        };
        let known =
            key.map_or_else(|| admission.peers.of(remote), |key| admission.peers.index_of(&key));
        let index = match known {
            Some(index) => index,
            None => {
                if !is_loopback(remote) && !data.is_empty() {
                    // It has sent nothing, or is forgotten: no account is opened for it, nor closed for
                    // want of room.
                    return failed(libc::EPERM, STRANGER);
                }
                let key = key.unwrap_or(Key { remote, local: None });
                match admission.admit(key, &mut |_| {}) {
                    Some(index) => index,
                    None => {
                        return failed(libc::EPERM, "Limits.connections has no entry_id for it");
                    }
                }
            }
        };
        let known = admission.peers.get(index);
        if !known.is_near {
            if data.len() > most.min(known.credit) {
                return failed(libc::EPERM, STRANGER);
            }
            if !admission.policy.may_answer(remote.ip()) {
                return failed(
                    libc::EPERM,
                    "a peer outside the loopback gets so many datagrams a second, and no more",
                );
            }
        }
        let known = admission.peers.get(index);
        let (name, mut again, mut told) = (admission.port.name(remote), true, false);
        let result = loop {
            let flags = libc::MSG_DONTWAIT;
            let data = [IoSlice::new(data)];
            let sent =
                sys::sendmsg(admission.port.as_fd(), &data, &known.route, Some(&name), flags);
            let errno = match sent {
                Ok(sent) => {
                    known.record.count_sent(&data[0]);
                    admission.peers.get_mut(index).pay(sent);
                    break Ok(sent);
                }
                Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
            };
            let failure = classify(errno);
            told |= matches!(failure, Failure::Earlier | Failure::ThisOne);
            match failure {
                Failure::Interrupted => {}
                // Said of another datagram, mostly.
                Failure::Earlier if again => again = false,
                _ => break failed(errno, ""),
            }
        };
        if told {
            // No receive will be told of it again; and what stays in the error queue, an answer too
            // large for any datagram too, takes its room from what is received.
            admission.hear_refusals();
        }
        result
    }

    /// Sends a datagram to anybody: for the caller's own calls.
    pub(crate) fn send_to(&self, remote: SocketAddr, data: &[u8]) -> Result<usize> {
        self.send(canonical(remote), None, data, usize::MAX)
    }

    /// The next datagram for the caller, who waits for it; as much of it as `buffer` has room for. None once
    /// the server ends.
    pub(crate) fn receive(
        &self,
        buffer: &mut [u8],
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Option<(usize, SocketAddr)>> {
        let step = "accept";
        let Some(port) = self.port() else { return Ok(None) };
        let target = || display(&port.local);
        let mut control = [0; CONTROL];
        loop {
            if port.has_ended() {
                return Ok(None);
            }
            let mut from = Name::room();
            let received = sys::recvmsg(
                port.as_fd(),
                &mut [IoSliceMut::new(buffer)],
                &mut control,
                &mut from,
                libc::MSG_DONTWAIT,
            );
            let error = match received {
                Ok((bytes, length, flags)) => {
                    let cut = flags & libc::MSG_TRUNC != 0;
                    let arrived = self.arrive(&from, &buffer[..bytes], &control[..length], cut);
                    match arrived {
                        Some((key, _)) => return Ok(Some((bytes, key.remote))),
                        None => {
                            waiter.breathe()?;
                            continue;
                        }
                    }
                }
                Err(error) => error,
            };
            let notifier = PollFd::readable(port.notifier.as_fd());
            let mut fds = [PollFd::readable(port.as_fd()), notifier];
            let until = match classify(error.raw_os_error().unwrap_or(libc::EIO)) {
                Failure::Fatal => return Err(Error::os(step, target(), &error)),
                Failure::Earlier => {
                    self.with(Admission::hear_refusals);
                    continue;
                }
                Failure::Blocked | Failure::Interrupted => deadline,
                Failure::Exhausted | Failure::ThisOne => {
                    self.context.ledger.count_accept_error();
                    fds[0] = PollFd::unused();
                    let rest = Instant::now() + ACCEPT_BACKOFF;
                    Some(deadline.map_or(rest, |deadline| deadline.min(rest)))
                }
            };
            let ready = waiter.wait(&mut fds, until)?;
            if fds[0].failed() {
                // A receive need not be told of it, and the next wait would end at once.
                self.with(Admission::hear_refusals);
            }
            if !ready && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(Error::TimedOut { step, target: target() });
            }
        }
    }

    fn idle_at(&self) -> Option<Instant> {
        self.with(|admission| admission.peers.idle_at()).flatten()
    }

    fn close_idle(&self) {
        self.with(|admission| admission.peers.close_idle());
    }

    /// Closes all accounts, and tells nobody of it any more.
    fn close(&self, forced: bool) {
        let admission = self.admission.lock().take();
        if let Some(mut admission) = admission {
            admission.peers.close_all(forced);
            self.sockets.remove(&admission.port);
        }
        self.context.clear_notifier();
    }
}

impl Answers for Handoff {
    fn reply(&self, to: SocketAddr, own: Option<IpAddr>, data: &[u8], most: usize) -> Result<()> {
        self.send(to, Some(Key { remote: to, local: own }), data, most).map(drop)
    }

    /// The record of the peer is closed, which another datagram opens anew.
    fn fail(&self, to: SocketAddr, own: Option<IpAddr>, error: String) {
        self.context.count_error();
        self.with(|admission| {
            if let Some(index) = admission.peers.index_of(&Key { remote: to, local: own }) {
                admission.peers.close(index, ClosedBy::Error, Some(error), false);
            }
        });
    }
}

/// Starts the thread that hands datagrams to the pool.
pub(super) fn start_pool(
    context: &Arc<ServerContext>,
    sockets: &Arc<DatagramSockets>,
    port: DatagramSocket,
    notifier: Arc<EventFd>,
    pool: &Arc<ThreadPool>,
) -> io::Result<Arc<Handoff>> {
    let inbound = Inbound::new(context.limits.datagram, port.tells_destination())?;
    let (handoff, port) = open(context, sockets, port);
    let pool = Arc::clone(pool);
    let filler = Filler { handoff: Arc::clone(&handoff), pool, port, inbound };
    let started = context.spawn("rsock-worker-0".to_owned(), move || filler.run(&notifier));
    started.inspect_err(|_| handoff.close(false))?;
    Ok(handoff)
}

/// Starts the thread that closes a port at the end, from which callers receive until then.
pub(super) fn start_on_demand(
    context: &Arc<ServerContext>,
    sockets: &Arc<DatagramSockets>,
    port: DatagramSocket,
    notifier: Arc<EventFd>,
) -> io::Result<Arc<Handoff>> {
    let (handoff, port) = open(context, sockets, port);
    let body = Arc::clone(&handoff);
    let wait = move || wait_for_end(&body, &port, &notifier);
    let started = context.spawn("rsock-accept".to_owned(), wait);
    started.inspect_err(|_| handoff.close(false))?;
    Ok(handoff)
}

fn open(
    context: &Arc<ServerContext>,
    sockets: &Arc<DatagramSockets>,
    port: DatagramSocket,
) -> (Arc<Handoff>, Arc<DatagramSocket>) {
    let port = Arc::new(port);
    sockets.add(&port);
    (Arc::new(Handoff::new(context, sockets, Arc::clone(&port))), port)
}

/// Waits for the end. Those who wait for a datagram have been told of it.
fn wait_for_end(handoff: &Handoff, port: &DatagramSocket, notifier: &EventFd) {
    while !port.has_ended() {
        let _ = sys::poll(&mut [PollFd::readable(notifier.as_fd())], handoff.idle_at());
        notifier.clear();
        handoff.close_idle();
    }
    handoff.close(handoff.context.shutdown.is_hard());
}

/// Fills the pool's queue until the end, then waits for the handlers.
struct Filler {
    handoff: Arc<Handoff>,
    pool: Arc<ThreadPool>,
    port: Arc<DatagramSocket>,
    inbound: Inbound,
}

impl Filler {
    fn run(mut self, notifier: &EventFd) {
        let context = Arc::clone(&self.handoff.context);
        if self.fill_until_end().is_err() {
            context.stop_by_itself(Cause::AcceptError);
        }
        self.pool.handed_out.begin_drain();
        if !context.shutdown.is_hard() {
            // What is in the kernel's queue now is handed out like all before it, and is no more than
            // there was room for; what comes later need not be.
            let mut left = sys::queued(self.port.as_fd()) / LEAST_IN_QUEUE;
            while left > 0 {
                let Ok(Some(count)) = self.hand_out(left, libc::MSG_DONTWAIT) else { break };
                left -= count.min(left);
            }
        }
        self.pool.drain(notifier);
        self.handoff.close(context.shutdown.is_hard());
    }

    fn fill_until_end(&mut self) -> io::Result<()> {
        let context = Arc::clone(&self.handoff.context);
        let may_block = self.port.may_block() && context.limits.idle.is_none();
        let flags = if may_block { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        while !self.port.has_ended() {
            let room = QUEUE.saturating_sub(self.pool.queued());
            if room == 0 {
                self.pool.ask_for_room(&self.port.notifier);
                // A thread that took a job just before that has set no flag.
                if self.pool.queued() >= QUEUE {
                    self.port.wait_for_notifier(self.handoff.idle_at());
                } else {
                    self.pool.forget_room();
                }
            } else if self.hand_out(room.min(BATCH), flags)?.is_none()
                && !may_block
                && self.port.wait(self.handoff.idle_at())
            {
                self.handoff.with(Admission::hear_refusals);
            }
            self.handoff.close_idle();
        }
        Ok(())
    }

    /// Receives a batch and hands it out; None where nothing came.
    fn hand_out(&mut self, most: usize, flags: i32) -> io::Result<Option<usize>> {
        let Self { handoff, pool, port, inbound } = self;
        let error = match inbound.receive(port.as_fd(), most, flags) {
            Ok(count) => {
                for slot in 0..count {
                    let received = inbound.get(slot);
                    let (data, control) = (received.data, received.control);
                    let arrived = handoff.arrive(received.from, data, control, received.cut);
                    let Some((peer, record)) = arrived else { continue };
                    let data = data.to_vec();
                    let job = pool.handed_out.add(Weak::new());
                    let datagram = Datagram {
                        answers: Arc::clone(handoff) as Arc<dyn Answers>,
                        context: Arc::clone(&handoff.context),
                        handed_out: Arc::clone(&pool.handed_out),
                        job,
                        data,
                        from: peer.remote,
                        own: peer.local,
                        record,
                    };
                    pool.push(job, Job::Datagram(datagram));
                }
                return Ok(Some(count));
            }
            Err(error) => error,
        };
        match classify(error.raw_os_error().unwrap_or(libc::EIO)) {
            Failure::Fatal => return Err(error),
            Failure::Exhausted | Failure::ThisOne => {
                handoff.context.ledger.count_accept_error();
                port.wait_for_notifier(Some(Instant::now() + ACCEPT_BACKOFF));
            }
            Failure::Earlier => {
                handoff.with(Admission::hear_refusals);
            }
            Failure::Blocked | Failure::Interrupted => {}
        }
        Ok(None)
    }
}
