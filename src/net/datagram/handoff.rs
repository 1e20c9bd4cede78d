//! Datagrams that the caller's threads answer. A pool of threads takes them, or calls of `accept`
//! do. Owns the records that these threads share, and the thread that fills the pool's queue; must
//! never call into one of them, nor hold its lock while it waits.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::admission::Admission;
use super::amplification::{self, is_loopback};
use super::errors::{Failure, classify};
use super::fault_changes::FaultChanges;
use super::peer_table::Key;
use super::socket::{DatagramSocket, DatagramSockets, LEAST_IN_QUEUE, MOST_DATAGRAM};
use crate::net::address::Address;
use crate::net::base::{EventFd, Mutex, Waiter, poll_or_sleep, poll_own};
use crate::net::control::ServerContext;
use crate::net::error::{Error, Result};
use crate::net::handoff::{Answers, Datagram, Job, ThreadPool};
use crate::net::ledger::{ClosedBy, Record};
use crate::net::stage::Direction;
use crate::net::sys::{self, BATCH, Inbound, Name, PollFd};
use crate::net::worker::{ACCEPT_BACKOFF, shut_down};

/// How many datagrams wait for a thread of the pool. Others wait in the kernel's buffer.
const QUEUE: usize = 64;
/// Why a peer outside the loopback was sent nothing.
const NO_CREDIT: &str =
    "a peer outside the loopback gets no more than it has sent: its address may be forged";
/// Room for the control messages of one datagram.
const CONTROL: usize = 128;
/// The largest UDP payload over IPv4: 20 bytes of a packet are its header.
const MOST_OVER_IPV4: usize = 65_507;

/// A datagram that is counted in its peer's record.
struct Arrival {
    key: Key,
    /// The address in its header: that of this machine, or of many.
    to: Address,
    record: Arc<Record>,
}

/// A datagram that has left the stages of its peer.
struct Staged {
    data: Vec<u8>,
    arrival: Arrival,
}

/// Receives and sends datagrams for the caller's threads.
pub(crate) struct Handoff {
    context: Arc<ServerContext>,
    sockets: Arc<DatagramSockets>,
    /// None once the server has ended, so that a thread that still holds the `Handoff` keeps no
    /// descriptor open.
    admission: Mutex<Option<Admission>>,
    /// Datagrams that have left stages, for calls of `accept`. Bounded by what stages hold. Locked
    /// within the lock of `admission`, or alone.
    arrived: Mutex<VecDeque<Staged>>,
    /// Whether there are some.
    has_arrived: AtomicBool,
    /// Of the thread that calls the stages whose time has come.
    changes: Arc<FaultChanges>,
}

impl Handoff {
    fn new(
        context: &Arc<ServerContext>,
        sockets: &Arc<DatagramSockets>,
        socket: Arc<DatagramSocket>,
        timer: Arc<EventFd>,
    ) -> Self {
        let (context, sockets) = (Arc::clone(context), Arc::clone(sockets));
        let admission = Admission::new(
            Arc::clone(&context),
            socket,
            context.limits.idle,
            context.admission.limit(),
        );
        let admission = Mutex::new(Some(admission.hearing_all()));
        Self {
            changes: FaultChanges::listen(&context, timer),
            context,
            sockets,
            admission,
            arrived: Mutex::default(),
            has_arrived: AtomicBool::new(false),
        }
    }

    /// Calls a function with the admitted peers. None once the server has ended.
    fn with<T>(&self, call: impl FnOnce(&mut Admission) -> T) -> Option<T> {
        self.admission.lock().as_mut().map(call)
    }

    /// The socket. None once the server has ended.
    pub(crate) fn socket(&self) -> Option<Arc<DatagramSocket>> {
        self.with(|admission| Arc::clone(&admission.socket))
    }

    /// Counts a received datagram in its peer's record. None if there is no sender, or no room for
    /// its record, or if the peer has stages: what these pass on is given to `staged`.
    fn record_received(
        &self,
        from: &Name,
        data: &[u8],
        control: &[u8],
        cut: bool,
        staged: &mut dyn FnMut(Staged),
    ) -> Option<Arrival> {
        let mut admission = self.admission.lock();
        let admission = admission.as_mut()?;
        let socket = Arc::clone(&admission.socket);
        // A datagram without a sender marks the end: the socket was shut down.
        let remote = socket.sender(from, data)?;
        if cut {
            self.context.ledger.count_cut();
        }
        let to = sys::destination(control);
        // A new peer may have a time of its own.
        let before = admission.peers.next_due();
        let index = admission.find_or_admit(remote, to, &mut |_| {})?;
        let entry = admission.peers.get_mut(index);
        entry.record.count_received(data);
        if entry.stages.is_none() {
            entry.add_credit(data.len());
        }
        let record = Arc::clone(&entry.record);
        if record.received().messages == 1 && self.context.limits.idle.is_some() {
            // The thread that closes idle records has to compute its next deadline.
            self.context.notifier.notify();
        }
        if admission.is_staged(index) {
            if admission.receive_staged(index, data, to, cut) {
                Self::pass_on(admission, index, staged);
            }
            self.wake_timer(admission, before);
            return None;
        }
        Some(Self::arrival(admission, index, to))
    }

    fn arrival(admission: &Admission, index: u32, to: Option<(IpAddr, IpAddr)>) -> Arrival {
        let entry = admission.peers.get(index);
        // A socket that is bound to one address receives only what was sent to it.
        let mut own = admission.socket.local.clone();
        if let (Address::Ip(own), Some((to, _))) = (&mut own, to) {
            own.set_ip(to);
        }
        let (key, record) = (entry.key.clone(), Arc::clone(&entry.record));
        Arrival { key, to: own.canonical(), record }
    }

    /// Takes what the stages of a peer have passed on in both directions: to the caller's threads,
    /// and to the peer.
    fn pass_on(admission: &mut Admission, index: u32, staged: &mut dyn FnMut(Staged)) {
        let mut data = Vec::new();
        while admission.take_staged(index, &mut data) {
            let to = admission.peers.get(index).stages.as_ref().and_then(|stages| stages.to);
            let arrival = Self::arrival(admission, index, to);
            staged(Staged { data: std::mem::take(&mut data), arrival });
        }
        if admission.send_staged(index) {
            admission.read_error_queue();
        }
    }

    /// Wakes the thread that calls the stages, if it has to call some earlier than `before`.
    fn wake_timer(&self, admission: &Admission, before: Option<Instant>) {
        let due = admission.peers.next_due();
        if due.is_some_and(|due| before.is_none_or(|before| due < before)) {
            self.changes.wake();
        }
    }

    /// Gives every peer the faults of now if they have changed, and calls the stages whose time has
    /// come.
    fn turn(&self, staged: &mut dyn FnMut(Staged)) {
        let changed = self.changes.is_pending();
        if !changed && !self.context.faults.is_used() {
            return;
        }
        // Confirmed at the end.
        let acks = if changed { self.changes.take() } else { Vec::new() };
        self.with(|admission| {
            if changed && self.changes.is_reset(&self.context) {
                admission.peers.close_all(true);
            }
            if changed {
                for index in admission.peers.indices() {
                    // An error queue that was read may have closed it.
                    if admission.peers.has(index) && admission.update_faults(index) {
                        Self::pass_on(admission, index, staged);
                    }
                }
            }
            if admission.peers.next_due().is_some() {
                let now = Instant::now();
                while let Some(index) = admission.turn_staged(now) {
                    Self::pass_on(admission, index, staged);
                }
            }
        });
        drop(acks);
    }

    /// The same for calls of `accept`, which are woken.
    fn turn_for_callers(&self, socket: &DatagramSocket) {
        self.turn(&mut |staged| self.arrive(socket, staged));
    }

    /// Keeps a datagram for a call of `accept`, and wakes the calls that wait. Called with the peers
    /// locked, so that those of one peer keep their order.
    fn arrive(&self, socket: &DatagramSocket, staged: Staged) {
        let mut arrived = self.arrived.lock();
        arrived.push_back(staged);
        self.has_arrived.store(true, SeqCst);
        socket.notifier.set();
    }

    /// Takes the oldest datagram that `arrive` has kept.
    fn take_arrived(&self, socket: &DatagramSocket) -> Option<Staged> {
        if !self.has_arrived.load(SeqCst) {
            return None;
        }
        let mut arrived = self.arrived.lock();
        let first = arrived.pop_front();
        if arrived.is_empty() {
            self.has_arrived.store(false, SeqCst);
            socket.notifier.clear();
            if socket.has_ended() {
                socket.notifier.set();
            }
        }
        first
    }

    /// When the thread that calls the stages must act next.
    fn next_turn(&self) -> Option<Instant> {
        self.with(|admission| admission.next_turn()).flatten()
    }

    /// Sends a datagram to the peer with this key, or to the peer at `remote`. Never waits.
    ///
    /// A peer outside the loopback gets no more bytes than it has sent, at most `most`, within the
    /// rate of its source. Otherwise raises EPERM. A multicast group that the socket has joined may
    /// be sent more.
    fn send(&self, remote: &Address, key: Option<Key>, data: &[u8], most: usize) -> Result<usize> {
        let step = "sendto";
        let failed = |errno, hint: &str| {
            self.context.ledger.count_dropped(1);
            let target = remote.to_string();
            Err(Error::Os { step, target, errno, hint: hint.to_owned() })
        };
        let mut admission = self.admission.lock();
        let Some(admission) = admission.as_mut() else {
            return Err(Error::closed(step, "the server has stopped"));
        };
        let before = admission.peers.next_due();
        let known_index = key.as_ref().map_or_else(
            || admission.peers.find_by_remote(remote),
            |key| admission.peers.index_of(key),
        );
        // The program has joined the group: no forged sender has named it.
        let host = remote.as_ip().map(|remote| remote.ip());
        let is_group = host.is_some_and(|host| admission.context.options.is_joined(host));
        let index = match known_index {
            Some(index) => index,
            None => {
                if !remote.as_ip().is_none_or(is_loopback) && !is_group && !data.is_empty() {
                    // The peer has sent nothing, or its record has closed. No record opens for it,
                    // nor does one close to make room.
                    return failed(libc::EPERM, NO_CREDIT);
                }
                let key = key.unwrap_or_else(|| Key { remote: remote.clone(), local: None });
                match admission.admit(key, &mut |_| {}) {
                    Some(index) => index,
                    None => {
                        return failed(libc::EPERM, "Limits.connections has no room for this peer");
                    }
                }
            }
        };
        let entry = admission.peers.get(index);
        if !entry.is_loopback {
            if data.len() > most.min(entry.credit) && !is_group {
                return failed(libc::EPERM, NO_CREDIT);
            }
            if !host.is_none_or(|host| admission.policy.may_answer(host)) {
                return failed(
                    libc::EPERM,
                    "a source outside the loopback gets a limited number of datagrams per second",
                );
            }
        }
        if admission.is_staged(index) {
            let most = if admission.socket.is_ipv4() { MOST_OVER_IPV4 } else { MOST_DATAGRAM };
            if data.len() > most && !admission.socket.is_unix() {
                return failed(libc::EMSGSIZE, "");
            }
            if admission.push_staged(index, Direction::Outbound, data)
                && admission.send_staged(index)
            {
                admission.read_error_queue();
            }
            self.wake_timer(admission, before);
            return Ok(data.len());
        }
        let entry = admission.peers.get(index);
        let name = admission.socket.name(remote);
        let (mut may_retry, mut error_queued) = (true, false);
        let result = loop {
            let flags = libc::MSG_DONTWAIT;
            let data = [IoSlice::new(data)];
            let sent =
                sys::sendmsg(admission.socket.as_fd(), &data, &entry.route, Some(&name), flags);
            let errno = match sent {
                Ok(sent) => {
                    entry.record.count_sent(&data[0]);
                    admission.peers.get_mut(index).take_credit(sent);
                    break Ok(sent);
                }
                Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
            };
            let failure = classify(errno);
            error_queued |= matches!(failure, Failure::Earlier | Failure::ThisOne);
            match failure {
                Failure::Interrupted => {}
                // The error is usually that of an earlier datagram.
                Failure::Earlier if may_retry => may_retry = false,
                _ => break failed(errno, ""),
            }
        };
        if error_queued {
            // No receive will report these errors. What stays in the error queue, such as EMSGSIZE
            // for an oversized answer, takes space from the receive buffer.
            admission.read_error_queue();
        }
        result
    }

    /// Sends a datagram to any address, for the caller's own calls.
    pub(crate) fn send_to(&self, remote: Address, data: &[u8]) -> Result<usize> {
        self.send(&remote.canonical(), None, data, usize::MAX)
    }

    /// Waits for the next datagram and copies as much of it as fits into `buffer`. Returns the
    /// length, the sender, and the address that it was sent to; None once the server ends.
    pub(crate) fn receive(
        &self,
        buffer: &mut [u8],
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Option<(usize, Address, Address)>> {
        let step = "accept";
        let Some(socket) = self.socket() else { return Ok(None) };
        let target = || socket.local.to_string();
        let mut control = [0; CONTROL];
        loop {
            if socket.has_ended() {
                return Ok(None);
            }
            if let Some(Staged { data, arrival }) = self.take_arrived(&socket) {
                let length = data.len().min(buffer.len());
                buffer[..length].copy_from_slice(&data[..length]);
                return Ok(Some((length, arrival.key.remote, arrival.to)));
            }
            let mut from = Name::room();
            let received = sys::recvmsg(
                socket.as_fd(),
                &mut [IoSliceMut::new(buffer)],
                &mut control,
                &mut from,
                libc::MSG_DONTWAIT,
            );
            let error = match received {
                Ok((bytes, length, flags)) => {
                    let cut = flags & libc::MSG_TRUNC != 0;
                    let (data, control) = (&buffer[..bytes], &control[..length]);
                    let mut arrive = |staged| self.arrive(&socket, staged);
                    let arrived = self.record_received(&from, data, control, cut, &mut arrive);
                    match arrived {
                        // Removed faults have passed on earlier ones of this peer meanwhile.
                        Some(arrival) if self.has_arrived.load(SeqCst) => {
                            let data = data.to_vec();
                            self.arrive(&socket, Staged { data, arrival });
                            continue;
                        }
                        Some(arrival) => {
                            return Ok(Some((bytes, arrival.key.remote, arrival.to)));
                        }
                        None => {
                            waiter.breathe()?;
                            self.context.origin.check()?;
                            continue;
                        }
                    }
                }
                Err(error) => error,
            };
            let notifier = socket.notifier.polled();
            let mut fds = [PollFd::arrival(socket.as_fd()), notifier];
            let until = match classify(error.raw_os_error().unwrap_or(libc::EIO)) {
                Failure::Fatal => {
                    self.context.fail(&error);
                    return Err(Error::os(step, target(), &error));
                }
                Failure::Earlier => {
                    self.with(Admission::read_error_queue);
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
            let ready = self.context.wait_for(&mut fds, until, waiter)?;
            if fds[0].is_shut() && !socket.has_ended() {
                self.context.fail(&shut_down());
            }
            if fds[0].failed() {
                // A receive may not report the error, and the next wait would return at once.
                self.with(Admission::read_error_queue);
            }
            if !ready && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(Error::TimedOut { step, target: target() });
            }
        }
    }

    fn close_idle(&self) {
        self.with(|admission| admission.peers.close_idle());
    }

    /// While the server drains: calls `serve` whenever stages are due or a flag is set, until it
    /// returns that nothing is owed, or the deadline has passed.
    fn drain<'a>(self: &'a Arc<Self>, flags: &[&EventFd], serve: impl Fn(&'a Arc<Self>) -> bool) {
        loop {
            for flag in flags {
                flag.clear();
            }
            let (is_owed, deadline) = (serve(self), self.context.shutdown.deadline());
            if !is_owed || deadline <= Instant::now() {
                return;
            }
            let mut fds: Vec<_> = flags.iter().map(|flag| flag.polled()).collect();
            let due = self.with(|admission| admission.peers.next_due()).flatten();
            poll_or_sleep(&mut fds, Some(due.map_or(deadline, |due| due.min(deadline))));
        }
    }

    /// Closes all records and the socket.
    fn close(&self, forced: bool) {
        let admission = self.admission.lock().take();
        if let Some(mut admission) = admission {
            admission.peers.close_all(forced);
            self.sockets.remove(&admission.socket);
        }
        self.arrived.lock().clear();
        self.changes.end();
        self.context.clear_notifier();
    }
}

impl Answers for Handoff {
    fn reply(&self, to: &Address, own: Option<IpAddr>, data: &[u8], most: usize) -> Result<()> {
        let has_address = match to {
            // Such as 0.0.0.0, the sender of a DHCP client without an address.
            Address::Ip(to) => amplification::is_one_host(to.ip()),
            Address::Unix(name) => !name.is_unnamed(),
        };
        if !has_address {
            self.context.ledger.count_dropped(1);
            return Ok(());
        }
        self.send(to, Some(Key { remote: to.clone(), local: own }), data, most).map(drop)
    }

    /// Closes the peer's record. The next datagram of that peer opens a new one.
    fn fail(&self, to: &Address, own: Option<IpAddr>, error: String) {
        self.context.count_error();
        self.with(|admission| {
            if let Some(index) = admission.peers.index_of(&Key { remote: to.clone(), local: own }) {
                admission.peers.close(index, ClosedBy::Error, Some(error), false);
            }
        });
    }
}

/// Starts the thread that hands datagrams to the pool.
pub(super) fn start_pool(
    context: &Arc<ServerContext>,
    sockets: &Arc<DatagramSockets>,
    socket: DatagramSocket,
    notifier: Arc<EventFd>,
    pool: &Arc<ThreadPool>,
) -> io::Result<Arc<Handoff>> {
    let inbound = Inbound::new(context.limits.datagram, socket.tells_destination())?;
    let timer = Arc::clone(&socket.notifier);
    let (handoff, socket) = open(context, sockets, socket, timer);
    let pool = Arc::clone(pool);
    let filler = Filler { handoff: Arc::clone(&handoff), pool, socket, inbound };
    let started = context.spawn("rsock-worker-0".to_owned(), move || filler.run(&notifier));
    started.inspect_err(|_| handoff.close(false))?;
    Ok(handoff)
}

/// Starts the thread that closes the socket when the server ends. Until then callers receive from
/// it.
pub(super) fn start_on_demand(
    context: &Arc<ServerContext>,
    sockets: &Arc<DatagramSockets>,
    socket: DatagramSocket,
    notifier: Arc<EventFd>,
) -> io::Result<Arc<Handoff>> {
    let (handoff, socket) = open(context, sockets, socket, Arc::clone(&notifier));
    let body = Arc::clone(&handoff);
    let wait = move || wait_for_end(&body, &socket, &notifier);
    let started = context.spawn("rsock-accept".to_owned(), wait);
    started.inspect_err(|_| handoff.close(false))?;
    Ok(handoff)
}

fn open(
    context: &Arc<ServerContext>,
    sockets: &Arc<DatagramSockets>,
    socket: DatagramSocket,
    timer: Arc<EventFd>,
) -> (Arc<Handoff>, Arc<DatagramSocket>) {
    let socket = Arc::new(socket);
    sockets.add(&socket);
    (Arc::new(Handoff::new(context, sockets, Arc::clone(&socket), timer)), socket)
}

/// Waits for the end of the server. `DatagramSocket::end` wakes the callers that wait for a
/// datagram.
fn wait_for_end(handoff: &Arc<Handoff>, socket: &DatagramSocket, notifier: &EventFd) {
    while !socket.has_ended() {
        let mut fds = [notifier.polled(), PollFd::shutdown(socket.as_fd())];
        let polled = match poll_own(&mut fds, handoff.next_turn()) {
            Ok(polled) => polled,
            Err(error) => {
                handoff.context.fail(&error);
                break;
            }
        };
        notifier.clear();
        if polled && fds[1].failed() {
            // The poll would return at once again.
            handoff.with(Admission::read_error_queue);
        }
        if polled && fds[1].is_shut() && !socket.has_ended() {
            // By another of its owners. No call of `accept` may be there to notice it.
            handoff.context.fail(&shut_down());
        }
        handoff.turn_for_callers(socket);
        handoff.close_idle();
    }
    // What the caller has sent is still delivered. What has arrived is discarded, as in the kernel.
    handoff.drain(&[notifier], |handoff| {
        handoff.turn(&mut drop);
        handoff.with(|admission| admission.peers.owe()).unwrap_or(false)
    });
    handoff.close(handoff.context.shutdown.is_hard());
}

/// Calls the stages that are due, and gives what they pass on to the pool.
fn turn(handoff: &Arc<Handoff>, pool: &ThreadPool) {
    let mut ready = Vec::new();
    handoff.turn(&mut |staged| ready.push(staged));
    ready.into_iter().for_each(|staged| push(handoff, pool, staged));
}

/// Gives a datagram to a thread of the pool.
fn push(handoff: &Arc<Handoff>, pool: &ThreadPool, staged: Staged) {
    let Staged { data, arrival: Arrival { key: peer, to, record } } = staged;
    let job = pool.handed_out.add(Weak::new());
    let datagram = Datagram {
        answers: Arc::clone(handoff) as Arc<dyn Answers>,
        context: Arc::clone(&handoff.context),
        handed_out: Arc::clone(&pool.handed_out),
        job,
        data,
        from: peer.remote,
        own: peer.local,
        to,
        record,
    };
    if handoff.context.ordered {
        pool.push_in_turn(job, datagram);
    } else {
        pool.push(job, Job::Datagram(datagram));
    }
}

/// Fills the pool's queue until the server ends, then waits for the handlers.
struct Filler {
    handoff: Arc<Handoff>,
    pool: Arc<ThreadPool>,
    socket: Arc<DatagramSocket>,
    inbound: Inbound,
}

impl Filler {
    fn run(mut self, notifier: &EventFd) {
        let context = Arc::clone(&self.handoff.context);
        if let Err(error) = self.fill_until_end() {
            context.fail(&error);
        }
        self.pool.handed_out.begin_drain();
        if !context.shutdown.is_hard() && !self.socket.is_handed_over() {
            // What is in the kernel's queue now is still handed out, and is no more than the
            // receive buffer holds. Later datagrams are not.
            let mut left = sys::queued(self.socket.as_fd()) / LEAST_IN_QUEUE;
            while left > 0 && Instant::now() < context.shutdown.deadline() {
                let Ok(Some(count)) = self.hand_out(left, libc::MSG_DONTWAIT) else { break };
                left -= count.min(left);
            }
        }
        if context.faults.is_used() {
            let flags = [notifier, &self.socket.notifier];
            let (handoff, pool) = (&self.handoff, &self.pool);
            handoff.drain(&flags, |handoff| {
                turn(handoff, pool);
                let is_owed = handoff.with(|admission| admission.peers.are_owed());
                // A handler that works may still answer.
                is_owed.unwrap_or(false) || !pool.handed_out.exempt().1
            });
        }
        self.pool.drain(notifier);
        self.handoff.close(context.shutdown.is_hard());
    }

    fn fill_until_end(&mut self) -> io::Result<()> {
        let mut blocks = self.allow_blocking();
        while !self.socket.has_ended() {
            if self.handoff.changes.is_pending() {
                turn(&self.handoff, &self.pool);
                blocks |= self.allow_blocking();
            }
            let flags = self.socket.receive_flags(&mut blocks);
            let room = QUEUE.saturating_sub(self.pool.queued());
            if room == 0 {
                self.pool.ask_for_room(&self.socket.notifier);
                // A thread that took a job before this request did not set the flag.
                if self.pool.queued() >= QUEUE {
                    self.socket.wait_for_notifier(self.handoff.next_turn());
                } else {
                    self.pool.forget_room();
                }
            } else if self.hand_out(room.min(BATCH), flags)?.is_none()
                // Also on a socket that blocks: another of its owners may have made it
                // non-blocking.
                && self.socket.wait(self.handoff.next_turn())?
            {
                self.handoff.with(Admission::read_error_queue);
            }
            turn(&self.handoff, &self.pool);
            self.handoff.close_idle();
        }
        Ok(())
    }

    /// Lets the thread wait inside the receive call, if nothing else has to end that wait. Returns
    /// whether it does.
    fn allow_blocking(&self) -> bool {
        let context = &self.handoff.context;
        if context.limits.idle.is_none() {
            self.socket.allow_blocking(&context.faults, &self.handoff.changes);
        }
        self.socket.blocks()
    }

    /// Receives a batch and hands it out. None if nothing was received.
    fn hand_out(&mut self, most: usize, flags: i32) -> io::Result<Option<usize>> {
        let Self { handoff, pool, socket, inbound } = self;
        let error = match inbound.receive(socket.as_fd(), most, flags) {
            Ok(count) => {
                for slot in 0..count {
                    let received = inbound.get(slot);
                    let (data, control) = (received.data, received.control);
                    match socket.sender(received.from, data) {
                        None if !socket.has_ended() => return Err(shut_down()),
                        Some(from) if socket.is_wake_up(&from) => continue,
                        _ => {}
                    }
                    let (from, cut) = (received.from, received.cut);
                    let mut ready = Vec::new();
                    let mut keep = |staged| ready.push(staged);
                    let arrived = handoff.record_received(from, data, control, cut, &mut keep);
                    if let Some(arrival) = arrived {
                        push(handoff, pool, Staged { data: data.to_vec(), arrival });
                    }
                    ready.into_iter().for_each(|staged| push(handoff, pool, staged));
                }
                return Ok(Some(count));
            }
            Err(error) => error,
        };
        match classify(error.raw_os_error().unwrap_or(libc::EIO)) {
            Failure::Fatal => return Err(error),
            Failure::Exhausted | Failure::ThisOne => {
                handoff.context.ledger.count_accept_error();
                socket.wait_for_notifier(Some(Instant::now() + ACCEPT_BACKOFF));
            }
            Failure::Earlier => {
                handoff.with(Admission::read_error_queue);
            }
            Failure::Blocked | Failure::Interrupted => {}
        }
        Ok(None)
    }
}
