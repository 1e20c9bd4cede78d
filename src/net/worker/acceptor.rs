//! Accepting: takes connections off the queue, admits them, hands them on. Owns the listener while
//! the server serves, and the classes of accept's errors; must never spin, nor touch an established
//! connection.
//!
//! It has a thread of its own, but for a server whose only worker can do it by itself: there the way
//! from one thread to the other would cost more than all the rest that is not the kernel's.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use crate::net::address::endpoint::Address;
use crate::net::base::event_fd::EventFd;
use crate::net::control::context::Shared;
use crate::net::control::limits::Overflow;
use crate::net::control::shutdown::Cause;
use crate::net::handoff::pool::ThreadPool;
use crate::net::service::service::Service;
use crate::net::socket::listener::Listener;
use crate::net::socket::socket::Socket;
use crate::net::sys::{self, PollFd};
use crate::net::worker::accept_errors::{ACCEPT_BACKOFF, Failure, TURN, classify};
use crate::net::worker::inbox::{Inbox, Message};
use crate::net::worker::open_record::record_of;
use crate::net::worker::pool::pick;
use crate::net::worker::sink::Accepted;

/// Connects in a flood come closer together than this...
const FLOOD: Duration = Duration::from_micros(300);
/// ...and are then waited for so long, so that one wake-up takes several.
const COALESCE: Duration = Duration::from_micros(50);

/// Who is given what was accepted.
pub(crate) enum Sink {
    /// The workers of a service, those that there are now.
    Workers(Arc<dyn Service>, Vec<Arc<Inbox>>),
    /// The threads of a pool.
    Pool,
    /// The worker on whose thread it accepts, which fetches them from here.
    Here(Vec<Accepted>),
}

/// Accepting for one server, on a thread of its own or on a worker's.
pub(crate) struct Acceptor {
    shared: Arc<Shared>,
    listener: Listener,
    notifier: Arc<EventFd>,
    local: Address,
    taker: Sink,
    next_id: u64,
    /// Until when accepting rests; None while it does not.
    rest: Option<Instant>,
    last: Option<Instant>,
    /// The last wake-up took more than one: connects come faster than they are taken.
    crowded: bool,
    /// The queue may hold something. Looked at only on a worker's thread, whose poller tells it once.
    ready: bool,
    /// A descriptor to give up, so that even without a free one an excess connection can be refused.
    reserve: Option<std::fs::File>,
}

impl Acceptor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        listener: Listener,
        local: Address,
        notifier: Arc<EventFd>,
        taker: Sink,
    ) -> Self {
        let mut acceptor = Self {
            shared,
            listener,
            notifier,
            local,
            taker,
            next_id: 1,
            rest: None,
            last: None,
            crowded: false,
            // What came before the poller knew the listener.
            ready: true,
            reserve: None,
        };
        acceptor.refill_reserve();
        acceptor
    }

    fn refill_reserve(&mut self) {
        if self.shared.limits.overflow == Overflow::Refuse && self.reserve.is_none() {
            self.reserve = std::fs::File::open("/dev/null").ok();
        }
    }

    /// The thread's body: accepts until the server stops, then hands the rest of the queue over.
    pub(crate) fn run(mut self) {
        sys::set_timer_slack(Duration::from_nanos(1));
        self.guarded(Self::accept_until_stop);
        let shared = Arc::clone(&self.shared);
        let notifier = Arc::clone(&self.notifier);
        match self.close() {
            // Behind every connection in each channel; a worker started later would find none.
            Sink::Workers(_, workers) => {
                workers.iter().for_each(|worker| worker.send(Message::Drain));
            }
            Sink::Pool => shared.handoff.drain_pool(&shared, &notifier),
            Sink::Here(_) => {}
        }
        shared.clear_notifier();
    }

    /// Does a part of the work. Where that fails for good, or panics, the server stops.
    fn guarded<T>(&mut self, part: impl FnOnce(&mut Self) -> io::Result<T>) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(|| part(self))) {
            Ok(Ok(done)) => return Some(done),
            Ok(Err(_)) => {}
            Err(_) => self.shared.count_error(),
        }
        self.shared.stop_by_itself(Cause::AcceptError);
        None
    }

    /// The end of accepting; those who took what was accepted are still to be told.
    fn close(self) -> Sink {
        // For reads that begin from here on; those who wait in one are told by `drain_pool`.
        self.shared.handoff.begin_drain();
        self.listener.close();
        self.taker
    }

    fn accept_until_stop(&mut self) -> io::Result<()> {
        loop {
            if self.shared.stop.has_begun() {
                if !self.shared.stop.is_hard() {
                    self.accept_queue()?;
                }
                return Ok(());
            }
            if self.has_room() && self.rest.is_none() {
                let mut fds = [
                    PollFd::readable(self.notifier.as_fd()),
                    PollFd::readable(self.listener.as_fd()),
                ];
                wait(&mut fds, None);
                if fds[0].ready() {
                    self.notifier.clear();
                }
                if fds[1].ready() && !self.shared.stop.has_begun() {
                    self.coalesce();
                    self.accept_some(TURN)?;
                }
            } else {
                // Full, or out of descriptors: the next connection that ends sets the notifier.
                let mut fds = [PollFd::readable(self.notifier.as_fd())];
                let freed = wait(&mut fds, self.rest);
                self.notifier.clear();
                if freed || self.rest.is_none_or(|until| until <= Instant::now()) {
                    self.rest = None;
                    self.refill_reserve();
                }
            }
        }
    }

    /// What the poller of a worker has to watch in place of this.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.listener.as_fd().as_raw_fd()
    }

    /// The poller says that somebody has come.
    pub(crate) fn notice(&mut self) {
        self.ready = true;
    }

    /// When the next turn is due: None for whenever the poller says something.
    pub(crate) fn next_turn(&self) -> Option<Instant> {
        match self.rest {
            None if self.ready && self.has_room() => Some(Instant::now()),
            rest => rest,
        }
    }

    /// A turn of it on the thread of a worker; false where it was the last. Never blocks.
    pub(crate) fn turn(&mut self) -> bool {
        self.guarded(Self::try_turn).unwrap_or(false)
    }

    fn try_turn(&mut self) -> io::Result<bool> {
        if self.shared.stop.has_begun() {
            if !self.shared.stop.is_hard() {
                self.accept_queue()?;
            }
            return Ok(false);
        }
        if self.rest.is_some_and(|until| !self.shared.wants_room() || until <= Instant::now()) {
            self.rest = None;
            self.refill_reserve();
        }
        if self.ready && self.rest.is_none() && self.has_room() {
            self.accept_some(TURN)?;
        }
        Ok(true)
    }

    /// What the last turn has brought.
    pub(crate) fn arrived(&mut self) -> Vec<Accepted> {
        match &mut self.taker {
            Sink::Here(arrived) => std::mem::take(arrived),
            Sink::Workers(..) | Sink::Pool => Vec::new(),
        }
    }

    /// The end of it on the thread of a worker, which has fetched the last to arrive.
    pub(crate) fn end(self: Box<Self>) {
        let shared = Arc::clone(&self.shared);
        self.close();
        shared.clear_notifier();
    }

    /// In a flood, lets a few connections gather: one wake-up for several is a third cheaper.
    fn coalesce(&self) {
        if self.crowded && self.last.is_some_and(|last| last.elapsed() < FLOOD) {
            thread::sleep(COALESCE);
        }
    }

    /// What was in the queue when the stop began is served like all before it.
    fn accept_queue(&mut self) -> io::Result<()> {
        let waiting = self.listener.last_call();
        if self.has_room() { self.accept_some(waiting) } else { Ok(()) }
    }

    /// Whether the limit admits one more. If not, the next connection to end is asked to ring.
    fn has_room(&self) -> bool {
        self.shared.limits.overflow == Overflow::Refuse || self.shared.has_room()
    }

    fn accept_some(&mut self, most: usize) -> io::Result<()> {
        let (mut taken, mut failed) = (0, 0);
        for _ in 0..most {
            self.crowded = taken > 1;
            if !self.has_room() {
                return Ok(());
            }
            // A worker must never wait in a read; a handler's descriptor is like any other.
            let nonblocking = !matches!(self.taker, Sink::Pool);
            match self.listener.accept(nonblocking) {
                Ok((fd, peer)) => {
                    self.last = Some(Instant::now());
                    taken += 1;
                    failed = 0;
                    self.admit(Socket::new(fd), peer);
                }
                Err(error) => {
                    let failure = classify(error.raw_os_error().unwrap_or(libc::EIO));
                    if failure == Failure::Empty {
                        self.ready = false;
                        return Ok(());
                    }
                    self.shared.ledger.count_accept_error();
                    match failure {
                        Failure::Exhausted => return self.exhausted(),
                        Failure::Fatal => return Err(error),
                        Failure::Connection | Failure::Empty => failed += 1,
                    }
                    if failed == TURN {
                        // An error that says it is of one connection may be of all.
                        self.back_off();
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Out of descriptors or memory: rests, so as not to spin; where it is to refuse, it first refuses
    /// those who wait, by the reserve.
    fn exhausted(&mut self) -> io::Result<()> {
        for _ in 0..TURN {
            if self.reserve.take().is_none() {
                break;
            }
            let accepted = self.listener.accept(true);
            let empty = accepted.is_err();
            if let Ok((fd, _)) = accepted {
                self.refuse(Socket::new(fd));
            }
            self.refill_reserve();
            if empty {
                break;
            }
        }
        self.back_off();
        Ok(())
    }

    /// Does not accept for a while, unless a connection ends before.
    fn back_off(&mut self) {
        self.shared.ask_for_room();
        self.rest = Some(Instant::now() + ACCEPT_BACKOFF);
    }

    fn refuse(&self, socket: Socket) {
        self.shared.ledger.count_refused();
        socket.abort();
    }

    fn admit(&mut self, socket: Socket, peer: Option<Address>) {
        if !self.shared.enter() {
            return self.refuse(socket);
        }
        if !self.shared.enter_host(peer.as_ref().and_then(Address::as_ip)) {
            self.shared.give_back();
            return self.refuse(socket);
        }
        let record = record_of(&socket, self.next_id, peer, &self.local, &self.shared);
        self.next_id += 1;
        let place = self.shared.ledger.open(&record);
        let accepted = Accepted { socket, record, place };
        match &mut self.taker {
            Sink::Pool => ThreadPool::push(&self.shared, accepted),
            Sink::Here(arrived) => arrived.push(accepted),
            Sink::Workers(service, workers) => {
                let worker = pick(&self.shared, service, workers);
                worker.load.fetch_add(1, Relaxed);
                worker.send(Message::Adopt(accepted));
            }
        }
    }
}

/// The accept thread of a server whose caller accepts: it only waits for the end, and sees to it.
pub(crate) fn keep(shared: &Shared, notifier: &EventFd) {
    while !shared.stop.has_begun() {
        wait(&mut [PollFd::readable(notifier.as_fd())], None);
        notifier.clear();
    }
    shared.handoff.begin_drain();
    for _ in 0..shared.handoff.shut() {
        shared.stop.count(true);
    }
    shared.handoff.drain_asked(shared, notifier);
    shared.clear_notifier();
}

/// Polls; an interrupted or failed poll is as good as a wake-up, for all is checked anew after it.
fn wait(fds: &mut [PollFd], deadline: Option<Instant>) -> bool {
    sys::poll(fds, deadline).is_ok_and(|ready| ready > 0)
}
