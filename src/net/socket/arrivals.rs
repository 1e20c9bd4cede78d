//! The connections in a listener's queue, by the time of their arrival. Owns what notices an
//! arrival; must never accept a connection, nor wait for one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use crate::net::base::Listed;
use crate::net::sys;

/// A descriptor that is readable from each arrival until the next `Arrivals::look`. A poll of the
/// listener itself would return at once for as long as a connection waits.
pub(crate) struct Watch {
    // Before the descriptor, so that the number leaves the fork table before it is closed.
    _listed: Listed,
    fd: OwnedFd,
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The times of arrival of what waits in a queue.
pub(super) struct Arrivals {
    watch: Arc<Watch>,
    /// The oldest first: the order in which the kernel returns them.
    times: VecDeque<Instant>,
}

impl Arrivals {
    /// Begins to watch a listener. Fails with EMFILE and similar errors.
    pub(super) fn of(listener: BorrowedFd<'_>) -> io::Result<Self> {
        let fd = sys::watch_edges(listener)?;
        let watch = Arc::new(Watch { _listed: Listed::new(&fd), fd });
        Ok(Self { watch, times: VecDeque::new() })
    }

    pub(super) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    /// Notes what has arrived since the last call as of `now`, and returns how much. `waiting`
    /// returns the length of the queue; it is given the number that is known.
    pub(super) fn look(&mut self, now: Instant, waiting: impl FnOnce(usize) -> usize) -> usize {
        let has_edge = sys::take_edge(self.watch.as_fd()).unwrap_or(true);
        // An edge that was taken before the connection was counted must not hide it.
        if !has_edge && !self.times.is_empty() {
            return 0;
        }
        let known = self.times.len();
        self.note(now, waiting(known))
    }

    fn note(&mut self, now: Instant, waiting: usize) -> usize {
        // Another owner of the listener may have accepted some.
        let taken = self.times.len().saturating_sub(waiting);
        self.times.drain(..taken);
        let new = waiting - self.times.len();
        self.times.extend(std::iter::repeat_n(now, new));
        new
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// When the first in the queue has arrived.
    pub(super) fn first(&self) -> Option<Instant> {
        self.times.front().copied()
    }

    /// The first was accepted.
    pub(super) fn take_first(&mut self) {
        self.times.pop_front();
    }

    /// The queue is empty.
    pub(super) fn clear(&mut self) {
        self.times.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_connection_has_the_time_at_which_it_was_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut arrivals = Arrivals::of(listener.as_fd()).unwrap();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(arrivals.look(at(0), |_| 0), 0);
        let _one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(arrivals.look(at(1), |_| 1), 1);
        // Without an edge, the queue is not asked.
        assert_eq!(arrivals.look(at(2), |_| unreachable!()), 0);
        let _two = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(arrivals.look(at(3), |known| known + 1), 1);
        assert_eq!(arrivals.first(), Some(at(1)));
        arrivals.take_first();
        assert_eq!((arrivals.first(), arrivals.len()), (Some(at(3)), 1));
    }

    #[test]
    fn connections_that_another_owner_accepts_are_forgotten_oldest_first() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut arrivals = Arrivals::of(listener.as_fd()).unwrap();
        let start = Instant::now();
        assert_eq!(arrivals.note(start, 2), 2);
        assert_eq!(arrivals.note(start + Duration::from_secs(1), 3), 1);
        assert_eq!(arrivals.note(start + Duration::from_secs(2), 1), 0);
        assert_eq!(arrivals.first(), Some(start + Duration::from_secs(1)));
    }
}
