//! The ledger of a server: its open connections, its last closed ones, totals that balance. Must
//! never be locked while bytes are moved: only an open, a close or a reader takes its lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use slab::Slab;

use super::closed_by::ClosedBy;
use super::counters::{DatagramCounters, Refusals};
use super::paths::Paths;
use super::record::{Far, Record};
use super::refusal::Refusal;
use super::socket_close::SocketClose;
use super::tls_info::TlsInfo;
use super::totals::Totals;
use crate::net::base::{EventFd, Mutex, Origin, Waiter, pause, wait_for_own};
use crate::net::error::{Error, Result};
use crate::net::socket::Algorithm;

/// How often a call looks at the ledger for which the process has no descriptor to wait with.
const WITHOUT_FLAG: Duration = Duration::from_millis(20);

pub(crate) struct LedgerState {
    open: Slab<Arc<Record>>,
    pub(super) closed: VecDeque<Arc<Record>>,
    /// Sums over all closed connections, and the counts; `open` is filled in by `totals`.
    pub(super) totals: Totals,
    /// What the kernel measured on the paths of all closed connections.
    paths: Paths,
    /// The conditions that callers wait for, each with the flag to set when it is met.
    waiting: Vec<(Wait, Arc<EventFd>)>,
    /// A flag for the next call that waits, so that it needs no new descriptor. None while a call
    /// uses it.
    spare: Option<Arc<EventFd>>,
    /// Whether `spare` is kept: from the start of the server to its end.
    keeps_spare: bool,
    /// Whether the server has ended.
    pub(super) over: bool,
    /// Connections that had closed before the last reset. Followers count on.
    before_reset: u64,
}

/// A condition on the counts; None matches any count.
#[derive(Clone, Copy)]
pub(crate) struct Wait {
    pub(super) open: Option<u64>,
    pub(super) closed: Option<u64>,
    /// As `closed`, and counted since the start of the server, whatever was reset.
    pub(super) closed_ever: Option<u64>,
}

impl Wait {
    pub(super) fn of(open: Option<u64>, closed: Option<u64>) -> Self {
        Self { open, closed, closed_ever: None }
    }
}

impl LedgerState {
    fn satisfies(&self, wait: &Wait) -> bool {
        wait.open.is_none_or(|n| self.open.len() as u64 == n)
            && wait.closed.is_none_or(|n| self.totals.closed >= n)
            && wait.closed_ever.is_none_or(|n| self.closed_ever() >= n)
    }

    /// How many connections have closed since the start of the server.
    pub(super) fn closed_ever(&self) -> u64 {
        self.before_reset + self.totals.closed
    }

    fn notify(&self) {
        for (wait, flag) in &self.waiting {
            if self.satisfies(wait) {
                flag.set();
            }
        }
    }

    /// The flag of a call that waits, entered in the list. None if the process has no descriptor
    /// left: EMFILE, ENFILE, ENOMEM.
    pub(super) fn wait_with_flag(&mut self, wait: Wait) -> Option<Arc<EventFd>> {
        let flag = match self.spare.take().filter(|spare| spare.clear()) {
            Some(spare) => spare,
            None => Arc::new(EventFd::new().ok()?),
        };
        self.waiting.push((wait, Arc::clone(&flag)));
        Some(flag)
    }

    /// Takes back the flag of a call that has ended.
    pub(super) fn give_back(&mut self, flag: Arc<EventFd>) {
        self.waiting.retain(|(_, other)| !Arc::ptr_eq(other, &flag));
        if self.keeps_spare && self.spare.is_none() && !flag.is_lost() {
            self.spare = Some(flag);
        }
    }

    /// All records, if a condition is met.
    pub(super) fn found(&self, wait: Wait) -> Option<Vec<Arc<Record>>> {
        self.satisfies(&wait).then(|| self.records())
    }

    fn records(&self) -> Vec<Arc<Record>> {
        let mut records: Vec<_> = self.closed.iter().cloned().collect();
        records.extend(self.open.iter().map(|(_, record)| Arc::clone(record)));
        records.sort_by_key(|record| record.id());
        records
    }
}

/// The key of an open record in the ledger; free for reuse after the close.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryId(u32);

/// The ledger of one server.
pub struct Ledger {
    pub(super) state: Mutex<LedgerState>,
    datagrams: DatagramCounters,
    refusals: Refusals,
    pub(super) history: usize,
}

impl Ledger {
    /// An empty ledger that keeps the last `history` closed connections.
    pub(crate) fn new(history: usize) -> Self {
        let state = LedgerState {
            open: Slab::new(),
            closed: VecDeque::new(),
            totals: Totals::default(),
            paths: Paths::default(),
            waiting: Vec::new(),
            spare: None,
            keeps_spare: false,
            over: false,
            before_reset: 0,
        };
        Self {
            state: Mutex::new(state),
            datagrams: DatagramCounters::default(),
            refusals: Refusals::default(),
            history,
        }
    }

    pub(crate) fn open(&self, record: &Arc<Record>) -> EntryId {
        let mut state = self.state.lock();
        state.totals.accepted += 1;
        let entry_id = state.open.insert(Arc::clone(record));
        state.notify();
        EntryId(entry_id as u32)
    }

    /// Closes a record; called before the socket is closed, as `close` says. `algorithm` as in
    /// `Record::last_tcp_info`. `release` gives back what the connection takes of the server's
    /// limits, at the moment from which the ledger shows the connection as closed.
    pub(crate) fn close(
        &self,
        entry_id: EntryId,
        by: ClosedBy,
        error: Option<String>,
        algorithm: Option<Algorithm>,
        close: SocketClose<'_>,
        release: impl FnOnce(&Record),
    ) {
        let record = Arc::clone(&self.state.lock().open[entry_id.0 as usize]);
        // Without the lock, because these make system calls.
        let tcp_info = record.last_tcp_info(algorithm);
        record.note_close(close, by, tcp_info.as_ref());
        drop(record);
        let mut state = self.state.lock();
        let record = state.open.remove(entry_id.0 as usize);
        release(&record);
        state.paths.add(tcp_info.as_ref());
        record.close(by, error, tcp_info);
        state.totals.closed += 1;
        state.totals.closed_by[by.index()] += 1;
        state.totals.tls.failed += u64::from(record.is_handshaking());
        let fails_target = record.far().is_some_and(Far::is_handshaking);
        state.totals.target_tls.failed += u64::from(fails_target);
        state.totals.received.add(record.received());
        state.totals.sent.add(record.sent());
        let forgotten = if self.history > 0 {
            let oldest =
                if state.closed.len() >= self.history { state.closed.pop_front() } else { None };
            state.closed.push_back(record);
            oldest
        } else {
            Some(record)
        };
        state.notify();
        // Frees the record after the lock is released.
        drop(state);
        drop(forgotten);
    }

    pub(crate) fn count_refused(&self, reason: Refusal) {
        self.refusals.count(reason);
    }

    pub(crate) fn count_proxy_error(&self) {
        self.state.lock().totals.proxy_errors += 1;
    }

    /// Counts a TLS handshake that was completed with a client.
    pub(crate) fn count_handshake(&self, info: &TlsInfo) {
        self.state.lock().totals.tls.count(info);
    }

    /// The same with the target of a forwarder.
    pub(crate) fn count_target_handshake(&self, info: &TlsInfo) {
        self.state.lock().totals.target_tls.count(info);
    }

    pub(crate) fn count_accept_error(&self) {
        self.state.lock().totals.accept_errors += 1;
    }

    /// Counts connections that wait for a thread of the pool.
    pub(crate) fn count_waited(&self, number: usize) {
        if number > 0 {
            self.state.lock().totals.waited += number as u64;
        }
    }

    pub(crate) fn count_suspect(&self) {
        self.datagrams.suspects.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_dropped(&self, datagrams: u64) {
        if datagrams > 0 {
            self.datagrams.dropped.fetch_add(datagrams, Relaxed);
        }
    }

    pub(crate) fn count_cut(&self) {
        self.datagrams.truncated.fetch_add(1, Relaxed);
    }

    /// The open connections, oldest first.
    #[must_use]
    pub fn open_records(&self) -> Vec<Arc<Record>> {
        let mut records: Vec<_> =
            self.state.lock().open.iter().map(|(_, record)| Arc::clone(record)).collect();
        records.sort_by_key(|record| record.id());
        records
    }

    /// The last closed connections, in the order of closing.
    #[must_use]
    pub fn closed_records(&self) -> Vec<Arc<Record>> {
        self.state.lock().closed.iter().cloned().collect()
    }

    /// All open connections, and the closed ones still kept, oldest first.
    #[must_use]
    pub fn records(&self) -> Vec<Arc<Record>> {
        self.state.lock().records()
    }

    /// The number of connections in `records`.
    #[must_use]
    pub fn len(&self) -> usize {
        let state = self.state.lock();
        state.open.len() + state.closed.len()
    }

    /// Whether `records` is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The current sums, including those of open connections.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let state = self.state.lock();
        let mut totals = state.totals.clone();
        totals.open = state.open.len() as u64;
        totals.refused_by = self.refusals.get();
        totals.refused = totals.refused_by.iter().sum();
        totals.suspects = self.datagrams.suspects.load(Relaxed);
        totals.dropped = self.datagrams.dropped.load(Relaxed);
        totals.truncated = self.datagrams.truncated.load(Relaxed);
        for (_, record) in &state.open {
            totals.received.add(record.received());
            totals.sent.add(record.sent());
        }
        totals
    }

    /// What the kernel measured on the paths of the connections that are closed.
    #[must_use]
    pub fn paths(&self) -> Paths {
        self.state.lock().paths.clone()
    }

    /// Blocks until exactly `open` connections are open and at least `closed` have closed since the
    /// start. Returns all records at that moment; `TimedOut` after the deadline.
    pub fn wait(
        &self,
        open: Option<u64>,
        closed: Option<u64>,
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
    ) -> Result<Vec<Arc<Record>>> {
        let wait = Wait::of(open, closed);
        let found = self.wait_for(wait, deadline, waiter, |state| state.found(wait))?;
        found.ok_or_else(|| self.late(wait))
    }

    /// Blocks until `found` returns a value; None after the deadline. Calls `found` first, then
    /// each time `wait` is met, and at the server's end.
    pub(super) fn wait_for<T>(
        &self,
        wait: Wait,
        deadline: Option<Instant>,
        waiter: &mut dyn Waiter,
        mut found: impl FnMut(&mut LedgerState) -> Option<T>,
    ) -> Result<Option<T>> {
        let origin = Origin::here();
        let mut flag: Option<Arc<EventFd>> = None;
        let result = loop {
            {
                let mut state = self.state.lock();
                if let Some(found) = found(&mut state) {
                    break Ok(Some(found));
                }
                match &flag {
                    // A flag that the program has closed is found by the wait.
                    Some(flag) => drop(flag.clear()),
                    None => flag = state.wait_with_flag(wait),
                }
            }
            let waited = match &flag {
                Some(flag) => wait_for_own(waiter, &mut [flag.polled()], deadline),
                None => pause(waiter, WITHOUT_FLAG, deadline),
            };
            if !origin.is_here() {
                // A signal handler has forked. In the child the lock may be held for ever.
                return waited.and_then(|_| origin.check().map(|()| None));
            }
            match waited {
                Ok(true) => {}
                Err(Error::Os { errno: libc::EBADF, .. }) => {
                    // The program has closed it.
                    if let Some(flag) = flag.take() {
                        flag.lose();
                        self.state.lock().give_back(flag);
                    }
                }
                Ok(false) => break Ok(None),
                Err(error) => break Err(error),
            }
        };
        if let Some(flag) = flag {
            self.state.lock().give_back(flag);
        }
        result
    }

    /// Forgets the closed connections and all counts. False, without effect, while a connection is
    /// open.
    pub(crate) fn reset(&self) -> bool {
        let mut state = self.state.lock();
        if !state.open.is_empty() {
            return false;
        }
        state.before_reset = state.closed_ever();
        state.totals = Totals::default();
        self.datagrams.clear();
        self.refusals.clear();
        let forgotten = std::mem::take(&mut state.closed);
        state.notify();
        // Frees the records after the lock is released.
        drop(state);
        drop(forgotten);
        true
    }

    /// Opens the flag that `wait` uses while no other call does. Called before the server starts.
    pub(crate) fn open_flag(&self) -> std::io::Result<()> {
        let flag = Arc::new(EventFd::new()?);
        let mut state = self.state.lock();
        state.spare = Some(flag);
        state.keeps_spare = true;
        Ok(())
    }

    /// Closes that flag once no call uses it. Called when the last thread has ended.
    pub(crate) fn close_flag(&self) {
        let mut state = self.state.lock();
        state.keeps_spare = false;
        state.spare = None;
    }

    /// Ends all waiting: the server has ended, and no connection will close any more.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock();
        state.over = true;
        for (_, flag) in &state.waiting {
            flag.set();
        }
    }

    pub(super) fn late(&self, Wait { open, closed, .. }: Wait) -> Error {
        let totals = self.totals();
        let mut asked = Vec::new();
        asked.extend(open.map(|n| format!("open={n}")));
        asked.extend(closed.map(|n| format!("closed={n}")));
        let target = format!(
            "for {} ({} are open, {} closed)",
            asked.join(", "),
            totals.open,
            totals.closed
        );
        Error::TimedOut { step: "wait", target }
    }
}
