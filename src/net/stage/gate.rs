//! How many handshakes of a server are made at once. Owns the queue of those that wait; must never
//! let one wait while there is room.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::net::base::Mutex;
use crate::net::service::Waker;

/// Bounds the handshakes of one server.
pub(crate) struct Gate {
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    inside: usize,
    next: u64,
    waiting: VecDeque<(u64, Waker)>,
}

/// A place in the gate; dropped, it is given to the next one.
pub(crate) struct Place {
    gate: Arc<Gate>,
    /// Its number in the queue, while it waits for another handshake to end.
    waiting: Option<u64>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({:?})", self.most)
    }
}

impl Gate {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, state: Mutex::default() }
    }

    /// Takes a place, or has `waker` used when there may be one.
    pub(super) fn enter(self: &Arc<Self>, waker: Option<Waker>) -> Place {
        let mut state = self.state.lock();
        let waiting = match waker {
            Some(waker) if state.inside >= self.most => {
                let number = state.next;
                state.next += 1;
                state.waiting.push_back((number, waker));
                Some(number)
            }
            _ => {
                state.inside += 1;
                None
            }
        };
        Place { gate: Arc::clone(self), waiting }
    }
}

impl Place {
    /// Whether the handshake may be made.
    pub(super) fn is_inside(&self) -> bool {
        self.waiting.is_none()
    }

    /// Looks whether the place that it waits for has been given to it.
    pub(super) fn advance(&mut self) {
        let Some(number) = self.waiting else { return };
        // The one that left has counted this one in, and has taken it out of the queue.
        if !self.gate.state.lock().waiting.iter().any(|(waiting, _)| *waiting == number) {
            self.waiting = None;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        if let Some(number) = self.waiting {
            let at = state.waiting.iter().position(|(waiting, _)| *waiting == number);
            if let Some(at) = at {
                state.waiting.remove(at);
                return;
            }
            // It was counted in, and did not come to know.
        }
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.inside -= 1;
        }
        drop(state);
        if let Some((_, waker)) = next {
            waker.wake();
        }
    }
}
